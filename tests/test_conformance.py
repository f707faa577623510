"""Every entry of the catalogue keeps the same promises, in every configuration of its row.

A check is a function of `build`, which gives a fresh model with random, different weights; the
last section breaks a model on purpose and sees the check fail.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seqzoo as zoo
from keras_seqzoo import catalog
from keras_seqzoo.layers import ApplyMask, Normalization, NormalizedMeanSquaredError, step_mask

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration and what is known of it before any model is built."""

    config: dict[str, Any]
    layers: tuple[str, ...]  # pinned: Functional drops a layer that leads nowhere, silently
    parameters: int  # trainable
    shape: tuple[Any, ...]  # of the output
    why: str


PLAIN = ("readings", "scale", "recurrent", "readout", "unscale")
MASKED = (
    "readings", "mask", "real_steps", "scale", "recurrent", "readout", "unscale", "masked"
)  # fmt: skip
TABLE = {
    "simple_rnn_identity": {
        "default": Row({}, PLAIN, 89, ("batch", "time", 1), "works without arguments"),
        "wide_input": Row(
            {"features": 3, "units": 5}, PLAIN, 63, ("batch", "time", 3),
            "sizes that differ from each other and from the defaults",
        ),
        "nan_padding": Row(
            {"features": 2, "units": 3, "mask_value": NAN}, MASKED, 26, ("batch", "time", 2),
            "NaN equals nothing, itself included",
        ),
        "zero_padding": Row(
            {"features": 2, "units": 3, "mask_value": 0.0}, MASKED, 26, ("batch", "time", 2),
            "found before the scaling, which moves 0",
        ),
        "last_step": Row(
            {"features": 2, "units": 3, "mask_value": NAN, "return_sequences": False},
            MASKED[:-1], 26, ("batch", 2), "the last real step, not the last one",
        ),
        "raw": Row(
            {"features": 2, "units": 3, "normalize": False},
            ("readings", "recurrent", "readout"), 26, ("batch", "time", 2), "no scaling",
        ),
        "linear": Row(
            {"features": 2, "units": 3, "activation": None}, PLAIN, 26, ("batch", "time", 2),
            "None is the linear activation, not the default one",
        ),
        "regularized": Row(
            {"features": 2, "units": 3, "recurrent_regularizer": "l1_l2"},
            PLAIN, 26, ("batch", "time", 2), "a penalty changes the loss and no output",
        ),
    }
}  # fmt: skip
CASES = [(name, case) for name, rows in TABLE.items() for case in rows]
MASKED_CASES = [(name, case) for name, case in CASES if "mask_value" in TABLE[name][case].config]
every_case = pytest.mark.parametrize(("name", "case"), CASES)
every_masked_case = pytest.mark.parametrize(("name", "case"), MASKED_CASES)


def readings(rows: int, steps: int, features: int, seed: int = 0) -> np.ndarray:
    """Raw readings: features in 1..15 and 20..110 by turns, none of them 0."""
    rng = np.random.default_rng(seed)
    low, high = np.array([1.0, 20.0]), np.array([15.0, 110.0])
    turn = np.arange(features) % 2
    return rng.uniform(low[turn], high[turn], (rows, steps, features)).astype("float32")


