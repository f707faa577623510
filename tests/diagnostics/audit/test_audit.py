"""Audits: each kind of broken model fails its check, and correct models pass."""

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
    """Sets random weights without zeros."""
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
    """Subtracts the mean over the batch instead of over the features."""
    x = k.Input((None, 3))
    y = k.SimpleRNN(4, return_sequences=True)(x)
    return keras.Model(x, y - ops.mean(y, axis=0, keepdims=True))


class HiddenState(keras.Layer):
    """Adds its last output, which may be of an earlier call."""

    def build(self, shape):
        self.last = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x):
        y = x + self.last
        self.last.assign(ops.mean(y, axis=(0, 1)))
        return y


def state_kept():
    x = k.Input((None, 3))
    return keras.Model(x, HiddenState()(k.SimpleRNN(4, return_sequences=True)(x)))


def batch_normalization_over_time():
    """Training statistics include later steps; inference statistics do not."""
    x = k.Input((None, 3))
    y = k.BatchNormalization()(k.SimpleRNN(4, return_sequences=True)(x))
    return keras.Model(x, y)


def look_ahead_by_flip():
    """An RNN that reads time backwards."""
    x = k.Input((None, 3))
    y = k.SimpleRNN(4, return_sequences=True)(ops.flip(x, axis=1))
    return keras.Model(x, ops.flip(y, axis=1))


class WithoutReset(k.GRU):
    """A GRU with a reset that does nothing."""

    def reset_state(self):
        pass

    reset_states = reset_state


def stateful_without_reset():
    x = k.Input((None, 3), batch_size=8)
    return keras.Model(x, WithoutReset(4, return_sequences=True, stateful=True)(x))


class AlwaysDropout(k.Dropout):
    """Dropout in training and at inference."""

    def call(self, x, training=False):
        return super().call(x, training=True)


def dropout_at_inference():
    x = k.Input((None, 3))
    return keras.Model(x, k.SimpleRNN(4, return_sequences=True)(AlwaysDropout(0.3, seed=3)(x)))


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
# The same fault fails another check too: prefixes of a flipped sequence have other outputs.
ALSO = {look_ahead_by_flip: {"steps"}}


keeps_state = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="on JAX, Keras's `predict` discards layer states"
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
def test_broken_model_fails_its_check(build):
    check = BROKEN[build][0]
    report = audited(build)
    assert report[check].verdict == "fails", str(report)
    assert not report.passed
    assert report[check].advice
    failed = {finding.check for finding in report.failures}
    skipped = {finding.check for finding in report.failures if finding.verdict == "skipped"}
    assert failed - skipped <= {check} | ALSO.get(build, set()), str(report)


@every_broken
def test_counterexample_differs_from_the_expected_output(build):
    example = audited(build)[BROKEN[build][0]].example
    assert 0 <= example.row < ROWS
    assert example.size > 32
    assert example.actual != example.expected


@pytest.mark.parametrize(("sides", "verdict"), [("left", "holds"), ("right", "fails")])
def test_sides_limits_where_padding_is_added(sides, verdict):
    x = k.Input((None, 3))
    last = k.Concatenate()([k.GRU(4)(k.Masking(0.0)(x)), x[:, -1]])  # may be a padded step
    model = seeded(keras.Model(x, k.Dense(2)(last)))
    report = zoo.audit(model, readings(), sides=sides)
    assert report["padding"].verdict == verdict, str(report)


def test_counterexample_of_check_rows_is_reproducible():
    model, x = seeded(rows_mixed()), readings()
    report = zoo.audit(model, x)
    example = report["rows"].example
    row, step, output = example.row, example.step, example.feature
    batched = model.predict_on_batch(x)[row, step, output]
    alone = model.predict_on_batch(x[row : row + 1])[0, step, output]
    assert abs(batched - alone) > 1e-3


