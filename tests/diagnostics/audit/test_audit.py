"""Audits: models that are broken in silence are caught by the check for it, whole ones pass."""

from __future__ import annotations

import functools
import json
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers as k
from keras import ops

import keras_seqzoo as zoo
from keras_seqzoo import registry
from keras_seqzoo.cli import main as command_line
from keras_seqzoo.diagnostics.audit.checks import CHECKS
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers import StepMask
from keras_seqzoo.testing import assert_audit
from tests.conformance.table import TABLE

NAN = float("nan")
ROWS, STEPS = 24, 10


def seeded(model: keras.Model) -> keras.Model:
    """Weights of which none is 0."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        size = 0.9 / np.sqrt(weight.shape[0]) if len(weight.shape) > 1 else 0.3
        weight.assign(size * rng.normal(size=weight.shape))
    return model


def readings(features: int = 3, rows: int = ROWS, steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, steps, features)).astype("float32")


def padded(x: np.ndarray, value: float = 0.0) -> np.ndarray:
    x = x.copy()
    x[::3, -4:], x[1::3, -2:] = value, value
    return x


# ------------------------------------------------------------------------------- broken models


def mask_dropped():
    """Slicing drops the mask, so that the second layer reads padding."""
    x = k.Input((None, 3))
    y = k.GRU(4, return_sequences=True)(k.Masking(0.0)(x))
    return keras.Model(x, k.GRU(4)(y[:, :, :3]))


def padding_read():
    """A convolution over padded steps."""
    x = k.Input((None, 3))
    y = k.Conv1D(4, 3, padding="causal", bias_initializer="ones")(k.Dense(4)(x))
    return keras.Model(x, k.GRU(4, return_sequences=True)(y, mask=StepMask(0.0)(x)))


def rows_mixed():
    """Takes off the mean of the batch, rather than of the features."""
    x = k.Input((None, 3))
    y = k.SimpleRNN(4, return_sequences=True)(x)
    return keras.Model(x, y - ops.mean(y, axis=0, keepdims=True))


class Remembering(keras.Layer):
    """Adds what was said last, in whatever call that was."""

    def build(self, shape):
        self.last = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x):
        y = x + self.last
        self.last.assign(ops.mean(y, axis=(0, 1)))
        return y


def state_kept():
    x = k.Input((None, 3))
    return keras.Model(x, Remembering()(k.SimpleRNN(4, return_sequences=True)(x)))


def batch_normalization_over_time():
    """In training a step is divided by what comes later; at inference it is not."""
    x = k.Input((None, 3))
    y = k.BatchNormalization()(k.SimpleRNN(4, return_sequences=True)(x))
    return keras.Model(x, y)


def look_ahead_by_flip():
    """Read from the end, said from the beginning."""
    x = k.Input((None, 3))
    y = k.SimpleRNN(4, return_sequences=True)(ops.flip(x, axis=1))
    return keras.Model(x, ops.flip(y, axis=1))


class Forgetless(k.GRU):
    """Its reset does nothing."""

    def reset_state(self):
        pass

    reset_states = reset_state


def stateful_without_reset():
    x = k.Input((None, 3), batch_size=8)
    return keras.Model(x, Forgetless(4, return_sequences=True, stateful=True)(x))


class Always(k.Dropout):
    """Drops whether it trains or not."""

    def call(self, x, training=False):
        return super().call(x, training=True)


def dropout_at_inference():
    x = k.Input((None, 3))
    return keras.Model(x, k.SimpleRNN(4, return_sequences=True)(Always(0.3, seed=3)(x)))


# The check that must fail, whether causal is declared, whether some steps are padded.
BROKEN = {
    mask_dropped: ("padding", False, True),
    padding_read: ("padding", True, True),
    rows_mixed: ("rows", True, False),
    state_kept: ("state", True, False),
    batch_normalization_over_time: ("training", True, False),
    look_ahead_by_flip: ("look_ahead", True, False),
    stateful_without_reset: ("state", True, False),
    dropout_at_inference: ("inference", True, False),
}
# Seen by another check too, since it is one fault: the beginnings of a flipped sequence are others.
ALSO = {look_ahead_by_flip: {"steps"}}


keeps_state = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="on JAX, Keras's `predict` keeps no state of a layer"
)
every_broken = pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, id=build.__name__, marks=keeps_state)
        if build is stateful_without_reset
        else pytest.param(build, id=build.__name__)
        for build in BROKEN
    ],
)


@functools.cache
def audited(build):
    _, causal, pads = BROKEN[build]
    x = padded(readings()) if pads else readings()
    return zoo.audit(seeded(build()), x, causal=causal)


@every_broken
def test_a_broken_model_is_caught_by_the_check_for_it(build):
    check = BROKEN[build][0]
    report = audited(build)
    assert report[check].verdict == "fails", str(report)
    assert not report.passed
    assert report[check].advice
    failed = {one.check for one in report.failures}
    skipped_for_it = {one.check for one in report.failures if one.verdict == "skipped"}
    assert failed - skipped_for_it <= {check} | ALSO.get(build, set()), str(report)


@every_broken
def test_the_example_is_one(build):
    """What the report calls the worst answer differs from what it should be."""
    example = audited(build)[BROKEN[build][0]].example
    assert 0 <= example.row < ROWS
    assert example.size > 32
    assert example.found != example.expected


@pytest.mark.parametrize(("sides", "verdict"), [("left", "holds"), ("right", "fails")])
def test_padding_is_tried_on_the_sides_where_it_may_be(sides, verdict):
    x = k.Input((None, 3))
    last = k.Concatenate()([k.GRU(4)(k.Masking(0.0)(x)), x[:, -1]])  # real or not
    model = seeded(keras.Model(x, k.Dense(2)(last)))
    given = readings()
    report = zoo.audit(model, given, sides=sides)
    assert report["padding"].verdict == verdict, str(report)


def test_the_example_of_a_mixed_row_can_be_run_again():
    model, x = seeded(rows_mixed()), readings()
    report = zoo.audit(model, x)
    row, step, output = (getattr(report["rows"].example, one) for one in ("row", "step", "feature"))
    together = model.predict_on_batch(x)[row, step, output]
    alone = model.predict_on_batch(x[row : row + 1])[0, step, output]
    assert abs(together - alone) > 1e-3


def mended(build):
    """The same model without the fault."""
    x = k.Input((None, 3), batch_size=8 if build is stateful_without_reset else None)
    masked = k.Masking(0.0)(x)
    fixed = {
        mask_dropped: lambda: k.GRU(4)(k.GRU(4, return_sequences=True)(masked)),
        padding_read: lambda: k.GRU(4, return_sequences=True)(k.Dense(4)(masked)),
        rows_mixed: lambda: k.LayerNormalization()(k.SimpleRNN(4, return_sequences=True)(x)),
        state_kept: lambda: k.SimpleRNN(4, return_sequences=True)(x),
        batch_normalization_over_time: lambda: k.LayerNormalization()(
            k.SimpleRNN(4, return_sequences=True)(x)
        ),
        look_ahead_by_flip: lambda: k.SimpleRNN(4, return_sequences=True)(x),
        stateful_without_reset: lambda: k.GRU(4, return_sequences=True, stateful=True)(x),
        dropout_at_inference: lambda: k.SimpleRNN(4, return_sequences=True)(k.Dropout(0.3)(x)),
    }
    return seeded(keras.Model(x, fixed[build]()))


@every_broken
def test_the_same_model_mended_passes(build):
    _, causal, pads = BROKEN[build]
    x = padded(readings()) if pads else readings()
    report = zoo.audit(mended(build), x, causal=causal)
    assert report.passed, str(report)
    assert report[BROKEN[build][0]].verdict == "holds", str(report)


# ------------------------------------------------------------------------------------ the zoo


def inputs_of(name: str, model: keras.Model):
    """Rows of the kind that an entry takes, some of them padded where it knows padding."""
    rng = np.random.default_rng(2)
    found = {}
    for tensor in model.inputs:
        if tensor.dtype.startswith("int"):
            inner = [4 if size is None else size for size in tensor.shape[2:]]
            tokens = rng.integers(1, 7, (ROWS, STEPS, *inner)).astype("int32")
            tokens[::3, -3:] = 0
            found[tensor.name] = tokens
        else:
            found[tensor.name] = readings(tensor.shape[-1])
    for layer in model.layers:
        value = getattr(layer, "mask_value", None)
        if value is not None and len(found) == 1:
            found = {key: padded(x, value) for key, x in found.items()}
    return found if len(found) > 1 else next(iter(found.values()))


# One row of the table for each entry, and those with masks of their own kind.
ENTRIES = [(name, "default") for name in TABLE] + [
    ("simple_rnn_identity", "nan_padding"),
    ("gru_classifier", "zero_padding"),
    ("bilstm_tagger", "tokens"),
    ("attention_gru_encoder_decoder", "tokens"),
]


@pytest.mark.parametrize(("name", "title"), ENTRIES)
def test_every_entry_passes(name, title):
    model = seeded(zoo.get(name, **TABLE[name][title].config))
    x = inputs_of(name, model)
    decodes = isinstance(x, dict) and "target" in x
    causal = registry.get_entry(name).causal
    # What is said has a beginning: a target is never padded on its left.
    options = {"along": "target", "sides": "right"} if decodes else {}
    if isinstance(x, dict) and not decodes:
        options = {"along": list(x)}  # tokens, and the characters of each
    report = zoo.audit(model, x, causal=causal, **options)
    assert report.passed, str(report)
    for check in ("repeats", "state", "rows", "inference"):
        assert report[check].verdict == "holds", str(report)
    if {"mask", "real_steps"} & {layer.name for layer in model.layers}:
        assert report["padding"].verdict == "holds", str(report)
    if causal:
        assert report["look_ahead"].verdict == "holds" or not report["look_ahead"].declared


def test_an_entry_that_looks_ahead_is_not_causal():
    model = seeded(zoo.get("bilstm_tagger", **TABLE["bilstm_tagger"]["default"].config))
    x = inputs_of("bilstm_tagger", model)
    assert zoo.audit(model, x)["look_ahead"].verdict == "shown"
    assert zoo.audit(model, x, causal=True)["look_ahead"].verdict == "fails"


# -------------------------------------------------------------------------------- kinds of models


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = k.SimpleRNN(4, return_sequences=True), k.Dense(2)

    def call(self, x):
        return self.head(self.rnn(x))


MODELS = {
    "sequential": lambda: keras.Sequential([k.GRU(4, return_sequences=True), k.Dense(2)]),
    "subclassed": Subclassed,
    "function": lambda: lambda x: np.cumsum(x, axis=1),
    "function of scores": lambda: lambda x: x[..., 0] ** 2,
    "fixed time": lambda: keras.Sequential([k.Input((STEPS, 3)), k.LSTM(2, return_sequences=True)]),
    "stateful": lambda: keras.Sequential(
        [k.Input((None, 3), batch_size=8), k.LSTM(2, return_sequences=True, stateful=True)]
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=keeps_state if name == "stateful" else ()) for name in MODELS],
)
def test_any_model_is_audited(name):
    report = zoo.audit(MODELS[name](), readings(), causal=True)
    assert report.passed, str(report)
    assert report["look_ahead"].verdict == "holds"


@pytest.mark.tensorflow
def test_an_artifact_is_audited(tmp_path):
    model = seeded(zoo.get("simple_rnn_identity", features=3, units=4))
    zoo.export(model, tmp_path / "served", verify=False)
    report = zoo.audit(zoo.load(tmp_path / "served"), readings(), causal=True)
    assert report.passed, str(report)
    assert report["look_ahead"].verdict == report["rows"].verdict == "holds"
    assert report["training"].verdict == "skipped"


def test_a_function_that_draws_is_no_model_and_nothing_else_is_told():
    rng = np.random.default_rng()
    report = zoo.audit(lambda x: x + rng.normal(size=x.shape), readings(), causal=True)
    assert report["repeats"].verdict == "fails"
    assert {one.verdict for one in report.findings if one.check != "repeats"} == {"skipped"}
    # What was declared and cannot be told has not passed.
    assert {one.check for one in report.failures} == {"repeats", "look_ahead", "steps"}


@keeps_state
def test_a_model_is_left_as_it_was_found():
    model = seeded(stateful_without_reset())
    rnn = model.layers[-1]
    model.predict_on_batch(readings(rows=8))
    before = [np.array(one) for one in [*model.weights, *rnn.states]]
    assert np.abs(before[-1]).max() > 0
    zoo.audit(model, readings(), causal=True)
    for was, now in zip(before, [*model.weights, *rnn.states], strict=True):
        np.testing.assert_array_equal(was, np.array(now))
    drawing = dropout_at_inference()
    drawing.predict_on_batch(readings())
    before = [np.array(one) for one in drawing.non_trainable_variables]
    assert before
    zoo.audit(drawing, readings())
    for was, now in zip(before, drawing.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(was, np.array(now))


# ------------------------------------------------------------------------------------- the past


def moving_average(x: np.ndarray) -> np.ndarray:
    """Of this reading and the two before it: a memory horizon of 3."""
    wide = np.concatenate([np.zeros((len(x), 2, 1)), x], axis=1)
    return (wide[:, 2:] + wide[:, 1:-1] + wide[:, :-2]) / 3


def test_budgets_of_the_past_are_those_of_leakage():
    x = readings(1, rows=200, steps=30)
    index = zoo.leakage(moving_average, x).index
    report = zoo.audit(moving_average, x, max_leakage=index + 0.05, max_horizon=3)
    assert report["past"].verdict == "holds", str(report)
    assert report["past"].measured["memory_horizon"] == 3
    assert abs(report["past"].measured["index"] - index) < 0.05
    assert zoo.audit(moving_average, x, max_leakage=index - 0.1)["past"].verdict == "fails"
    assert zoo.audit(moving_average, x, max_horizon=2)["past"].verdict == "fails"
    assert zoo.audit(moving_average, x)["past"].verdict == "shown"


# ----------------------------------------------------------------------------------- the report


def test_a_report_says_what_failed_and_what_to_do():
    report = audited(look_ahead_by_flip)
    text = str(report)
    assert "fails: " in text
    assert "look_ahead  FAILS" in text
    assert "worst at row" in text
    assert "Bidirectional" in text
    with pytest.raises(AssertionError, match="look_ahead"):
        report.check()
    with pytest.raises(KeyError, match="look_ahead"):
        report["look-ahead"]


def test_a_report_is_json():
    report = audited(mask_dropped)
    plain = json.loads(report.to_json())
    assert plain["passed"] is False
    found = {one["check"]: one for one in plain["findings"]}
    assert list(found) == list(CHECKS)
    assert found["padding"]["verdict"] == "fails"
    assert found["padding"]["example"]["size"] > 32
    assert found["rows"]["passed"]


@keeps_state
def test_a_report_is_junit():
    suite = ElementTree.fromstring(audited(stateful_without_reset).to_junit())
    cases = suite.findall("testcase")
    assert [one.get("name") for one in cases] == list(CHECKS)
    failed = {one.get("name") for one in cases if one.find("failure") is not None}
    assert "state" in failed
    assert int(suite.get("failures")) == len(failed)
    assert int(suite.get("tests")) == len(CHECKS)
    skipped = [one for one in cases if one.find("skipped") is not None]
    assert int(suite.get("skipped")) == len(skipped)


def test_one_line_of_a_test():
    report = assert_audit(mended(look_ahead_by_flip), readings(), causal=True)
    assert report.passed
    with pytest.raises(AssertionError, match="instead of"):
        assert_audit(seeded(rows_mixed()), readings())


# -------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    seeded(zoo.get("simple_rnn_identity", features=2, units=3)).save(folder / "model.keras")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(400, 2)))
    return folder


def run(*arguments) -> tuple[int, str]:
    found = CliRunner().invoke(command_line, ["audit", *map(str, arguments)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


def test_the_command_passes_and_writes(saved):
    common = (saved / "model.keras", saved / "x.npy", "--sequence-length", 20, "--causal")
    code, said = run(*common, "--json", saved / "a.json", "--junit", saved / "a.xml")
    assert code == 0, said
    assert "every expectation holds" in said
    assert json.loads((saved / "a.json").read_text())["passed"] is True
    assert ElementTree.fromstring((saved / "a.xml").read_text()).get("failures") == "0"
    code, said = run(*common, "--json", "-")
    assert code == 0
    assert json.loads(said)["name"] == "simple_rnn_identity"


def test_the_command_fails_with_status_1_where_an_expectation_does(saved):
    common = (saved / "model.keras", saved / "x.npy", "--sequence-length", 20)
    code, said = run(*common, "--max-leakage", 0.0)
    assert code == 1
    assert "past        FAILS" in said
    code, said = run(*common, "--max-leakage", -1)
    assert code == 2
    assert "max_leakage" in said


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"causal": "yes"}, "causal"),
        ({"max_leakage": -1}, "max_leakage"),
        ({"max_horizon": 0}, "max_horizon"),
        ({"sides": "middle"}, "sides"),
        ({"skip": ["rowes"]}, "rows"),
        ({"tolerance": 0}, "tolerance"),
        ({"block": 0}, "block"),
        ({"seed": -1}, "seed"),
        ({"mask_value": "nan"}, "mask_value"),
        ({"along": "target"}, "target"),
        ({"along": False}, "along"),
        ({"skip": None}, "skip"),
        ({"along": np.zeros((1, 1, 2))}, "input"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        zoo.audit(lambda x: x, readings(), **arguments)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((0, 5, 3)), "shape"),
        (np.full((4, 5, 3), NAN), "finite"),
        (np.array([["a"]]), "numeric"),
        (readings(2), "3"),
    ],
)
def test_rows_that_cannot_be_are_refused(x, said):
    with pytest.raises(DataError, match=said):
        zoo.audit(seeded(look_ahead_by_flip()), x)


def test_a_dict_without_inputs_is_refused():
    with pytest.raises(DataError, match="at least one array"):
        zoo.audit(np.tanh, {})


def test_padding_alone_or_none_that_a_model_knows_is_refused():
    model = zoo.get("gru_tagger", vocabulary_size=5, classes=2, units=3)
    with pytest.raises(DataError, match="padding alone"):
        zoo.audit(model, np.zeros((3, 4), int))
    with pytest.raises(DataError, match="`mask_value` must be ints from 0 to 4"):
        zoo.audit(model, np.ones((3, 4), int), mask_value=5)
    with pytest.raises(DataError, match="padding alone"):
        zoo.audit(lambda x: x, readings(), mask=np.zeros(readings().shape[:2], bool))


def test_texts_are_refused_with_what_to_do():
    x = k.Input((), dtype="string")
    with pytest.raises(ArgumentError, match="inner_model"):
        zoo.audit(keras.Model(x, k.Identity()(x)), np.array(["a"]))


def test_constant_outputs_say_nothing():
    report = zoo.audit(lambda x: np.zeros_like(x), readings(), causal=True, max_leakage=0.5)
    assert not report.passed  # what was declared could not be seen
    assert report["look_ahead"].verdict == "skipped"
    assert "constant" in report["past"].found