def ready(model: keras.Model, seed: int = 1) -> keras.Model:
    """Adapted to readings, with random, different weights everywhere, biases too."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    if not any(isinstance(layer, Normalization) for layer in model.layers):
        kernel = model.trainable_weights[0]
        kernel.assign(kernel / 100)  # or raw readings saturate the activation: nothing to see
    else:
        zoo.adapt(model, readings(64, 20, model.input_shape[-1], seed=2))
    return model


def build_case(name: str, case: str) -> Callable[[], keras.Model]:
    return lambda: ready(zoo.get(name, **TABLE[name][case].config))


def answer(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


def assert_close(actual, expected, rtol: float = 1e-5) -> None:
    """Equal within `rtol` of the largest expected value of each feature."""
    size = np.abs(expected).max(axis=tuple(range(expected.ndim - 1)))
    np.testing.assert_allclose(actual / size, expected / size, rtol=0, atol=rtol)


# ------------------------------------------------------------------------------------ adaptation


SCALED_CASES = [
    (name, case) for name, case in CASES if TABLE[name][case].config.get("normalize", True)
]
every_scaled_case = pytest.mark.parametrize(("name", "case"), SCALED_CASES)


def statistics(model: keras.Model, layer: str = "scale") -> tuple[np.ndarray, np.ndarray]:
    mean, variance, _ = model.get_layer(layer).get_weights()
    return mean, variance


@every_scaled_case
def test_adapt_learns_from_every_real_step_and_no_other(name, case):
    config = TABLE[name][case].config
    model = zoo.get(name, **config)
    x = readings(5, 12, model.input_shape[-1])
    real = np.ones(x.shape[:2], bool)
    for row, length in enumerate((12, 3, 7, 1, 10)):
        real[row, length:] = False
    given = x.copy()
    given[~real] = config.get("mask_value", 1e6)
    zoo.adapt(model, given, mask=None if "mask_value" in config else real)
    for layer in ("scale", "unscale"):
        mean, variance = statistics(model, layer)
        np.testing.assert_allclose(mean, x[real].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(variance, x[real].var(axis=0), rtol=1e-5)


@every_scaled_case
def test_training_warns_until_the_scaling_is_adapted(name, case):
    x = readings(4, 5, zoo.get(name, **TABLE[name][case].config).input_shape[-1])
    y = x if TABLE[name][case].shape[1] == "time" else x[:, -1]

    def train(adapted: bool) -> None:
        model = zoo.get(name, **TABLE[name][case].config)
        if adapted:
            zoo.adapt(model, x)
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_on_batch(x, y)

    with pytest.warns(UserWarning, match="never adapted.*keras_seqzoo.adapt"):
        train(adapted=False)
    train(adapted=True)  # a warning is an error here


@every_scaled_case
def test_adapt_takes_effect_after_predict(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    x = readings(4, 5, model.input_shape[-1])
    before = model.predict(x, verbose=0)
    zoo.adapt(model, x)
    after = model.predict(x, verbose=0)
    assert np.abs(after - before).max() > 1
    assert_close(after, answer(model, x))


@every_scaled_case
def test_a_constant_feature_stays_in_range(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    x = readings(4, 9, model.input_shape[-1])
    x[..., 0] = 0.1 + 0.2  # not a float32: its computed variance is round-off
    zoo.adapt(model, x)
    assert statistics(model)[1][0] == 0
    assert np.abs(answer(model, x)[..., 0] - 0.3).max() < 10
    x[..., 0] += 1e-3  # would be divided by its deviation of 0
    assert np.abs(answer(model, x)[..., 0] - 0.3).max() < 10


# ------------------------------------------------------------------- the table covers the catalogue


def test_every_entry_has_a_row_and_every_row_an_entry():
    names = {entry.name for entry in catalog.ENTRIES}
    assert set(TABLE) == names == set(zoo.list_models())
    assert set(REFERENCES) == names


@pytest.mark.parametrize("name", TABLE)
def test_every_entry_has_a_default_row(name):
    assert TABLE[name]["default"].config == {}


# -------------------------------------------------------------------------------- checks of shapes


def check_structure(build, row: Row) -> None:
    """Layers and parameters are the pinned ones, so that none was dropped."""
    model = build()
    assert tuple(layer.name for layer in model.layers) == row.layers
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == row.parameters


def check_shapes(build, row: Row) -> None:
    """The output has the promised shape, symbolically and for several batches and lengths."""
    model = build()
    free = {"batch": None, "time": None}
    assert model.output_shape == tuple(free.get(axis, axis) for axis in row.shape)
    for batch in (1, 5):
        for time in (1, 2, 7, 30):
            sizes = {"batch": batch, "time": time}
            found = answer(model, readings(batch, time, model.input_shape[-1]))
            assert found.shape == tuple(sizes.get(axis, axis) for axis in row.shape)
            assert np.isfinite(found).all()


def check_dynamic_axes(build) -> None:
    """One traced function serves every batch and length, and answers as the model does."""
    model = build()
    features = model.input_shape[-1]
    serve = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, None, features))]
    )
    for batch, time in ((1, 1), (3, 12), (4, 5)):
        x = readings(batch, time, features)
        assert_close(np.asarray(serve(x)), answer(model, x))


@pytest.mark.parametrize("name", TABLE)
def test_an_entry_builds_without_arguments(name):
    model = zoo.get(name)
    assert model.name == name
    assert not model.compiled


@every_case
def test_layers_and_parameters_are_the_pinned_ones(name, case):
    check_structure(build_case(name, case), TABLE[name][case])


@every_case
def test_the_output_has_the_promised_shape(name, case):
    check_shapes(build_case(name, case), TABLE[name][case])


@every_case
def test_batch_and_time_are_dynamic(name, case):
    check_dynamic_axes(build_case(name, case))


@pytest.mark.parametrize("name", TABLE)
def test_a_fixed_time_is_kept(name):
    model = zoo.get(name, time=7)
    assert model.input_shape[1] == 7
    assert answer(model, readings(2, 7, 1)).shape == (2, 7, 1)


# ----------------------------------------------------------------------------- checks of training


def check_gradients(build) -> None:
    """Every trainable weight has a finite gradient that is not zero throughout."""
    model = build()
    x = readings(4, 9, model.input_shape[-1])
    with tf.GradientTape() as tape:
        y = model(x, training=True)
        loss = keras.ops.mean(keras.ops.square(y - np.random.default_rng(3).normal(size=y.shape)))
    weights = model.trainable_weights
    found = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, found, strict=True):
        assert gradient is not None, f"{weight.path} has no gradient"
        assert np.isfinite(gradient).all(), f"{weight.path} has a gradient that is not finite"
        assert np.abs(gradient).max() > 0, f"{weight.path} has a gradient of zero"


@every_case
def test_every_weight_gets_a_gradient(name, case):
    check_gradients(build_case(name, case))


@every_case
def test_a_few_steps_lower_the_loss(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    x = readings(32, 10, model.input_shape[-1])
    y = x if len(model.output_shape) == 3 else x[:, -1]
    if TABLE[name][case].config.get("normalize", True):
        zoo.adapt(model, x)
    variance = x.reshape(-1, x.shape[-1]).var(axis=0)
    model.compile(keras.optimizers.Adam(0.02), NormalizedMeanSquaredError(variance))
    losses = [float(model.train_on_batch(x, y)) for _ in range(15)]
    # The first value is before any step; Keras gives running means from then on.
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


# ------------------------------------------------------------------------------ checks of padding


def pad(x: np.ndarray, left: int, right: int, value: float) -> np.ndarray:
    return np.pad(x, ((0, 0), (left, right), (0, 0)), constant_values=value)


def check_padding_is_invisible(build, value: float) -> None:
    """Left, right and extra padding change no real step and come out as 0."""
    model = build()
    x = readings(4, 8, model.input_shape[-1])
    expected = answer(model, x)
    for left, right in ((3, 0), (0, 4), (2, 5), (0, 30)):
        found = answer(model, pad(x, left, right, value))
        assert np.isfinite(found).all()
        if found.ndim == 2:
            assert_close(found, expected)
            continue
        real = slice(left, left + x.shape[1])
        assert_close(found[:, real], expected)
        np.testing.assert_array_equal(np.delete(found, np.r_[real], axis=1), 0.0)


def check_each_row_has_its_own_padding(build, value: float) -> None:
    """Rows of different lengths in one batch answer as they do alone."""
    model = build()
    features = model.input_shape[-1]
    rows = [readings(1, length, features, seed=length) for length in (1, 4, 9)]
    batch = np.concatenate([pad(row, 0, 9 - row.shape[1], value) for row in rows])
    for row, found in zip(rows, answer(model, batch), strict=True):
        expected = answer(model, row)[0]
        assert_close(found[: len(expected)] if found.ndim == 2 else found, expected)


def check_padding_counts_in_no_loss(build, value: float) -> None:
    """Loss and gradients of padded rows are those of the rows themselves, and finite."""
    x = readings(4, 6, build().input_shape[-1])
    found = []
    for padding in (0, 5):
        model = build()
        given, target = pad(x, 0, padding, value), pad(x, 0, padding, 1e3)
        if len(model.output_shape) == 2:
            target = x[:, -1]
        model.compile(keras.optimizers.SGD(1e-5), "mse")
        loss = model.train_on_batch(given, target)
        found.append((loss, [np.asarray(weight) for weight in model.trainable_weights]))
    (loss, weights), (padded_loss, padded_weights) = found
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-4)
    for weight, padded in zip(weights, padded_weights, strict=True):
        np.testing.assert_allclose(padded, weight, rtol=1e-4, atol=1e-5)


@every_masked_case
def test_padding_is_invisible(name, case):
    check_padding_is_invisible(build_case(name, case), TABLE[name][case].config["mask_value"])


@every_masked_case
def test_each_row_has_its_own_padding(name, case):
    value = TABLE[name][case].config["mask_value"]
    check_each_row_has_its_own_padding(build_case(name, case), value)


@every_masked_case
def test_padding_counts_in_no_loss(name, case):
    check_padding_counts_in_no_loss(build_case(name, case), TABLE[name][case].config["mask_value"])


@every_masked_case
def test_a_row_of_padding_alone_stays_finite(name, case):
    value = TABLE[name][case].config["mask_value"]
    model = build_case(name, case)()
    x = readings(2, 5, model.input_shape[-1])
    x[1] = value
    assert np.isfinite(answer(model, x)).all()


# ---------------------------------------------------------------------- checks of rows and of time


def check_rows_do_not_affect_each_other(build) -> None:
    """A row answers the same alone, in company and in another order, within round-off."""
    model = build()
    x = readings(6, 9, model.input_shape[-1])
    together = answer(model, x)
    alone = np.concatenate([answer(model, row[None]) for row in x])
    assert_close(together, alone)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert_close(answer(model, x[order]), together[order])
    other_company = np.concatenate([x[:2], readings(4, 9, x.shape[-1], seed=9)])
    assert_close(answer(model, other_company)[:2], together[:2])


def check_the_future_does_not_change_the_past(build) -> None:
    """Exactly: other later inputs leave every earlier output as it was."""
    model = build()
    x = readings(4, 12, model.input_shape[-1])
    y = answer(model, x)
    for cut in (1, 5, 11):
        changed = x.copy()
        changed[:, cut:] = readings(4, 12 - cut, x.shape[-1], seed=7)
        found = answer(model, changed)
        np.testing.assert_array_equal(found[:, :cut], y[:, :cut])
        assert not np.allclose(found[:, cut], y[:, cut])  # or there would be nothing to see


@every_case
def test_rows_do_not_affect_each_other(name, case):
    check_rows_do_not_affect_each_other(build_case(name, case))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name, case in CASES
        if zoo.describe(name).causal and TABLE[name][case].shape[1] == "time"
    ],
)
def test_the_future_does_not_change_the_past(name, case):
    check_the_future_does_not_change_the_past(build_case(name, case))


# ----------------------------------------------------------------------------- checks of numerics


def reference_identity(model: keras.Model, x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Elman's equations step by step in float64, on the model's own weights."""
    x = x.astype(np.float64)
    names = ("W", "R", "b", "C", "c")
    weights = [np.asarray(weight, np.float64) for weight in model.trainable_weights]
    w = dict(zip(names, weights, strict=True))
    activation = (lambda z: z) if "activation" in config else np.tanh
    mean, deviation = np.zeros(x.shape[-1]), np.ones(x.shape[-1])
    if config.get("normalize", True):
        seen = readings(64, 20, x.shape[-1], seed=2).astype(np.float64).reshape(-1, x.shape[-1])
        mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    state, outputs = np.zeros((len(x), len(w["R"]))), []
    for step in np.moveaxis(x, 1, 0):
        state = activation((step - mean) / deviation @ w["W"] + state @ w["R"] + w["b"])
        outputs.append((state @ w["C"] + w["c"]) * deviation + mean)
    return np.stack(outputs, axis=1) if config.get("return_sequences", True) else outputs[-1]


