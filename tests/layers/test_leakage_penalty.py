"""LeakagePenalty, SpectralNorm and lipschitz_bound."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as k
from keras import ops

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError

NAN = float("nan")


def as_float(tensor) -> float:
    return float(ops.convert_to_numpy(tensor))


def seeded(model: keras.Model, size: float = 0.6) -> keras.Model:
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(size * rng.normal(size=weight.shape))
    return model


def readings(rows: int = 64, steps: int = 12, features: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, steps, features)).astype("float32")


def network(**config) -> keras.Model:
    config = {"features": 2, "units": 4, "normalize": False} | config
    return seeded(zoo.get("simple_rnn_identity", **config))


# ---------------------------------------------------------------------------------- LeakagePenalty


def reference_leakage(model, x: np.ndarray, cuts: np.ndarray, real: np.ndarray) -> float:
    """The definition of leakage, row by row, with the given cuts."""
    y = np.asarray(model(x, training=False), np.float64)
    changes = []
    for row, cut in enumerate(cuts):
        other = row - 1  # the previous row; for the first row the last one
        if not (real[row, cut - 1] and real[row, cut]):
            continue
        if (real[row, :cut] != real[other, :cut]).any():
            continue
        swapped = x[row].copy()
        swapped[:cut] = x[other, :cut]
        swapped_y = np.asarray(model(swapped[None], training=False), np.float64)[0]
        changes.append((y[row, cut] - swapped_y[cut]) ** 2)
    variance = y[real].var(axis=0)
    return float(np.mean(np.mean(changes, axis=0) / (2 * variance)))


@pytest.mark.parametrize("config", [{}, {"mask_value": NAN}])
def test_penalty_is_the_leakage_of_the_batch(config):
    net = network(**config)
    model = zoo.layers.LeakagePenalty(net, weight=0.5, seed=3)
    x = readings(rows=40)
    real = np.ones(x.shape[:2], bool)
    if config:
        real[::4, :3], real[1::4, -2:] = False, False
        x[~real] = NAN
    cuts = np.asarray(
        zoo.layers.LeakagePenalty(net, seed=3)._draw_cuts(ops.convert_to_tensor(real))[0]
    )
    assert len(set(cuts.tolist())) > 3
    assert all(real[row, cut] and real[row, cut - 1] for row, cut in enumerate(cuts))
    expected = reference_leakage(net, x, cuts, real)
    assert expected > 0.05
    np.testing.assert_allclose(as_float(model.batch_leakage(x)), expected, rtol=1e-4)


def test_penalty_estimates_the_leakage_of_the_model():
    net = network(units=6)
    x = readings(rows=4_000)
    measured = zoo.leakage(net, x).index
    assert as_float(zoo.layers.LeakagePenalty(net, seed=1).batch_leakage(x)) == pytest.approx(
        measured, rel=0.15
    )


def test_penalty_of_the_last_step_estimates_leakage():
    net = network(return_sequences=False)
    x = readings(rows=2_000, steps=6)
    estimate = as_float(zoo.layers.LeakagePenalty(net, seed=1).batch_leakage(x))
    assert estimate == pytest.approx(zoo.leakage(net, x).index, rel=0.2)


@pytest.mark.slow
def test_training_with_the_penalty_reduces_leakage():
    x = readings(rows=256, steps=12)
    target = np.cumsum(x, axis=1).astype("float32")  # depends on the past
    leakages = []
    for weight in (0.0, 30.0):
        keras.utils.set_random_seed(0)
        net = zoo.get("simple_rnn_identity", features=2, units=4, normalize=False)
        model = zoo.layers.LeakagePenalty(net, weight=weight, seed=0)
        model.compile(keras.optimizers.Adam(0.02), "mse")
        history = model.fit(x, target, epochs=8, verbose=0, validation_data=(x, target))
        assert set(history.history) == {"loss", "leakage", "val_loss", "val_leakage"}
        leakages.append(zoo.leakage(net, x).index)  # the model shares its layers with `net`
    assert leakages[1] < 0.5 * leakages[0]


def test_penalty_is_in_the_training_loss_only():
    net = network()
    x = readings()
    plain, penalized = (
        zoo.layers.LeakagePenalty(net, weight=weight, seed=0) for weight in (0.0, 10.0)
    )
    for model in (plain, penalized):
        model.compile(keras.optimizers.SGD(0.0), "mse")
    losses = [
        model.fit(x, x, epochs=1, batch_size=64, verbose=0).history for model in (plain, penalized)
    ]
    gap = losses[1]["loss"][0] - losses[0]["loss"][0]
    assert gap == pytest.approx(10 * losses[1]["leakage"][0], rel=1e-4)
    assert plain.evaluate(x, x, verbose=0, return_dict=True)["loss"] == pytest.approx(
        penalized.evaluate(x, x, verbose=0, return_dict=True)["loss"], rel=1e-5
    )


def test_model_file_restores_the_penalty(tmp_path):
    model = zoo.layers.LeakagePenalty(network(), weight=0.25, seed=7)
    model.compile("adam", "mse")
    x = readings()
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    other = zoo.load(tmp_path / "model.keras")
    assert (other.weight, other.seed, type(other)) == (0.25, 7, zoo.layers.LeakagePenalty)
    np.testing.assert_allclose(*(np.asarray(m(x)) for m in (model, other)), rtol=1e-6)
    other.fit(x, x, verbose=0)
    assert type(other.network) is not zoo.layers.LeakagePenalty


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: "simple_rnn", "network"),
        (lambda: zoo.get("bilstm_crf_tagger"), "loss of its own"),
        (lambda: zoo.get("gru_encoder_decoder"), "one input"),
        (
            lambda: keras.Sequential([k.Input((None, 2), 4), k.GRU(2, stateful=True)]),
            "stateful",
        ),
        (lambda: keras.Sequential([k.Input((8, 2)), k.Conv1D(2, 3)]), "as many steps"),
    ],
)
def test_unsupported_networks_are_rejected(build, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.layers.LeakagePenalty(build())


# ------------------------------------------------------------------------------------ SpectralNorm


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    limit=st.floats(0, 3),
    weight=st.floats(0, 3),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_spectral_norm_penalizes_the_largest_singular_value(rows, columns, limit, weight, seed):
    x = np.random.default_rng(seed).normal(size=(rows, columns)).astype("float32")
    largest = np.sqrt(np.linalg.eigvalsh((x.T @ x).astype(np.float64)).max())
    penalty = float(zoo.regularizers.SpectralNorm(weight, limit)(x))
    assert penalty == pytest.approx(weight * max(largest - limit, 0) ** 2, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_training_with_spectral_norm_reduces_the_norm_to_the_limit():
    x = readings(rows=128)
    norms = []
    for regularizer in (None, zoo.regularizers.SpectralNorm(weight=10.0, limit=0.3)):
        keras.utils.set_random_seed(0)
        model = zoo.get(
            "simple_rnn_identity", features=2, units=4, recurrent_regularizer=regularizer,
            normalize=False,
        )  # fmt: skip
        model.compile(keras.optimizers.Adam(0.02), "mse")
        model.fit(x, np.cumsum(x, axis=1), epochs=20, verbose=0)
        norms.append(zoo.diagnostics.lipschitz_bound(model).decay)
    assert norms[0] > 0.6
    assert norms[1] < 0.4


def test_spectral_norm_is_saved_and_available_by_name(tmp_path):
    model = zoo.get(
        "simple_rnn_identity", recurrent_regularizer=zoo.regularizers.SpectralNorm(0.3, 0.7)
    )
    model.save(tmp_path / "model.keras")
    other = zoo.load(tmp_path / "model.keras")
    regularizer = other.get_layer("recurrent").cell.recurrent_regularizer
    assert (regularizer.weight, regularizer.limit) == (0.3, 0.7)
    by_name = zoo.get("simple_rnn_identity", recurrent_regularizer="spectral_norm")
    assert isinstance(
        by_name.get_layer("recurrent").cell.recurrent_regularizer, zoo.regularizers.SpectralNorm
    )
    for arguments in ({"weight": -1}, {"limit": NAN}, {"weight": "much"}):
        with pytest.raises(ArgumentError):
            zoo.regularizers.SpectralNorm(**arguments)


# --------------------------------------------------------------------------------- lipschitz_bound


def norm(kernel) -> float:
    return float(np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)[0])


def test_lipschitz_bound_is_the_product_of_norms():
    model = network(units=5)
    recurrent, readout = model.get_layer("recurrent").cell, model.get_layer("readout")
    report = zoo.diagnostics.lipschitz_bound(model, lags=6)
    ends = norm(recurrent.kernel) * norm(readout.kernel)
    expected = ends * norm(recurrent.recurrent_kernel) ** np.arange(7)
    # Without normalization the factors of input and output scaling are 1.
    np.testing.assert_allclose(report.bounds[1:] / report.bounds[:-1], report.decay, rtol=1e-6)
    np.testing.assert_allclose(report.bounds, expected, rtol=1e-6)
    assert report.decay == pytest.approx(norm(recurrent.recurrent_kernel))


def test_lipschitz_bound_includes_input_and_output_scaling():
    model = zoo.get("simple_rnn_identity", features=2, units=3)
    zoo.adapt(model, np.random.default_rng(0).normal(size=(50, 9, 2)) * [1.0, 10.0])
    plain = zoo.get("simple_rnn_identity", features=2, units=3, normalize=False)
    plain.set_weights([np.asarray(weight) for weight in model.trainable_weights])
    ratio = (
        zoo.diagnostics.lipschitz_bound(model, lags=2).bounds
        / zoo.diagnostics.lipschitz_bound(plain, lags=2).bounds
    )
    np.testing.assert_allclose(
        ratio, 10.0, rtol=0.2
    )  # the largest output deviation over the smallest input deviation


@given(
    units=st.integers(1, 5),
    num_layers=st.integers(1, 3),
    activation=st.sampled_from(["tanh", "relu", "linear", "sigmoid"]),
    size=st.floats(0.05, 1.2),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@pytest.mark.slow
def test_jacobians_are_within_the_lipschitz_bound(units, num_layers, activation, size, seed):
    rng = np.random.default_rng(seed)
    layers = [k.SimpleRNN(units, activation, return_sequences=True) for _ in range(num_layers)]
    model = keras.Sequential([k.Input((None, 2)), *layers, k.Dense(2)])
    for weight in model.trainable_weights:
        weight.assign(size * rng.normal(size=weight.shape))
    x = rng.normal(size=(2, 7, 2)).astype("float32")
    report = zoo.diagnostics.lipschitz_bound(model, x, lags=8)
    reached = report.measured[:7]
    assert np.isfinite(reached).all()
    assert np.isnan(report.measured[7:]).all()
    assert (reached <= report.bounds[:7] * (1 + 1e-4) + 1e-6).all(), (reached, report.bounds)


def test_lipschitz_bound_of_one_linear_unit_is_exact():
    """With one unit and no activation the Jacobian is the product of the weights."""
    model = keras.Sequential(
        [k.Input((None, 1)), k.SimpleRNN(1, "linear", return_sequences=True), k.Dense(1)]
    )
    model.set_weights([np.full(weight.shape, 0.5, "float32") for weight in model.weights])
    report = zoo.diagnostics.lipschitz_bound(model, readings(2, 6, 1), lags=5)
    np.testing.assert_allclose(report.measured, report.bounds, rtol=1e-5)
    np.testing.assert_allclose(report.bounds, 0.25 * 0.5 ** np.arange(6), rtol=1e-6)


def test_lipschitz_bound_reports_the_horizon_of_past_inputs():
    model = network(units=3)
    cell = model.get_layer("recurrent").cell
    cell.recurrent_kernel.assign(0.5 * np.eye(3))
    found = zoo.diagnostics.lipschitz_bound(model, lags=30)
    below = found.bounds[0] * 0.5 ** np.arange(31)
    assert found.horizon(0.01) == int(np.argmax(below <= 0.01))
    assert found.horizon(1e-12) is None
    assert "decays to zero" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["measured"] is None
    cell.recurrent_kernel.assign(1.5 * np.eye(3))
    assert "is not bounded" in str(zoo.diagnostics.lipschitz_bound(model))
    assert "SpectralNorm" in str(zoo.diagnostics.lipschitz_bound(model))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: "model", "model"),
        (lambda: zoo.get("gru_tagger"), "SimpleRNN"),
        (lambda: zoo.get("bilstm_tagger"), "SimpleRNN"),
        (lambda: keras.Sequential([k.Input((None, 2)), k.Dense(2)]), "at least one SimpleRNN"),
        (
            lambda: keras.Sequential([k.Input((None, 2)), k.SimpleRNN(2, "gelu")]),
            "slope of at most 1",
        ),
        (lambda: zoo.get("gru_encoder_decoder"), "one input"),
    ],
)
def test_models_without_a_lipschitz_bound_are_rejected(build, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.diagnostics.lipschitz_bound(build())
