"""Registry: registration, lookup, listing, cards, plug-ins and the built-in catalog."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import keras
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import (
    ArgumentError,
    RegistrationError,
    SeqZooError,
    UnknownArgumentError,
    UnknownNameError,
)
from keras_seqzoo.registry import registry as registry_module
from keras_seqzoo.registry.search_space import Choice, Float, Int

NAME = "simple_rnn_identity"
FIELDS = {
    "task": "identity",
    "summary": "A model for tests.",
    "inputs": "(batch, time, features)",
    "outputs": "(batch, time, features)",
    "causal": False,
}


def identity_model(*, features: int = 1, name: str = "identity_model") -> keras.Model:
    """Returns a model whose output is its input.

    Args:
        features: int, readings per step,
            on two lines.
        name: str, name of the model.

    Returns:
        A model.
    """
    inputs = keras.Input((None, features), name="readings")
    return keras.Model(inputs, keras.layers.Identity(name="same")(inputs), name=name)


def add(name: str, constructor=identity_model, **fields):
    return zoo.register(name, constructor, **FIELDS | fields)


# ------------------------------------------------------------------------- register and unregister


def test_registered_entry_is_listed_described_and_built():
    add("identity_model")
    assert "identity_model" in zoo.list_models()
    assert zoo.describe("identity_model").summary == "A model for tests."
    model = zoo.get("identity_model", features=3)
    assert (model.name, model.output_shape) == ("identity_model", (None, None, 3))


def test_register_decorates_and_returns_the_constructor():
    assert zoo.register("decorated", **FIELDS)(identity_model) is identity_model
    assert add("given") is identity_model
    assert zoo.get("decorated").name == "decorated"


def test_defaults_of_an_entry_override_those_of_the_constructor():
    add("three", defaults={"features": 3})
    assert zoo.get("three").output_shape == (None, None, 3)
    assert zoo.get("three", features=4).output_shape == (None, None, 4)
    assert zoo.describe("three").arguments["features"][0] == 3


def test_constructor_given_by_name_is_loaded_on_first_use():
    add("by_name", "keras_seqzoo.models.identity:simple_rnn_identity", family="identity")
    assert zoo.get("by_name", units=2).name == "by_name"


def test_get_sets_the_name_of_the_model():
    assert zoo.get(NAME, name="pump").name == "pump"


def test_unregister_removes_one_entry():
    add("first")
    add("second")
    zoo.unregister("first")
    assert "first" not in zoo.list_models()
    assert {"second", NAME} <= set(zoo.list_models())
    with pytest.raises(UnknownNameError):
        zoo.unregister("first")
    add("first")  # the name can be registered again


def with_keyword_arguments(*, name="x", **anything):
    raise NotImplementedError


def with_positional_arguments(*values, name="x"):
    raise NotImplementedError


def with_required_argument(features, *, name="x"):
    raise NotImplementedError


def without_name_argument(*, features=1):
    raise NotImplementedError


MALFORMED = {
    "registered name": (
        (NAME, identity_model),
        {},
        "registered already.*Choose another",
    ),
    "upper case": (("Passes", identity_model), {}, "snake_case"),
    "leading digit": (("1model", identity_model), {}, "snake_case"),
    "hyphen": (("a-model", identity_model), {}, "snake_case"),
    "empty name": (("", identity_model), {}, "snake_case"),
    "trailing newline": (("model\n", identity_model), {}, "snake_case"),
    "name of another type": ((5, identity_model), {}, "snake_case"),
    "task": (("new", identity_model), {"task": "translation"}, "identity, classification, tagging"),
    "task of another type": (("new", identity_model), {"task": ["tagging"]}, "`task`"),
    "summary": (("new", identity_model), {"summary": " "}, "`summary`.*non-empty"),
    "inputs": (("new", identity_model), {"inputs": ""}, "`inputs`"),
    "outputs": (("new", identity_model), {"outputs": None}, "`outputs`"),
    "causal": (("new", identity_model), {"causal": "yes"}, "`causal`.*True or False"),
    "space": (("new", identity_model), {"space": {"units": (1, 2)}}, "an Int, a Float or a Choice"),
    "unknown field": (("new", identity_model), {"familly": "x"}, "Did you mean 'family'"),
    "keyword arguments": (("new", with_keyword_arguments), {}, r"\*\*anything"),
    "positional arguments": (("new", with_positional_arguments), {}, r"\*values"),
    "argument without default": (("new", with_required_argument), {}, "features without one"),
    "no name argument": (("new", without_name_argument), {}, "must take `name`"),
    "not callable": (("new", 5), {}, "a function or 'module:function'"),
    "no colon": (("new", "module.function"), {}, "'module:function'"),
    "two colons": (("new", "module:function:x"), {}, "'module:function'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_registration_is_rejected_without_effect(case):
    arguments, fields, message = MALFORMED[case]
    before = zoo.list_models()
    with pytest.raises(RegistrationError, match=message):
        zoo.register(*arguments, **FIELDS | fields)
    assert zoo.list_models() == before


@pytest.mark.parametrize(
    "target", ["no_such_module_here:f", "keras_seqzoo.models:no_such_function"]
)
def test_error_names_a_constructor_that_cannot_be_loaded(target):
    add("not_loadable", target)
    with pytest.raises(RegistrationError, match=f"'not_loadable' cannot be loaded from '{target}'"):
        zoo.get("not_loadable")
    assert NAME in zoo.list_models()


def test_constructor_given_by_name_is_checked_on_first_use():
    add("any_keywords", f"{__name__}:with_keyword_arguments")
    with pytest.raises(RegistrationError, match=r"\*\*anything"):
        zoo.get("any_keywords")


# ----------------------------------------------------------------------------------------- listing


def test_list_models_sorts_names_in_natural_order():
    for name in ("rnn_10", "rnn_9", "rnn_9_b", "rnn_2", "rnn"):
        add(name)
    assert zoo.list_models("rnn*") == ["rnn", "rnn_2", "rnn_9", "rnn_9_b", "rnn_10"]


def test_list_models_takes_one_or_several_wildcards():
    for name in ("our_gru_filler", "our_gru_reader", "our_lstm_filler"):
        add(name)
    assert zoo.list_models("our_gru*") == ["our_gru_filler", "our_gru_reader"]
    assert zoo.list_models("*_filler") == ["our_gru_filler", "our_lstm_filler"]
    assert zoo.list_models(["our_gru_r*", "our_l*"]) == ["our_gru_reader", "our_lstm_filler"]
    assert zoo.list_models("our_*er", exclude="*gru*") == ["our_lstm_filler"]
    assert zoo.list_models("our_*er", exclude=["*gru_f*", "*lstm*"]) == ["our_gru_reader"]
    assert zoo.list_models("our_*er", exclude=("*gru_f*", "*lstm*")) == ["our_gru_reader"]
    assert zoo.list_models("no such name") == []
    assert zoo.list_models([]) == []


def test_list_models_filters_by_task_and_fields():
    add("noncausal_model", task="reconstruction", causal=False)
    add("causal_model", task="reconstruction", causal=True)
    assert zoo.list_models("*causal_model", task="reconstruction", causal=True) == ["causal_model"]
    assert zoo.list_models("*causal_model", causal=False) == ["noncausal_model"]
    assert zoo.list_models("*causal_model", task="identity") == []
    assert zoo.list_models(family="reconstruction") == ["causal_model", "noncausal_model"]
    assert NAME in zoo.list_models(task="identity", causal=True)


def test_catalog_has_the_expected_entries():
    tasks = {
        "identity": ["simple_rnn_identity"],
        "classification": ["bilstm_classifier", "gru_classifier", "simple_rnn_classifier"],
        "tagging": [
            "bilstm_crf_tagger",
            "bilstm_tagger",
            "char_bilstm_crf_tagger",
            "gru_tagger",
            "simple_rnn_tagger",
        ],
        "seq2seq": [
            "attention_gru_encoder_decoder",
            "attention_lstm_encoder_decoder",
            "gru_encoder_decoder",
            "simple_rnn_encoder_decoder",
            "vector_encoder_decoder",
        ],
        "reconstruction": [
            "attention_autoencoder",
            "gru_autoencoder",
            "linear_rnn_autoencoder",
            "lstm_autoencoder",
        ],
        "forecasting": ["gru_forecaster"],
    }
    for task, names in tasks.items():
        assert zoo.list_models(task=task) == names
    assert zoo.list_models() == sorted(name for names in tasks.values() for name in names)
    noncausal = [*zoo.list_models("bilstm*"), "char_bilstm_crf_tagger", *tasks["seq2seq"]]
    noncausal += ["attention_autoencoder", "gru_autoencoder", "lstm_autoencoder"]
    assert zoo.list_models(causal=False) == sorted(noncausal)
    assert zoo.list_models(family="classifier") == zoo.list_models("*_classifier")
    assert zoo.list_models(family="tagger") == zoo.list_models(["*_tagger", "gru_forecaster"])
    assert zoo.list_models(family="encoder_decoder") == zoo.list_models("*_encoder_decoder")
    assert zoo.list_models(family="autoencoder") == zoo.list_models("*_autoencoder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": 5}, "`pattern`"),
        ({"pattern": [5]}, "`pattern`"),
        ({"exclude": None}, "`exclude`"),
        ({"task": "tagger"}, "one of 'identity', 'classification'"),
        ({"causl": True}, "Did you mean 'causal'"),
    ],
)
def test_list_models_rejects_unknown_filters(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.list_models(**arguments)


# ----------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize("function", [zoo.get, zoo.describe, zoo.unregister])
def test_unknown_name_error_suggests_the_nearest_and_lists_all(function):
    add("a_tagger")
    with pytest.raises(UnknownNameError) as caught:
        function("simple_rnn_idenity")
    message = str(caught.value)
    assert "Did you mean 'simple_rnn_identity'?" in message
    assert ", ".join(zoo.list_models()) in message
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("name", [None, 5, ["x"], "", "no similar name at all"])
def test_unknown_name_error_without_a_similar_name_has_no_suggestion(name):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get(name)
    assert "Did you mean" not in str(caught.value)
    assert NAME in str(caught.value)


def test_unknown_argument_error_suggests_the_nearest_and_lists_all():
    with pytest.raises(UnknownArgumentError) as caught:
        zoo.get(NAME, recurent_regularizer="l2")
    message = str(caught.value)
    assert "Did you mean 'recurrent_regularizer'?" in message
    assert all(argument in message for argument in zoo.describe(NAME).arguments)
    assert isinstance(caught.value, TypeError)


# --------------------------------------------------------------------------------------- plug-ins


class Plugin:
    value = "some_package:entries"

    def __init__(self, function):
        self.function = function

    def load(self):
        return self.function


@pytest.fixture
def plug_in(monkeypatch):
    """Returns a function that resets the registry as in a new process with plug-ins installed."""

    def install(*functions):
        def entry_points(*, group):
            assert group == "keras_seqzoo.entries"
            return [Plugin(function) for function in functions]

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        monkeypatch.setattr(registry_module, "_entries", {})
        monkeypatch.setattr(registry_module, "_loading", False)

    return install


def test_plug_in_adds_entries(plug_in):
    plug_in(lambda: add("plug_in_b"), lambda: add("plug_in_a"))
    assert zoo.list_models("plug_in*") == ["plug_in_a", "plug_in_b"]
    assert NAME in zoo.list_models()
    assert zoo.get("plug_in_b").name == "plug_in_b"


def broken_plug_in():
    add("added_before_the_failure")
    raise RuntimeError("no licence")


@pytest.mark.parametrize("broken", [broken_plug_in, lambda: add(NAME), 5])
def test_broken_plug_in_warns_and_does_not_disable_the_zoo(plug_in, broken):
    plug_in(broken, lambda: add("plug_in_b"))
    with pytest.warns(UserWarning, match="entries of 'some_package:entries' could not be added"):
        names = zoo.list_models()
    assert {"plug_in_b", NAME} <= set(names)
    assert zoo.get(NAME).name == NAME
    assert zoo.list_models() == names  # it warns once


# ------------------------------------------------------------------------------------------- cards


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_argument_of_every_entry_has_a_description(name):
    card = zoo.describe(name)
    assert card.arguments
    for argument, (_, description) in card.arguments.items():
        assert len(description) > 10, argument


@pytest.mark.parametrize("name", zoo.list_models())
def test_card_shows_shapes_arguments_and_search_space(name):
    card = zoo.describe(name)
    text = " ".join(str(card).split())
    assert name in text
    for part in (card.summary, card.task, card.inputs, card.outputs, *card.references):
        assert " ".join(part.split()) in text
    for argument, (default, description) in card.arguments.items():
        assert f"{argument} {description} (default {default!r})" in text
    for dimension, values in card.space.items():
        assert f"{dimension} {values}" in text
    # A reference is on one line, so that it can be copied.
    references = {" ".join(reference.split()) for reference in card.references}
    lines = [line for line in str(card).splitlines() if line.strip() not in references]
    assert max(map(len, lines)) <= 130


def test_card_to_dict_serializes_to_json():
    card = zoo.describe(NAME).to_dict()
    loaded = json.loads(json.dumps(card))
    assert loaded == json.loads(json.dumps(card))
    assert loaded["arguments"]["units"]["default"] == 8
    assert loaded["causal"] is True
    assert loaded["space"]["units"] == "int, 2 to 32, log scale"


def test_argument_description_on_two_lines_is_joined():
    add("documented")
    arguments = zoo.describe("documented").arguments
    assert arguments["features"] == (1, "int, readings per step, on two lines.")
    assert arguments["name"] == ("documented", "str, name of the model.")


def test_card_rejects_unknown_attributes():
    with pytest.raises(AttributeError):
        _ = zoo.describe(NAME).no_such_field


def test_identity_search_space_is_as_expected():
    assert dict(zoo.describe(NAME).space) == {
        "units": Int(2, 32, log=True, default=8),
        "recurrent_regularizer": Choice(("none", "l1", "l2", "l1_l2"), default="l1"),
        "recurrent_strength": Float(
            1e-5, 1.0, log=True, default=1e-2, when={"recurrent_regularizer": ("l1", "l2", "l1_l2")}
        ),
        "recurrent_initializer": Choice(
            ("orthogonal", "glorot_uniform", "zeros"), default="orthogonal"
        ),
        "learning_rate": Float(1e-3, 3e-2, log=True, default=1e-2),
    }


STRENGTHS = {"recurrent_regularizer": ("l1", "l2", "l1_l2")}


@pytest.mark.parametrize(
    "name", zoo.list_models(["*_tagger", "*_classifier", "*_forecaster", "*_encoder_decoder"])
)
def test_sequence_model_search_space_is_as_expected(name):
    units = dict.fromkeys(("bilstm_tagger", "bilstm_crf_tagger", "char_bilstm_crf_tagger"), 100)
    units |= dict.fromkeys(zoo.list_models("*_encoder_decoder", exclude="vector*"), 256)
    dropout, input_dropout = 0.0, 0.0
    if "bilstm" in name:
        dropout, input_dropout = 0.5, 0.2
    if name.startswith("attention_"):
        dropout, input_dropout = 0.5, 0.3
    assert dict(zoo.describe(name).space) == {
        "units": Int(16, 256, log=True, default=units.get(name, 64)),
        "dropout": Float(0.0, 0.7, default=dropout),
        "input_dropout": Float(0.0, 0.5, default=input_dropout),
        "recurrent_regularizer": Choice(("none", "l1", "l2"), default="none"),
        "recurrent_strength": Float(1e-7, 1e-3, log=True, default=1e-5, when=STRENGTHS),
        "learning_rate": Float(3e-4, 1e-2, log=True, default=2e-3),
    }


@pytest.mark.parametrize("name", zoo.list_models("*_autoencoder"))
def test_autoencoder_search_space_is_as_expected(name):
    sizes = {"linear_rnn_autoencoder": (32, 10), "attention_autoencoder": (64, 16)}
    units, code_size = sizes.get(name, (128, 32))
    assert dict(zoo.describe(name).space) == {
        "units": Int(8, 256, log=True, default=units),
        "code_size": Int(2, 64, log=True, default=code_size),
        "dropout": Float(0.0, 0.5, default=0.0),
        "recurrent_regularizer": Choice(("none", "l1", "l2"), default="none"),
        "recurrent_strength": Float(1e-7, 1e-3, log=True, default=1e-5, when=STRENGTHS),
        "learning_rate": Float(3e-4, 3e-2, log=True, default=3e-3),
    }


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_dimension_is_a_model_argument_or_a_training_option(name):
    training_options = {"recurrent_strength", "learning_rate"}
    assert set(zoo.describe(name).space) <= set(zoo.describe(name).arguments) | training_options


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("simple_rnn_classifier", {"cell": "simple_rnn", "bidirectional": False}),
        ("gru_classifier", {"cell": "gru", "bidirectional": False, "pooling": "last"}),
        ("bilstm_classifier", {"cell": "lstm", "bidirectional": True, "dropout": 0.5}),
        ("simple_rnn_tagger", {"cell": "simple_rnn", "bidirectional": False, "head": "softmax"}),
        ("gru_tagger", {"cell": "gru", "bidirectional": False, "head": "softmax"}),
        ("bilstm_tagger", {"cell": "lstm", "bidirectional": True, "head": "softmax"}),
        ("bilstm_crf_tagger", {"cell": "lstm", "bidirectional": True, "head": "crf"}),
        (
            "char_bilstm_crf_tagger",
            {"cell": "lstm", "bidirectional": True, "head": "crf", "word_dropout": 0.05}
            | {"vocabulary_size": 10_000, "character_vocabulary_size": 100},
        ),
        ("gru_forecaster", {"cell": "gru", "bidirectional": False, "head": "regression"}),
        ("linear_rnn_autoencoder", {"cell": "linear", "reconstruct": "last", "attention": None}),
        ("lstm_autoencoder", {"cell": "lstm", "reconstruct": "sequence", "attention": None}),
        ("gru_autoencoder", {"cell": "gru", "reconstruct": "sequence", "attention": None}),
        ("attention_autoencoder", {"attention": "general", "bidirectional": True}),
    ],
)
def test_defaults_of_entries_are_as_expected(name, defaults):
    arguments = zoo.describe(name).arguments
    assert defaults == {key: arguments[key][0] for key in defaults}


# --------------------------------------------------------------------------------- public surface


def test_every_public_name_exists():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert dir(zoo) == sorted(zoo.__all__)
    assert len(set(zoo.__all__)) == len(zoo.__all__)


def test_unknown_attribute_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = zoo.no_such_name
    assert not hasattr(zoo, "tensorflow")


def test_every_error_derives_from_seqzoo_error():
    from keras_seqzoo import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) > 5
    assert all(issubclass(cls, SeqZooError) for cls in classes if issubclass(cls, Exception))


def test_listing_models_imports_no_heavy_packages():
    code = """
import sys, keras_seqzoo as zoo
from keras_seqzoo.errors import UnknownNameError
assert zoo.list_models("*identity")
dir(zoo)
try:
    zoo.get("no such model")
except UnknownNameError:
    pass
heavy = {"tensorflow", "keras", "keras_tuner", "optuna", "pandas", "matplotlib", "numpy"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