REFERENCES = {"simple_rnn_identity": reference_identity}


def check_numerics(build, reference, config: dict[str, Any]) -> None:
    """The output is that of a NumPy reference written from the equations."""
    model = build()
    x = readings(3, 11, model.input_shape[-1])
    assert_close(answer(model, x), reference(model, x, config))


@every_case
def test_the_output_is_that_of_the_equations(name, case):
    check_numerics(build_case(name, case), REFERENCES[name], TABLE[name][case].config)


# -------------------------------------------------------------------- files, configs and artifacts


@every_case
def test_a_model_file_gives_the_same_answers(name, case, tmp_path):
    model = build_case(name, case)()
    x = readings(3, 8, model.input_shape[-1])
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(answer(loaded, x), answer(model, x))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@every_case
def test_a_config_builds_the_same_model(name, case):
    model = build_case(name, case)()
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    again.set_weights(model.get_weights())
    x = readings(3, 8, model.input_shape[-1])
    np.testing.assert_array_equal(answer(again, x), answer(model, x))
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())  # NaN equals NaN here


LOADERS = {
    "zoo.load alone": "import keras_seqzoo as zoo; load = zoo.load",
    "keras alone, after importing the layers": (
        "import keras, keras_seqzoo.layers; load = keras.saving.load_model"
    ),
}
COMPARE = """
import sys, pathlib, numpy as np
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    with np.load(path.with_suffix(".npz")) as known:
        found = np.asarray(load(path)(known["x"], training=False))
        np.testing.assert_array_equal(found, known["y"], err_msg=path.name)
    print(path.stem)
"""


