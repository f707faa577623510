"""Recoverability: closed forms, exact values, and invariances."""

import json

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.diagnostics.recoverability.ridge import PrincipalComponents
from keras_seqzoo.errors import ArgumentError, DataError
from tests.helpers import linear_rnn


class LinearRNN(linear_rnn.LinearRNN):
    """A linear RNN with its recoverability in closed form."""

    def __init__(self, seed, features=2, units=6, outputs=4):
        super().__init__(seed, features, units, outputs)

    def recoverability(self, lags, steps):
        """R^2 `(lags, features)` of the best linear read-out for white input, over output steps.

        `cov(x_{t-k}, y_t)` is `W R^k C`, and `cov(y_t)` the sum of its squares over `k <= t`.
        """
        impulse, responses = self.kernel, []
        for _ in range(max(steps) + 1):
            responses.append(impulse @ self.head)  # (features, outputs)
            impulse = impulse @ self.recurrent
        responses = np.array(responses)
        squares = np.einsum("kfo,kfp->kop", responses, responses)
        covariance = np.mean([squares[: t + 1].sum(axis=0) for t in steps], axis=0)
        lagged = responses[lags]
        return np.einsum("kfo,op,kfp->kf", lagged, np.linalg.pinv(covariance), lagged)


def white(seed, rows=1024, steps=24, features=2):
    return np.random.default_rng(seed).normal(size=(rows, steps, features))


def delayed(x, lag):
    return np.pad(x, ((0, 0), (lag, 0), (0, 0)))[:, : x.shape[1]]


def delay_line(x):
    return np.concatenate([delayed(x, lag) for lag in range(3)], axis=-1)


# -------------------------------------------------------------------------------- closed form


def test_closed_form_is_within_the_intervals():
    inside, deviations = [], []
    for seed in range(12):
        system = LinearRNN(seed)
        report = zoo.diagnostics.recoverability(system, white(seed + 1000), lags=8, seed=seed)
        truth = system.recoverability(report.lags, range(7, 24))
        low, high = report.by_feature_interval
        # Training on 8,704 steps costs about outputs / steps, which the intervals leave out.
        inside.append((low - 5e-4 <= truth) & (truth <= high + 5e-4))
        np.testing.assert_allclose(report.by_feature, truth, atol=0.05)
        deviations.append((report.capacity - truth.sum()) / report.standard_error)
    assert np.mean(inside) > 0.9
    assert np.abs(deviations).max() < 3.5
    assert np.abs(np.mean(deviations)) < 1


def test_last_step_output_matches_the_closed_form():
    system, x = LinearRNN(3), white(1, rows=8192, steps=12)
    report = zoo.diagnostics.recoverability(lambda x: system(x)[:, -1], x, lags=12)
    truth = system.recoverability(report.lags, [11])
    np.testing.assert_allclose(report.by_feature, truth, atol=0.03)
    np.testing.assert_allclose(truth.sum(), report.rank)  # over all lags of the window
    np.testing.assert_allclose(report.capacity, report.rank, rtol=0.04)


def test_standard_error_equals_the_spread_over_independent_data():
    system = LinearRNN(4)
    reports = [
        zoo.diagnostics.recoverability(system, white(seed, rows=256), lags=6) for seed in range(40)
    ]
    spread = np.std([report.capacity for report in reports])
    standard_error = np.mean([report.standard_error for report in reports])
    assert 0.7 < standard_error / spread < 1.4


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
def test_capacity_is_at_most_the_rank_for_independent_inputs(cell):
    inputs = keras.Input((None, 2))
    layer = getattr(keras.layers, cell)(5, return_sequences=True, name="recurrent")
    model = keras.Model(inputs, layer(inputs))
    report = zoo.diagnostics.recoverability(
        model, white(2, rows=512, steps=30).astype("float32"), lags=20
    )
    assert report.rank == 5
    assert 2 < report.capacity < 5 + 3 * report.standard_error


def test_capacity_exceeds_the_rank_for_a_slow_series():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4096, 40, 1))
    for step in range(1, 40):
        x[:, step] = 0.9 * x[:, step - 1] + np.sqrt(1 - 0.81) * x[:, step]
    report = zoo.diagnostics.recoverability(lambda x: x, x, lags=10)
    np.testing.assert_allclose(report.by_lag, 0.81 ** np.arange(10), atol=0.03)
    assert report.rank == 1
    assert report.interval[0] > 1
    assert "not independent" in str(report)


