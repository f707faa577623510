"""The zoo's register: names in, names out, cards, and early refusals."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import keras
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import registry
from keras_seqzoo.errors import (
    ArgumentError,
    RegistrationError,
    SeqZooError,
    UnknownArgumentError,
    UnknownNameError,
)
from keras_seqzoo.registry.search_space import Choice, Float, Int

NAME = "simple_rnn_identity"
FIELDS = {
    "task": "tagging",
    "summary": "A model for tests.",
    "inputs": "(batch, time, features)",
    "outputs": "(batch, time, features)",
    "causal": False,
}


def passes_on(*, features: int = 1, name: str = "passes_on") -> keras.Model:
    """Gives its input back.

    Args:
        features: int, readings per step,
            on two lines.
        name: str, name of the model.

    Returns:
        A model.
    """
    inputs = keras.Input((None, features), name="readings")
    return keras.Model(inputs, keras.layers.Identity(name="same")(inputs), name=name)


def add(name: str, constructor=passes_on, **fields):
    return zoo.register(name, constructor, **FIELDS | fields)


# ------------------------------------------------------------------------- register and unregister


def test_a_registered_entry_is_listed_described_and_built():
    add("passes_on")
    assert "passes_on" in zoo.list_models()
    assert zoo.describe("passes_on").summary == "A model for tests."
    model = zoo.get("passes_on", features=3)
    assert (model.name, model.output_shape) == ("passes_on", (None, None, 3))


def test_register_decorates_and_returns_the_constructor():
    assert zoo.register("decorated", **FIELDS)(passes_on) is passes_on
    assert add("given") is passes_on
    assert zoo.get("decorated").name == "decorated"


def test_an_entrys_defaults_take_the_place_of_the_constructors():
    add("three", defaults={"features": 3})
    assert zoo.get("three").output_shape == (None, None, 3)
    assert zoo.get("three", features=4).output_shape == (None, None, 4)
    assert zoo.describe("three").arguments["features"][0] == 3


def test_a_constructor_is_loaded_by_name_on_first_use():
    add("by_name", "keras_seqzoo.models.identity:simple_rnn_identity", family="identity")
    assert zoo.get("by_name", units=2).name == "by_name"


def test_the_models_own_name_can_be_chosen():
    assert zoo.get(NAME, name="pump").name == "pump"


def test_unregister_takes_one_entry_away_and_no_other():
    add("first")
    add("second")
    zoo.unregister("first")
    assert "first" not in zoo.list_models()
    assert {"second", NAME} <= set(zoo.list_models())
    with pytest.raises(UnknownNameError):
        zoo.unregister("first")
    add("first")  # the name is free again


def varied(*, name="x", **anything):
    raise NotImplementedError


def listed(*values, name="x"):
    raise NotImplementedError


def required(features, *, name="x"):
    raise NotImplementedError


def nameless(*, features=1):
    raise NotImplementedError


MALFORMED = {
    "taken": ((NAME, passes_on), {}, "must not be taken.*Choose another"),
    "upper case": (("Passes", passes_on), {}, "snake_case"),
    "leading digit": (("1model", passes_on), {}, "snake_case"),
    "hyphen": (("a-model", passes_on), {}, "snake_case"),
    "empty name": (("", passes_on), {}, "snake_case"),
    "trailing newline": (("model\n", passes_on), {}, "snake_case"),
    "name of another type": ((5, passes_on), {}, "snake_case"),
    "task": (("new", passes_on), {"task": "translation"}, "identity, classification, tagging"),
    "task of another type": (("new", passes_on), {"task": ["tagging"]}, "`task`"),
    "summary": (("new", passes_on), {"summary": " "}, "`summary`.*non-empty"),
    "inputs": (("new", passes_on), {"inputs": ""}, "`inputs`"),
    "outputs": (("new", passes_on), {"outputs": None}, "`outputs`"),
    "causal": (("new", passes_on), {"causal": "yes"}, "`causal`.*True or False"),
    "space": (("new", passes_on), {"space": {"units": (1, 2)}}, "an Int, a Float or a Choice"),
    "unknown field": (("new", passes_on), {"familly": "x"}, "Did you mean 'family'"),
    "swallows keywords": (("new", varied), {}, r"\*\*anything"),
    "swallows positions": (("new", listed), {}, r"\*values"),
    "argument without default": (("new", required), {}, "features without one"),
    "no name argument": (("new", nameless), {}, "must take `name`"),
    "not callable": (("new", 5), {}, "a function or 'module:function'"),
    "no colon": (("new", "module.function"), {}, "'module:function'"),
    "two colons": (("new", "module:function:x"), {}, "'module:function'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_registration_is_refused_and_changes_nothing(case):
    arguments, fields, message = MALFORMED[case]
    before = zoo.list_models()
    with pytest.raises(RegistrationError, match=message):
        zoo.register(*arguments, **FIELDS | fields)
    assert zoo.list_models() == before


@pytest.mark.parametrize(
    "target", ["no_such_module_here:f", "keras_seqzoo.models:no_such_function"]
)
def test_a_constructor_that_cannot_be_found_is_named(target):
    add("astray", target)
    with pytest.raises(RegistrationError, match=f"'astray' cannot be loaded from '{target}'"):
        zoo.get("astray")
    assert NAME in zoo.list_models()


def test_a_constructor_given_by_name_is_checked_on_first_use():
    add("swallows", f"{__name__}:varied")
    with pytest.raises(RegistrationError, match=r"\*\*anything"):
        zoo.get("swallows")


# ----------------------------------------------------------------------------------------- listing


def test_names_come_in_natural_order():
    for name in ("rnn_10", "rnn_9", "rnn_9_b", "rnn_2", "rnn"):
        add(name)
    assert zoo.list_models("rnn*") == ["rnn", "rnn_2", "rnn_9", "rnn_9_b", "rnn_10"]


def test_wildcards_and_exclusions_are_one_or_several():
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


def test_tasks_and_fields_filter():
    add("seen_once", task="tagging", causal=False)
    add("seen_ahead", task="tagging", causal=True)
    assert zoo.list_models("seen*", task="tagging", causal=True) == ["seen_ahead"]
    assert zoo.list_models("seen*", causal=False) == ["seen_once"]
    assert zoo.list_models("seen*", task="identity") == []
    assert zoo.list_models(family="tagging") == ["seen_ahead", "seen_once"]
    assert NAME in zoo.list_models(task="identity", causal=True)


def test_the_catalogue_is_the_pinned_one():
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
    later = [*zoo.list_models("bilstm*"), "char_bilstm_crf_tagger", *tasks["seq2seq"]]
    later += ["attention_autoencoder", "gru_autoencoder", "lstm_autoencoder"]
    assert zoo.list_models(causal=False) == sorted(later)
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
def test_an_unknown_filter_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.list_models(**arguments)


# ----------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize("verb", [zoo.get, zoo.describe, zoo.unregister])
def test_an_unknown_name_suggests_the_nearest_and_lists_all(verb):
    add("a_tagger")
    with pytest.raises(UnknownNameError) as caught:
        verb("simple_rnn_idenity")
    message = str(caught.value)
    assert "Did you mean 'simple_rnn_identity'?" in message
    assert ", ".join(zoo.list_models()) in message
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("name", [None, 5, ["x"], "", "no relation whatever"])
def test_a_name_like_no_other_gets_no_suggestion(name):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get(name)
    assert "Did you mean" not in str(caught.value)
    assert NAME in str(caught.value)


def test_an_unknown_argument_suggests_the_nearest_and_lists_all():
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
    """Starts the zoo anew, as a fresh process finds it, with these plug-ins installed."""

    def start(*functions):
        def entry_points(*, group):
            assert group == "keras_seqzoo.entries"
            return [Plugin(function) for function in functions]

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        monkeypatch.setattr(registry, "_entries", {})
        monkeypatch.setattr(registry, "_loading", False)

    return start


def test_a_plug_in_adds_entries(plug_in):
    plug_in(lambda: add("from_outside"), lambda: add("from_elsewhere"))
    assert zoo.list_models("from*") == ["from_elsewhere", "from_outside"]
    assert NAME in zoo.list_models()
    assert zoo.get("from_outside").name == "from_outside"


def fails():
    add("before_the_failure")
    raise RuntimeError("no licence")


@pytest.mark.parametrize("broken", [fails, lambda: add(NAME), 5])
def test_a_broken_plug_in_warns_and_leaves_the_zoo_working(plug_in, broken):
    plug_in(broken, lambda: add("from_outside"))
    with pytest.warns(UserWarning, match="entries of 'some_package:entries' could not be added"):
        names = zoo.list_models()
    assert {"from_outside", NAME} <= set(names)
    assert zoo.get(NAME).name == NAME
    assert zoo.list_models() == names  # warned once


# ------------------------------------------------------------------------------------------- cards


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_argument_of_every_entry_has_a_meaning(name):
    card = zoo.describe(name)
    assert card.arguments
    for argument, (_, meaning) in card.arguments.items():
        assert len(meaning) > 10, argument


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_card_shows_shapes_arguments_and_space(name):
    card = zoo.describe(name)
    text = " ".join(str(card).split())
    assert name in text
    for part in (card.summary, card.task, card.inputs, card.outputs, *card.references):
        assert " ".join(part.split()) in text
    for argument, (default, meaning) in card.arguments.items():
        assert f"{argument} {meaning} (default {default!r})" in text
    for dimension, values in card.space.items():
        assert f"{dimension} {values}" in text
    # A reference stands on a line of its own, so that it can be copied.
    references = {" ".join(one.split()) for one in card.references}
    lines = [one for one in str(card).splitlines() if one.strip() not in references]
    assert max(map(len, lines)) <= 130


def test_a_card_as_plain_data_survives_json():
    card = zoo.describe(NAME).to_dict()
    again = json.loads(json.dumps(card))
    assert again == json.loads(json.dumps(card))
    assert again["arguments"]["units"]["default"] == 8
    assert again["causal"] is True
    assert again["space"]["units"] == "int, 2 to 32, log scale"


def test_a_meaning_on_two_lines_is_one_sentence():
    add("documented")
    arguments = zoo.describe("documented").arguments
    assert arguments["features"] == (1, "int, readings per step, on two lines.")
    assert arguments["name"] == ("documented", "str, name of the model.")


def test_a_card_has_no_other_attributes():
    with pytest.raises(AttributeError):
        _ = zoo.describe(NAME).no_such_field


def test_the_default_search_space_is_the_pinned_one():
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
def test_the_search_space_of_a_sequence_model_is_the_pinned_one(name):
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
def test_the_search_space_of_an_autoencoder_is_the_pinned_one(name):
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
def test_every_dimension_of_a_space_is_an_argument_or_of_the_training(name):
    beside = {"recurrent_strength", "learning_rate"}
    assert set(zoo.describe(name).space) <= set(zoo.describe(name).arguments) | beside


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
def test_what_distinguishes_an_entry_is_the_pinned_one(name, defaults):
    arguments = zoo.describe(name).arguments
    assert defaults == {key: arguments[key][0] for key in defaults}


# --------------------------------------------------------------------------------- public surface


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert dir(zoo) == sorted(zoo.__all__)
    assert len(set(zoo.__all__)) == len(zoo.__all__)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = zoo.no_such_name
    assert not hasattr(zoo, "tensorflow")


def test_every_error_is_of_one_family():
    from keras_seqzoo import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, SeqZooError) for kind in kinds if issubclass(kind, Exception))


def test_listing_and_refusing_need_no_tensorflow():
    code = """
import sys, keras_seqzoo as zoo
assert zoo.list_models("*identity")
dir(zoo)
try:
    zoo.get("no such model")
except zoo.registry.errors.UnknownNameError:
    pass
heavy = {"tensorflow", "keras", "keras_tuner", "optuna", "pandas", "matplotlib", "numpy"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