@pytest.mark.parametrize("how", LOADERS)
def test_a_fresh_process_gives_the_same_answers(how, tmp_path):
    for name, case in CASES:
        model = build_case(name, case)()
        x = readings(3, 8, model.input_shape[-1])
        model.save(tmp_path / f"{name}-{case}.keras")
        np.savez(tmp_path / f"{name}-{case}.npz", x=x, y=answer(model, x))
    done = subprocess.run(
        [sys.executable, "-c", LOADERS[how] + COMPARE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == sorted(f"{name}-{case}" for name, case in CASES)


# Two rows stand for all: each export starts a process of its own.
@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in TABLE for case in ("wide_input", "nan_padding")]
)
def test_an_artifact_answers_as_the_model_does(name, case, tmp_path):
    parity = zoo.export(build_case(name, case)(), tmp_path / "served", verbose=0)
    assert 0 <= parity.difference <= 1e-5
    paddings = {one["padding"] for one in parity.cases}
    assert paddings == ({"none", "left", "right"} if case == "nan_padding" else {"none"})
    assert len({one["batch"] for one in parity.cases}) > 1
    assert len({one["steps"] for one in parity.cases}) > 1


# ------------------------------------------------------------- the checks fail where they ought to


def mutant(fault: str):
    """An identity model with one fault, through the registry, as any entry."""

    def constructor(*, features: int = 2, units: int = 3, mask_value: float = NAN, name: str = "m"):
        inputs = keras.Input((None, features), name="readings")
        mask = step_mask(inputs, mask_value, name="mask")
        x = ApplyMask(name="real_steps")([inputs, mask])
        if fault == "mask found after scaling":
            x = Normalization(name="scale")(inputs)
            mask = step_mask(x, mask_value, name="mask")
            x = ApplyMask(name="real_steps")([x, mask])
        else:
            x = Normalization(name="scale")(x)
        if fault == "rows mixed":
            x = x - keras.ops.mean(x, axis=0, keepdims=True)
        if fault == "look-ahead":
            x = x + 0.1 * keras.ops.flip(x, axis=1)
        if fault == "future of the next step":
            x = x + 1e-3 * keras.ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
        activation = "sigmoid" if fault == "another activation" else "tanh"
        rnn = keras.layers.SimpleRNN(
            units, activation, return_sequences=True, name="recurrent",
            go_backwards=fault == "time reversed", use_bias=fault != "no bias",
        )  # fmt: skip
        # Tensors carry their mask along; arithmetic drops it.
        y = rnn(x + 0.0) if fault == "mask dropped" else rnn(x, mask=mask)
        if fault == "dead weights":
            y = keras.layers.Dense(units, name="cut")(y) * 0.0 + y
        if fault != "layer left out":
            y = keras.layers.Dense(features, name="readout")(y)
        else:
            y = y[..., :features]
        y = Normalization(invert=True, name="unscale")(y)
        y = y + 0.0 if fault == "padding not zeroed" else ApplyMask(name="masked")([y, mask])
        return keras.Model(inputs, y, name=name)

    return constructor