# ---------------------------------------------------------------------------------- exact values


def test_identity_recovers_the_present_only():
    report = zoo.diagnostics.recoverability(lambda x: x, white(0), lags=5)
    np.testing.assert_allclose(report.by_lag[0], 1, rtol=1e-12)
    np.testing.assert_allclose(report.by_lag[1:], 0, atol=2e-3)
    np.testing.assert_allclose(report.capacity, 2, atol=0.02)
    assert report.rank == report.outputs == 2


def test_delay_line_recovers_its_lags_exactly():
    report = zoo.diagnostics.recoverability(delay_line, white(0), lags=6)
    np.testing.assert_allclose(report.by_feature[:3], 1, rtol=1e-12)
    np.testing.assert_allclose(report.by_feature[3:], 0, atol=2e-3)
    assert report.rank == 6


def test_recoverability_is_per_input_feature():
    report = zoo.diagnostics.recoverability(
        lambda x: np.concatenate([delayed(x, 2)[..., :1], x[..., 1:]], axis=-1), white(0), lags=4
    )
    exact = np.array([[0, 1], [0, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(report.by_feature, exact, atol=2e-3)
    np.testing.assert_allclose(report.by_lag, report.by_feature.mean(axis=1))
    np.testing.assert_allclose(report.capacity, report.by_feature.sum())


def test_lags_may_be_a_list():
    report = zoo.diagnostics.recoverability(delay_line, white(0), lags=[2, 7])
    np.testing.assert_array_equal(report.lags, [2, 7])
    np.testing.assert_allclose(report.by_lag, [1, 0], atol=2e-3)


def test_redundant_and_constant_outputs_add_no_rank():
    model = lambda x: np.concatenate([x, x.sum(-1, keepdims=True), 0 * x + 7], axis=-1)  # noqa: E731
    report = zoo.diagnostics.recoverability(model, white(0), lags=2)
    assert (report.rank, report.outputs) == (2, 5)
    constant = zoo.diagnostics.recoverability(lambda x: np.ones_like(x), white(0), lags=2)
    assert constant.rank == 0
    np.testing.assert_allclose(constant.by_lag, 0, atol=1e-3)  # R^2 of the mean


def test_recoverability_does_not_depend_on_units_and_offsets():
    system, x = LinearRNN(5), white(5, rows=256)
    rescaled = lambda x: 1e3 * system(x / [1, 50] - [7, 2]) @ np.diag([1, 1e4, 1, 1]) + 3e4  # noqa: E731
    shifted = zoo.diagnostics.recoverability(rescaled, (x + np.array([7, 2])) * [1, 50], lags=4)
    np.testing.assert_allclose(
        shifted.by_lag, zoo.diagnostics.recoverability(system, x, lags=4).by_lag
    )


def test_nonlinear_dependence_is_not_recovered():
    report = zoo.diagnostics.recoverability(lambda x: x**2, white(0, rows=4096), lags=1)
    np.testing.assert_allclose(report.by_lag, 0, atol=2e-3)


def test_negative_r2_is_not_clipped():
    noise = np.random.default_rng(1).normal(size=(8, 6, 30))
    report = zoo.diagnostics.recoverability(
        lambda x: noise, white(0, rows=8, steps=6), lags=1, batch_size=8
    )
    assert report.by_feature.min() < 0
    assert report.capacity < 0
    assert "-" in str(report)


def test_constant_input_is_degenerate():
    x = white(0, rows=64)
    x[..., 1] = 3.7
    report = zoo.diagnostics.recoverability(lambda x: x, x, lags=2)
    assert report.degenerate
    assert np.isnan(report.by_feature[:, 1]).all()
    np.testing.assert_allclose(report.capacity, report.by_feature[:, 0].sum())
    assert "constant" in str(report)
    undefined = zoo.diagnostics.recoverability(lambda x: x, np.ones((8, 5, 1)), lags=2)
    assert np.isnan(undefined.capacity)
    assert "undefined" in str(undefined)


def test_ridge_is_least_squares_for_linear_targets_and_the_mean_for_noise():
    rng = np.random.default_rng(0)
    outputs, held_out = rng.normal(size=(2, 400, 3)) @ rng.normal(size=(3, 3)) + 5
    components = PrincipalComponents.fit(outputs, held_out, 1e-6)
    weights = rng.normal(size=(3, 2))
    np.testing.assert_allclose(
        components.predict(outputs @ weights + 1), held_out @ weights + 1, rtol=1e-5
    )
    noise = rng.normal(size=(400, 50))
    mean = noise.mean(axis=0) * np.ones((400, 1))
    far = np.abs(components.predict(noise) - mean).mean(axis=0)
    assert (far < 1e-4).mean() > 0.4  # the largest strength for most


# ------------------------------------------------------------------------------- layers and masks


def test_layer_selects_the_output_of_a_layer():
    inputs = keras.Input((None, 2))
    states = keras.layers.SimpleRNN(6, return_sequences=True, name="recurrent")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(states))
    x = white(0, rows=256).astype("float32")
    states = keras.Model(inputs, states)
    report = zoo.diagnostics.recoverability(model, x, layer="recurrent")
    np.testing.assert_allclose(report.by_lag, zoo.diagnostics.recoverability(states, x).by_lag)
    assert report.rank == 6
    assert zoo.diagnostics.recoverability(model, x).rank == 1
    assert "'recurrent'" in str(report)
    with pytest.raises(ArgumentError, match="Did you mean 'recurrent'"):
        zoo.diagnostics.recoverability(model, x, layer="recurent")
    with pytest.raises(ArgumentError, match="Functional"):
        zoo.diagnostics.recoverability(lambda x: x, x, layer="recurrent")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_recoverability(side):
    x = white(3, rows=256, steps=12)
    pad = np.full((len(x), 5, 2), np.nan)
    padded = np.concatenate([pad, x] if side == "left" else [x, pad], axis=1)
    mask = ~np.isnan(padded[..., 0])
    real = slice(5, None) if side == "left" else slice(0, 12)

    def masked(rows):
        out = np.full((*rows.shape[:2], 4), 1e6)
        out[:, real] = LinearRNN(6)(rows[:, real])
        return out

    plain = zoo.diagnostics.recoverability(LinearRNN(6), x, lags=6)
    report = zoo.diagnostics.recoverability(masked, padded, lags=6, mask=mask)
    np.testing.assert_allclose(report.by_feature, plain.by_feature)
    last = zoo.diagnostics.recoverability(lambda x: LinearRNN(6)(x)[:, -1], x, lags=6)
    report = zoo.diagnostics.recoverability(
        lambda x: masked(x)[:, real][:, -1], padded, lags=6, mask=mask
    )
    np.testing.assert_allclose(report.by_feature, last.by_feature)


def test_rows_with_too_few_real_steps_are_omitted():
    x = white(0, rows=64, steps=12)
    mask = np.arange(12) < np.where(np.arange(64) % 2, 3, 12)[:, None]
    x[~mask] = np.nan
    report = zoo.diagnostics.recoverability(lambda x: np.nan_to_num(x), x, lags=6, mask=mask)
    assert report.rows + report.training_rows == 32
    np.testing.assert_allclose(report.by_lag[0], 1)


def test_mask_of_a_keras_model_is_used_by_default():
    x = white(0, rows=128, steps=12).astype("float32")
    x[::2, 9:] = np.nan
    model = zoo.get("simple_rnn_identity", features=2, mask_value=float("nan"))
    zoo.adapt(model, x)
    default = zoo.diagnostics.recoverability(model, x, lags=4)
    explicit = zoo.diagnostics.recoverability(model, x, lags=4, mask=~np.isnan(x[..., 0]))
    assert default.to_dict() == explicit.to_dict()
    assert np.isfinite(zoo.diagnostics.recoverability(model, x, lags=4, layer="recurrent").capacity)


def test_output_step_selects_a_step_of_an_unaligned_output():
    x = white(0, rows=256, steps=10)
    unaligned = lambda x: x[:, -3:]  # noqa: E731
    with pytest.raises(DataError, match="output_step"):
        zoo.diagnostics.recoverability(unaligned, x)
    report = zoo.diagnostics.recoverability(unaligned, x, output_step=0, lags=4)
    np.testing.assert_allclose(report.by_lag, [0, 0, 1, 0], atol=0.05)


@pytest.mark.tensorflow
def test_saved_model_matches_its_keras_model(tmp_path):
    x = white(0, rows=64).astype("float32")
    model = zoo.get("simple_rnn_identity", features=2)
    zoo.export(model, tmp_path / "served", verify=False)
    served = zoo.diagnostics.recoverability(zoo.load(tmp_path / "served"), x, lags=3)
    np.testing.assert_allclose(
        served.by_lag, zoo.diagnostics.recoverability(model, x, lags=3).by_lag, rtol=1e-4
    )


# ----------------------------------------------------------------------------- rows and resamples


def test_report_is_reproducible_by_seed():
    x = white(3, rows=64)
    first, second = (zoo.diagnostics.recoverability(LinearRNN(1), x, seed=4) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert zoo.diagnostics.recoverability(LinearRNN(1), x, seed=5).capacity != first.capacity


def test_batch_size_does_not_change_the_report():
    x = white(3, rows=50)
    batched = zoo.diagnostics.recoverability(LinearRNN(1), x, batch_size=7)
    np.testing.assert_allclose(
        batched.by_lag, zoo.diagnostics.recoverability(LinearRNN(1), x).by_lag
    )


def test_training_and_held_out_windows_share_no_reading():
    series = np.random.default_rng(0).normal(size=800)
    x = np.lib.stride_tricks.sliding_window_view(series, 40)[::4, :, None].copy()  # 191 rows
    report = zoo.diagnostics.recoverability(lambda x: x, x, lags=3, block=10)
    assert (report.training_rows, report.rows) == (86, 96)  # rows 86 to 94 overlap both
    with pytest.raises(DataError, match="4 blocks of 60 rows"):
        zoo.diagnostics.recoverability(lambda x: x, x, lags=3, block=60)


def test_block_increases_the_standard_error_of_overlapping_windows():
    series = np.convolve(np.random.default_rng(0).normal(size=3000), np.ones(20) / 20, "same")
    x = np.lib.stride_tricks.sliding_window_view(series, 40)[::4, :, None].copy()
    model = lambda x: delayed(x, 3) + 0.1 * np.sin(40 * x)  # noqa: E731
    rows, blocks = (
        zoo.diagnostics.recoverability(model, x, lags=[0], block=block) for block in (1, 10)
    )
    assert blocks.standard_error > 1.3 * rows.standard_error


def test_resamples_zero_gives_no_interval():
    report = zoo.diagnostics.recoverability(lambda x: x, white(0, rows=16), lags=2, resamples=0)
    assert np.isnan(report.interval).all()
    assert np.isnan(report.by_feature_interval).all()
    assert report.to_dict()["standard_error"] is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((3, 5, 1))}, DataError, "4 rows"),
        ({"x": np.full((4, 5, 1), np.nan)}, DataError, "finite"),
        ({"x": np.zeros((8, 5), int)}, DataError, "token ids"),
        ({"x": [[1, 2], [3]]}, DataError, "one array"),
        ({"mask": np.ones((2, 2), bool)}, DataError, "mask"),
        ({"mask": np.zeros((8, 5), bool)}, DataError, "fewer lags"),
        ({"burn_in": 5}, DataError, "burn_in"),
        ({"burn_in": -1}, ArgumentError, "burn_in"),
        ({"lags": 0}, ArgumentError, r"\[1, 5\]"),
        ({"lags": 6}, ArgumentError, r"\[1, 5\]"),
        ({"lags": [1, 5]}, ArgumentError, r"\[0, 4\]"),
        ({"lags": []}, ArgumentError, "lags"),
        ({"lags": "all"}, ArgumentError, "lags"),
        ({"lags": True}, ArgumentError, "lags"),
        ({"readout": "lasso"}, ArgumentError, "ridge"),
        ({"held_out": 1}, ArgumentError, "between 0 and 1"),
        ({"resamples": -1}, ArgumentError, "resamples"),
        ({"block": 0}, ArgumentError, "positive int"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"model": 3}, ArgumentError, "callable"),
        ({"model": lambda x: x * np.inf}, DataError, "diverged"),
        ({"model": lambda x: x[:1]}, DataError, "one row"),
    ],
)
def test_invalid_arguments_raise_an_error_with_the_argument_name(change, error, message):
    arguments = {"model": lambda x: x, "x": white(0, rows=8, steps=5)} | change
    with pytest.raises(error, match=message), np.errstate(invalid="ignore"):
        zoo.diagnostics.recoverability(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_token_model_raises():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Embedding(9, 4)(inputs))
    with pytest.raises(DataError, match="token ids"):
        zoo.diagnostics.recoverability(model, np.ones((8, 5)))


def test_recoverability_report_prints_plots_and_serializes():
    report = zoo.diagnostics.recoverability(LinearRNN(0), white(0, rows=64))
    assert "Memory capacity" in str(report)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["capacity"] == report.capacity
    assert plain["rank"] == 4
    axes = report.plot()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), report.by_lag)
    assert report.plot(axes) is axes