def repaired(build):
    """The same model without the fault."""
    x = k.Input((None, 3), batch_size=8 if build is stateful_without_reset else None)
    masked = k.Masking(0.0)(x)
    models = {
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
    return seeded(keras.Model(x, models[build]()))


@every_broken
def test_repaired_model_passes(build):
    _, causal, pads = BROKEN[build]
    x = padded(readings()) if pads else readings()
    report = zoo.audit(repaired(build), x, causal=causal)
    assert report.passed, str(report)
    assert report[BROKEN[build][0]].verdict == "holds", str(report)


# ------------------------------------------------------------------------------------ the zoo


def inputs_of(name: str, model: keras.Model):
    """Typical inputs of an entry, some rows padded where the model has a mask."""
    rng = np.random.default_rng(2)
    inputs = {}
    for tensor in model.inputs:
        if tensor.dtype.startswith("int"):
            inner = [4 if size is None else size for size in tensor.shape[2:]]
            tokens = rng.integers(1, 7, (ROWS, STEPS, *inner)).astype("int32")
            tokens[::3, -3:] = 0
            inputs[tensor.name] = tokens
        else:
            inputs[tensor.name] = readings(tensor.shape[-1])
    for layer in model.layers:
        value = getattr(layer, "mask_value", None)
        if value is not None and len(inputs) == 1:
            inputs = {key: padded(x, value) for key, x in inputs.items()}
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))


# The default configuration of each entry, and configurations with other masks.
ENTRIES = [(name, "default") for name in TABLE] + [
    ("simple_rnn_identity", "nan_padding"),
    ("gru_classifier", "zero_padding"),
    ("bilstm_tagger", "tokens"),
    ("attention_gru_encoder_decoder", "tokens"),
]


@pytest.mark.parametrize(("name", "title"), ENTRIES)
@pytest.mark.slow
def test_every_zoo_entry_passes_its_audit(name, title):
    model = seeded(zoo.get(name, **TABLE[name][title].config))
    x = inputs_of(name, model)
    decodes = isinstance(x, dict) and "target" in x
    causal = registry.get_entry(name).causal
    # A target sequence starts at its first step, so that it is never padded on the left.
    options = {"along": "target", "sides": "right"} if decodes else {}
    if isinstance(x, dict) and not decodes:
        options = {"along": list(x)}  # tokens and character ids
    report = zoo.audit(model, x, causal=causal, **options)
    assert report.passed, str(report)
    for check in ("repeats", "state", "rows", "inference"):
        assert report[check].verdict == "holds", str(report)
    if {"mask", "real_steps"} & {layer.name for layer in model.layers}:
        assert report["padding"].verdict == "holds", str(report)
    if causal:
        assert report["look_ahead"].verdict == "holds" or not report["look_ahead"].declared


def test_bidirectional_entry_has_look_ahead():
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
def test_every_kind_of_model_is_audited(name):
    report = zoo.audit(MODELS[name](), readings(), causal=True)
    assert report.passed, str(report)
    assert report["look_ahead"].verdict == "holds"


@pytest.mark.tensorflow
def test_exported_artifact_is_audited(tmp_path):
    model = seeded(zoo.get("simple_rnn_identity", features=3, units=4))
    zoo.export(model, tmp_path / "served", verify=False)
    report = zoo.audit(zoo.load(tmp_path / "served"), readings(), causal=True)
    assert report.passed, str(report)
    assert report["look_ahead"].verdict == report["rows"].verdict == "holds"
    assert report["training"].verdict == "skipped"


def test_random_function_fails_repeats_and_skips_all_other_checks():
    rng = np.random.default_rng()
    report = zoo.audit(lambda x: x + rng.normal(size=x.shape), readings(), causal=True)
    assert report["repeats"].verdict == "fails"
    verdicts = {finding.verdict for finding in report.findings if finding.check != "repeats"}
    assert verdicts == {"skipped"}
    # Declared expectations that cannot be checked do not pass.
    assert {finding.check for finding in report.failures} == {"repeats", "look_ahead", "steps"}