HEALTHY = Row({}, MASKED, 26, ("batch", "time", 2), "the mutant without a fault")
CHECKS = {
    "structure": lambda build: check_structure(build, HEALTHY),
    "shapes": lambda build: check_shapes(build, HEALTHY),
    "gradients": check_gradients,
    "padding": lambda build: check_padding_is_invisible(build, NAN),
    "loss": lambda build: check_padding_counts_in_no_loss(build, NAN),
    "rows": check_rows_do_not_affect_each_other,
    "time": check_the_future_does_not_change_the_past,
    "numerics": lambda build: check_numerics(build, reference_identity, {}),
}
FAULTS = [
    ("mask dropped", "padding"),
    ("padding not zeroed", "padding"),
    ("padding not zeroed", "loss"),
    ("rows mixed", "rows"),
    ("layer left out", "structure"),
    ("no bias", "structure"),
    ("dead weights", "gradients"),
    ("look-ahead", "time"),
    ("future of the next step", "time"),
    ("time reversed", "time"),
    ("another activation", "numerics"),
    ("future of the next step", "numerics"),
]


def build_mutant(fault: str) -> Callable[[], keras.Model]:
    zoo.register(
        "mutant", mutant(fault), task="identity", summary="Broken on purpose.", causal=True,
        inputs="(batch, time, features)", outputs="(batch, time, features)",
    )  # fmt: skip
    return lambda: ready(zoo.get("mutant"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_model_without_a_fault_passes(check):
    CHECKS[check](build_mutant("none"))


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_is_caught(fault, check):
    with pytest.raises(AssertionError):
        CHECKS[check](build_mutant(fault))


def test_a_mask_found_after_scaling_is_caught():
    build_mutant("mask found after scaling")
    with pytest.raises(AssertionError):
        check_padding_is_invisible(lambda: ready(zoo.get("mutant", mask_value=0.0)), 0.0)