@keeps_state
def test_audit_restores_all_variables():
    model = seeded(stateful_without_reset())
    rnn = model.layers[-1]
    model.predict_on_batch(readings(rows=8))
    before = [np.array(variable) for variable in [*model.weights, *rnn.states]]
    assert np.abs(before[-1]).max() > 0
    zoo.audit(model, readings(), causal=True)
    for expected, variable in zip(before, [*model.weights, *rnn.states], strict=True):
        np.testing.assert_array_equal(expected, np.array(variable))
    random = dropout_at_inference()
    random.predict_on_batch(readings())
    before = [np.array(variable) for variable in random.non_trainable_variables]
    assert before
    zoo.audit(random, readings())
    for expected, variable in zip(before, random.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(expected, np.array(variable))


# ------------------------------------------------------------------------------------- the past


def moving_average(x: np.ndarray) -> np.ndarray:
    """Mean of a reading and the two before it, with a memory horizon of 3."""
    padded_x = np.concatenate([np.zeros((len(x), 2, 1)), x], axis=1)
    return (padded_x[:, 2:] + padded_x[:, 1:-1] + padded_x[:, :-2]) / 3


def test_check_past_compares_leakage_with_its_budgets():
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


def test_audit_report_prints_failures_and_advice():
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


def test_audit_report_serializes_to_json():
    report = audited(mask_dropped)
    plain = json.loads(report.to_json())
    assert plain["passed"] is False
    findings = {finding["check"]: finding for finding in plain["findings"]}
    assert list(findings) == list(CHECKS)
    assert findings["padding"]["verdict"] == "fails"
    assert findings["padding"]["example"]["size"] > 32
    assert findings["rows"]["passed"]


@keeps_state
def test_audit_report_serializes_to_junit():
    suite = ElementTree.fromstring(audited(stateful_without_reset).to_junit())
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == list(CHECKS)
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert "state" in failed
    assert int(suite.get("failures")) == len(failed)
    assert int(suite.get("tests")) == len(CHECKS)
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert int(suite.get("skipped")) == len(skipped)


def test_assert_audit_returns_the_report_or_raises():
    report = assert_audit(repaired(look_ahead_by_flip), readings(), causal=True)
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
    result = CliRunner().invoke(command_line, ["audit", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_audit_command_passes_and_writes_reports(saved):
    common = (saved / "model.keras", saved / "x.npy", "--sequence-length", 20, "--causal")
    code, output = run(*common, "--json", saved / "a.json", "--junit", saved / "a.xml")
    assert code == 0, output
    assert "every expectation holds" in output
    assert json.loads((saved / "a.json").read_text())["passed"] is True
    assert ElementTree.fromstring((saved / "a.xml").read_text()).get("failures") == "0"
    code, output = run(*common, "--json", "-")
    assert code == 0
    assert json.loads(output)["name"] == "simple_rnn_identity"


def test_audit_command_exits_with_status_1_if_an_expectation_fails(saved):
    common = (saved / "model.keras", saved / "x.npy", "--sequence-length", 20)
    code, output = run(*common, "--max-leakage", 0.0)
    assert code == 1
    assert "past        FAILS" in output
    code, output = run(*common, "--max-leakage", -1)
    assert code == 2
    assert "max_leakage" in output


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.audit(lambda x: x, readings(), **arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 5, 3)), "shape"),
        (np.full((4, 5, 3), NAN), "finite"),
        (np.array([["a"]]), "numeric"),
        (readings(2), "3"),
    ],
)
def test_invalid_rows_raise(x, message):
    with pytest.raises(DataError, match=message):
        zoo.audit(seeded(look_ahead_by_flip()), x)


def test_empty_dict_of_inputs_raises():
    with pytest.raises(DataError, match="at least one array"):
        zoo.audit(np.tanh, {})


def test_rows_of_padding_alone_and_unknown_mask_values_raise():
    model = zoo.get("gru_tagger", vocabulary_size=5, classes=2, units=3)
    with pytest.raises(DataError, match="padding alone"):
        zoo.audit(model, np.zeros((3, 4), int))
    with pytest.raises(DataError, match="`mask_value` must be ints from 0 to 4"):
        zoo.audit(model, np.ones((3, 4), int), mask_value=5)
    with pytest.raises(DataError, match="padding alone"):
        zoo.audit(lambda x: x, readings(), mask=np.zeros(readings().shape[:2], bool))


def test_string_inputs_raise_with_a_hint():
    x = k.Input((), dtype="string")
    with pytest.raises(ArgumentError, match="inner_model"):
        zoo.audit(keras.Model(x, k.Identity()(x)), np.array(["a"]))


def test_constant_output_skips_checks():
    report = zoo.audit(lambda x: np.zeros_like(x), readings(), causal=True, max_leakage=0.5)
    assert not report.passed  # a declared expectation could not be checked
    assert report["look_ahead"].verdict == "skipped"
    assert "constant" in report["past"].result
