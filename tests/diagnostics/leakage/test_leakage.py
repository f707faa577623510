"""State leakage: closed forms, hand calculations, and invariances.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage.
"""

import copy
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_seqzoo as zoo
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.errors import ArgumentError, DataError
from tests.helpers import linear_rnn


class LinearRNN(linear_rnn.LinearRNN):
    """A linear RNN with its state leakage in closed form."""

    def __init__(self, seed, features=3, units=5, outputs=2):
        super().__init__(seed, features, units, outputs)

    def leakage(self, lag, last_steps, *, pooled=False):
        """Leakage at `lag` for white input of unit variance, summed over the output steps."""
        impulse, responses = self.kernel, []
        for _ in range(max(last_steps) + 1):
            responses.append(((impulse @ self.head) ** 2).sum(axis=0))
            impulse = impulse @ self.recurrent
        responses = np.array(responses)
        past = sum(responses[lag : t + 1].sum(axis=0) for t in last_steps)
        total = sum(responses[: t + 1].sum(axis=0) for t in last_steps)
        return past.sum() / total.sum() if pooled else (past / total).mean()

    def as_keras(self, *, return_sequences=True):
        features, units = self.kernel.shape
        inputs = keras.Input((None, features))
        states = keras.layers.SimpleRNN(
            units, activation=None, return_sequences=return_sequences, name="recurrent"
        )(inputs)
        model = keras.Model(inputs, keras.layers.Dense(self.head.shape[1], name="head")(states))
        zeros = [np.zeros(size) for size in self.head.shape]
        model.set_weights([self.kernel, self.recurrent, zeros[0], self.head, zeros[1]])
        return model


def white(seed, rows=1024, steps=24, features=3):
    return np.random.default_rng(seed).normal(size=(rows, steps, features))


def output_steps(report, lag, steps=24):
    return [cut + lag - 1 for cut in report.cuts if cut + lag - 1 < steps]


@pytest.mark.parametrize("seed", range(24))
def test_swap_index_is_within_three_standard_errors_of_the_closed_form(seed):
    system = LinearRNN(seed)
    report = zoo.leakage(system, white(seed + 1000), seed=seed, resamples=400)
    truth = system.leakage(1, output_steps(report, 1))
    assert abs(report.index - truth) < 3 * report.standard_error
    assert report.standard_error < 0.05 * truth + 0.005  # and the interval is not vacuous


def test_standard_error_equals_the_spread_over_independent_data():
    system = LinearRNN(3)
    reports = [zoo.leakage(system, white(seed, rows=256), seed=seed) for seed in range(60)]
    spread = np.std([report.index for report in reports])
    standard_error = np.mean([report.standard_error for report in reports])
    assert 0.75 < standard_error / spread < 1.35


def test_leakage_by_lag_matches_the_closed_form():
    system = LinearRNN(7)
    report = zoo.leakage(system, white(0, rows=4096))
    truth = [system.leakage(lag, output_steps(report, lag)) for lag in range(1, 8)]
    np.testing.assert_allclose(report.by_lag[:7], truth, rtol=0.1)


def test_scale_none_matches_the_pooled_closed_form():
    system = LinearRNN(2)
    report = zoo.leakage(system, white(1, rows=4096), scale="none")
    truth = system.leakage(1, output_steps(report, 1), pooled=True)
    np.testing.assert_allclose(report.index, truth, rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_index_is_within_two_percent_of_the_closed_form(seed):
    system = LinearRNN(seed)
    x = white(seed, rows=512).astype("float32")
    report = zoo.leakage(system.as_keras(), x, method="gradient", probes=32)
    truth = system.leakage(1, range(6, 24))  # the steps that probes pick from
    np.testing.assert_allclose(report.index, truth, rtol=0.02)
    assert report.look_ahead == 0


def test_last_step_output_matches_the_closed_form_of_the_last_step():
    system = LinearRNN(11)
    x = white(2, rows=4096).astype("float32")
    model = system.as_keras(return_sequences=False)
    report = zoo.leakage(model, x)
    np.testing.assert_array_equal(report.lags, [1, 2, 4, 8, 16, 23])
    truth = [system.leakage(lag, [23]) for lag in (1, 2, 4)]
    np.testing.assert_allclose(report.by_lag[:3], truth, rtol=0.1)
    gradient = zoo.leakage(model, x[:256], method="gradient")
    np.testing.assert_allclose(gradient.index, truth[0], rtol=0.02)
    assert report.look_ahead is None


def test_index_is_leakage_at_lag_one_for_any_cuts():
    x = white(0, rows=512, features=1)
    for cuts in (1, 2, [10]):
        report = zoo.leakage(lambda x: x[:, -1] + x[:, -2], x, cuts=cuts)
        assert report.lags[0] == 1
        np.testing.assert_allclose(report.index, 0.5, atol=0.1)


def test_rank_two_output_counts_as_one_score_per_step():
    x = white(0, rows=32, features=2)
    round_off = 1e-12 if keras.backend.backend() == "jax" else 0
    for time in (None, 24):
        inputs = keras.Input((time, 2))
        scorer = keras.Model(inputs, ops.sum(inputs**2, axis=-1))
        assert zoo.leakage(scorer, x).index <= round_off


@pytest.mark.tensorflow
def test_saved_model_with_last_step_output_matches_its_keras_model(tmp_path):
    x = white(0, rows=128, steps=3, features=3).astype("float32")
    model = zoo.get("simple_rnn_identity", features=3, return_sequences=False)
    zoo.export(model, tmp_path / "served", verify=False)
    served = zoo.leakage(zoo.load(tmp_path / "served"), x)
    np.testing.assert_allclose(served.by_lag, zoo.leakage(model, x).by_lag, rtol=1e-3)


def test_subclassed_model_is_measured():
    class Sum(keras.Model):
        def call(self, x):
            return ops.cumsum(x, axis=1)

    assert zoo.leakage(Sum(), white(0, rows=64).astype("float32")).index > 0.5


def test_memoryless_function_has_exactly_zero_leakage():
    report = zoo.leakage(np.tanh, white(0, rows=32))
    assert report.index == 0
    assert report.memory_horizon == 1
    assert report.look_ahead == 0
    np.testing.assert_array_equal(report.by_lag, 0)


def test_function_of_the_past_alone_has_leakage_one():
    delayed = lambda x: np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)  # noqa: E731
    report = zoo.leakage(delayed, white(0, rows=512))
    np.testing.assert_allclose(report.index, 1, atol=0.15)
    assert report.memory_horizon == 2
    np.testing.assert_array_equal(report.by_lag[1:], 0)


def test_difference_of_a_slow_series_has_leakage_above_one():
    x = np.cumsum(white(0, rows=128, features=1), axis=1)
    report = zoo.leakage(lambda x: np.diff(x, axis=1, prepend=0), x)
    assert report.index > 5
    assert "Above 1" in str(report)


def test_leakage_does_not_depend_on_output_units():
    system, x = LinearRNN(4), white(5)
    scaled = lambda x: system(x) * [1.0, 1000.0]  # noqa: E731
    np.testing.assert_allclose(
        zoo.leakage(scaled, x).by_lag, zoo.leakage(system, x).by_lag, rtol=1e-9
    )


def test_constant_output_is_degenerate_with_nan_index():
    report = zoo.leakage(lambda x: np.full_like(x, 3.7), white(0, rows=16))
    assert np.isnan(report.index)
    assert report.degenerate
    assert report.memory_horizon is None
    assert "constant" in str(report)


def test_constant_output_feature_is_omitted_and_reported():
    half = lambda x: np.stack([x[..., 0], np.full(x.shape[:2], 70.0)], axis=-1)  # noqa: E731
    report = zoo.leakage(half, white(0, rows=16))
    assert report.degenerate
    assert report.index == 0
    assert np.isnan(report.by_feature[1])
    assert "left out" in str(report)


def test_look_ahead_is_positive_for_a_reversed_sum_and_zero_for_a_causal_model():
    x = white(0, rows=64).astype("float32")
    ahead = lambda x: np.cumsum(x[:, ::-1], axis=1)[:, ::-1]  # noqa: E731
    assert zoo.leakage(ahead, x).look_ahead > 0.5
    assert zoo.leakage(LinearRNN(0).as_keras(), x).look_ahead == 0


def test_report_is_reproducible_by_seed():
    system, x = LinearRNN(1), white(3, rows=64)
    first, second = zoo.leakage(system, x, seed=4), zoo.leakage(system, x, seed=4)
    assert first.to_dict() == second.to_dict()
    assert zoo.leakage(system, x, seed=5).index != first.index


def test_batch_size_does_not_change_the_report():
    system, x = LinearRNN(1), white(3, rows=50)
    np.testing.assert_allclose(
        zoo.leakage(system, x, batch_size=7).by_lag, zoo.leakage(system, x).by_lag, rtol=1e-12
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_leakage(side):
    system, x = LinearRNN(6), white(8, rows=256, steps=20)
    pad = np.full((len(x), 5, 3), np.nan)
    padded = np.concatenate([pad, x] if side == "left" else [x, pad], axis=1)
    mask = ~np.isnan(padded[..., 0])

    def masked(x):
        real = x[:, 5:] if side == "left" else x[:, :-5]
        out = np.full((*x.shape[:2], 2), 1e6)
        out[:, 5:] if side == "left" else out[:, :-5]
        (out[:, 5:] if side == "left" else out[:, :-5])[:] = system(np.nan_to_num(real))
        return out

    cuts = [8, 12, 16]
    shifted = [cut + 5 for cut in cuts] if side == "left" else cuts
    plain = zoo.leakage(system, x, cuts=cuts)
    report = zoo.leakage(masked, padded, mask=mask, cuts=shifted)
    np.testing.assert_allclose(report.by_lag[:4], plain.by_lag[:4], rtol=1e-9)


def test_rows_of_different_lengths_keep_their_own_masks():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20, 2))
    lengths = rng.integers(6, 21, len(x))
    mask = np.arange(20) < lengths[:, None]
    batches = []

    def recording(rows):
        batches.append(rows)
        return np.cumsum(np.nan_to_num(rows), axis=1)

    x[~mask] = np.nan
    report = zoo.leakage(recording, x, mask=mask, cuts=[5, 10], batch_size=300)
    for rows in batches:
        np.testing.assert_array_equal(np.isnan(rows[..., 0]), ~mask)  # the mask stays with its row
    assert report.rows == (lengths > 5).sum()
    np.testing.assert_allclose(report.index, (5 / 6 * 6 + 10) / (6 + 11), atol=0.1)


def test_rows_that_start_after_the_cut_are_not_scored():
    x = white(0, rows=512, steps=16, features=1)
    mask = np.ones((512, 16), bool)
    mask[::2, :9] = False  # every other row starts at step 9

    def summed(rows):
        return np.cumsum(np.where(mask[: len(rows), :, None], rows, 0), axis=1)

    late = zoo.leakage(summed, x, mask=mask, cuts=[5], batch_size=512)
    assert late.rows == 256
    np.testing.assert_allclose(late.index, 5 / 6, atol=0.12)


def test_mask_of_a_keras_model_is_used_by_default():
    x = white(0, rows=64, steps=12, features=1).astype("float32")
    x[::2, 9:] = np.nan
    model = zoo.get("simple_rnn_identity", mask_value=float("nan"))
    zoo.adapt(model, x)
    default = zoo.leakage(model, x)
    explicit = zoo.leakage(model, x, mask=~np.isnan(x[..., 0]))
    assert default.to_dict() == explicit.to_dict()
    last = zoo.get("simple_rnn_identity", mask_value=float("nan"), return_sequences=False)
    assert np.isfinite(zoo.leakage(last, x).index)
    assert np.isfinite(zoo.leakage(last, x, method="gradient").index)
    assert np.isfinite(zoo.leakage(model, x, method="gradient").index)


@pytest.mark.parametrize(("rows", "block"), [(10, 1), (10, 3), (11, 4), (2, 1), (7, 7)])
def test_each_row_receives_the_past_of_another_row_and_is_a_donor_once(rows, block):
    order = interventions.shuffled_blocks(rows, block, np.random.default_rng(0))
    x = np.arange(rows, dtype=float)[:, None, None] * np.ones((1, 4, 1))
    (swap,) = interventions.sequence_swaps(x, None, [2], order, block)
    assert sorted(swap.donor) == list(range(rows))
    assert (swap.donor != np.arange(rows)).all()
    np.testing.assert_array_equal(swap.x[:, 1, 0], swap.donor)
    np.testing.assert_array_equal(swap.x[:, 2, 0], np.arange(rows))


def test_donor_is_never_in_the_same_block():
    order = interventions.shuffled_blocks(100, 10, np.random.default_rng(1))
    (swap,) = interventions.sequence_swaps(np.zeros((100, 4, 1)), None, [2], order, 10)
    assert (np.arange(100) // 10 != swap.donor // 10).all()


def test_block_increases_the_standard_error_of_overlapping_windows():
    series = np.convolve(np.random.default_rng(0).normal(size=3000), np.ones(20) / 20, "same")
    x = np.lib.stride_tricks.sliding_window_view(series, 40)[::4, :, None].copy()
    system = LinearRNN(5, features=1, outputs=1)
    rows, blocks = (zoo.leakage(system, x, block=block).standard_error for block in (1, 10))
    assert blocks > 1.3 * rows


@pytest.mark.tensorflow
def test_anomaly_scores_and_saved_models_are_measured():
    x = white(0, rows=32, features=2).astype("float32")
    model = zoo.get("simple_rnn_identity", features=2)
    zoo.adapt(model, x)
    score = zoo.diagnostics.anomaly_score(model, x)
    assert score(x).shape == (32, 24)
    assert zoo.leakage(score, x).index > 0
    path = Path(tempfile.mkdtemp()) / "served"
    zoo.export(model, path, verify=False)
    np.testing.assert_allclose(
        zoo.leakage(zoo.load(path), x).by_lag, zoo.leakage(model, x).by_lag, rtol=1e-3, atol=1e-9
    )
    served = zoo.load(path)
    assert zoo.metrics.identity_error(served, x.astype("float64")) == zoo.metrics.identity_error(
        served, x
    )


@pytest.mark.tensorflow
def test_rows_with_the_wrong_shape_raise(tmp_path):
    model = zoo.get("simple_rnn_identity", features=2, time=6)
    zoo.export(model, tmp_path / "served", verify=False)
    for measured in (model, zoo.load(tmp_path / "served")):
        for shape in ((4, 6, 3), (4, 5, 2), (4, 6)):
            with pytest.raises(DataError, match=r"\(batch, 6, 2\)"):
                zoo.leakage(measured, np.zeros(shape))


def test_output_step_selects_a_step_of_an_unaligned_output():
    x = white(0, rows=256)
    other_length = lambda x: np.cumsum(x, axis=1)[:, -5:]  # noqa: E731
    with pytest.raises(DataError, match="output_step"):
        zoo.leakage(other_length, x)
    report = zoo.leakage(other_length, x, output_step=-1)
    np.testing.assert_allclose(report.index, 23 / 24, atol=0.15)


def test_tokens_support_method_swap_but_not_gradient():
    tokens = np.random.default_rng(0).integers(1, 9, (64, 12))
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4)(inputs)
    model = keras.Model(inputs, keras.layers.SimpleRNN(3, return_sequences=True)(x))
    assert 0 < zoo.leakage(model, tokens).index < 1.5
    with pytest.raises(DataError, match="tokens have no gradient"):
        zoo.leakage(model, tokens, method="gradient")


def test_stateful_model_raises():
    inputs = keras.Input((None, 1), batch_size=4)
    model = keras.Model(inputs, keras.layers.SimpleRNN(2, stateful=True)(inputs))
    with pytest.raises(ArgumentError, match="stateful"):
        zoo.leakage(model, np.zeros((4, 5, 1)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((1, 5, 1))}, DataError, "2 rows"),
        ({"x": np.zeros((5, 1, 1))}, DataError, "2 steps"),
        ({"x": np.full((4, 5, 1), np.nan)}, DataError, "finite"),
        ({"x": [[1, 2], [3]]}, DataError, "one array"),
        ({"x": np.array([["a", "b"], ["c", "d"]])}, DataError, "numeric"),
        ({"method": "exact"}, ArgumentError, "swap"),
        ({"cuts": [0]}, ArgumentError, r"\[1, 4\]"),
        ({"cuts": 0}, ArgumentError, "positive int"),
        ({"cuts": "many"}, ArgumentError, "cuts"),
        ({"burn_in": 9}, ArgumentError, "burn_in"),
        ({"threshold": 2}, ArgumentError, "between 0 and 1"),
        ({"mask": np.ones((2, 2), bool)}, DataError, "mask"),
        ({"mask": np.ones((4, 5))}, DataError, "bool"),
        ({"mask": np.zeros((4, 5), bool)}, DataError, "same mask"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"block": 3}, ArgumentError, "half of the 4 rows"),
        ({"model": 3}, ArgumentError, "callable"),
        ({"model": lambda x: x[:1]}, DataError, "one row"),
        ({"model": lambda x: x * np.inf}, DataError, "diverged"),
        ({"model": lambda x: x * 1e155}, DataError, "squared"),
        ({"model": lambda x: [x, x]}, ArgumentError, "one output"),
    ],
)
def test_invalid_arguments_raise_an_error_with_the_argument_name(change, error, message):
    arguments = {"model": lambda x: x, "x": np.random.default_rng(0).normal(size=(4, 5, 1))}
    arguments |= change
    with pytest.raises(error, match=message), np.errstate(invalid="ignore"):
        zoo.leakage(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_leakage_report_prints_plots_and_serializes():
    report = zoo.leakage(LinearRNN(0), white(0, rows=64))
    assert "State leakage" in str(report)
    assert "Memory horizon" in str(report)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["index"] == report.index
    axes = report.plot()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), report.by_lag)


def test_memory_horizon_is_the_first_lag_with_leakage_below_the_threshold_from_there_on():
    shift = lambda k: lambda x: x + np.pad(x, ((0, 0), (k, 0), (0, 0)))[:, : x.shape[1]]  # noqa: E731
    x = white(0, rows=64)
    assert zoo.leakage(shift(3), x).memory_horizon == 4
    assert zoo.leakage(lambda x: np.cumsum(x, axis=1), x).memory_horizon is None


def test_identity_error_matches_a_hand_calculation():
    x = np.array([[[0.0, 10.0], [2.0, 30.0]]])  # variances 1 and 100
    np.testing.assert_allclose(
        zoo.metrics.identity_error(lambda x: x + np.array([1.0, 5.0]), x), (1 + 0.25) / 2
    )
    assert zoo.metrics.identity_error(lambda x: x[:, -1], np.arange(6.0).reshape(3, 2, 1)) == 0
    with pytest.raises(DataError, match="must vary"):
        zoo.metrics.identity_error(lambda x: x, np.ones((2, 3, 1)))


def test_identity_error_of_last_step_output_uses_the_last_real_step():
    x = np.array([[[1.0], [2.0], [-9.0]], [[5.0], [7.0], [9.0]]])
    mask = x[..., 0] != -9
    target = np.array([[2.0], [9.0]])
    assert zoo.metrics.identity_error(lambda x: target, x, mask=mask) == 0


def test_state_leakage_callback_logs_floats_for_early_stopping():
    x = white(0, rows=48, steps=10, features=1).astype("float32")
    model = zoo.get("simple_rnn_identity")
    zoo.adapt(model, x)
    model.compile("adam", "mse")
    callback = zoo.callbacks.StateLeakage(x)
    stopping = keras.callbacks.EarlyStopping(
        "val_identity_cost", mode="min", min_delta=10, patience=2
    )
    history = model.fit(x, x, epochs=9, verbose=0, callbacks=[callback, stopping]).history
    assert len(history["val_identity_cost"]) == 3
    np.testing.assert_allclose(
        history["val_identity_cost"][-1],
        zoo.metrics.identity_error(model, x) + zoo.leakage(model, x).index,
        rtol=1e-6,
    )
    assert all(isinstance(value, float) for value in history["val_state_leakage"])
    copy.deepcopy(zoo.callbacks.StateLeakage(x))  # KerasTuner copies callbacks for every trial


def test_state_leakage_callback_logs_nan_for_a_diverged_model():
    x = white(0, rows=8, steps=5, features=1).astype("float32")
    model = zoo.get("simple_rnn_identity", normalize=False)
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    callback = zoo.callbacks.StateLeakage(x)
    callback.set_model(model)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert np.isnan(logs["val_state_leakage"])
    assert np.isnan(logs["val_identity_cost"])


def test_state_leakage_callback_raises_for_mismatched_rows():
    x = white(0, rows=8, steps=5, features=2).astype("float32")
    callback = zoo.callbacks.StateLeakage(x)
    callback.set_model(zoo.get("simple_rnn_identity", features=3))
    with pytest.raises(DataError, match=r"\(batch, any, 3\)"):
        callback.measure()
    for arguments, message in (
        ({"x": x.astype(str)}, "of numbers"),
        ({"x": x, "max_rows": 1}, "max_rows"),
        ({"x": x, "mask": np.ones((8, 4), bool)}, "mask"),
    ):
        with pytest.raises((ArgumentError, DataError), match=message):
            zoo.callbacks.StateLeakage(**arguments)


@pytest.mark.parametrize("word_dropout", [0.0, 0.1])
def test_token_ids_outside_the_vocabulary_raise(word_dropout):
    """Keras reads -1 as the last token, and some backends read large ids as padding."""
    options = {"vocabulary_size": 5, "classes": 2, "units": 3, "word_dropout": word_dropout}
    model = zoo.get("gru_tagger", **options)
    x = np.random.default_rng(0).integers(0, 5, (6, 4))
    index = zoo.leakage(model, x, resamples=0).index
    assert zoo.leakage(model, x.astype("float32"), resamples=0).index == index
    for wrong in (x - 1, x + 1, x + 0.5):
        for measure in (zoo.leakage, zoo.metrics.identity_error, zoo.audit):
            with pytest.raises(DataError, match="ints from 0 to 4"):
                measure(model, wrong)
    with pytest.raises(DataError, match="shape that the model expects"):
        zoo.leakage(model, x[..., None])
    layer = keras.layers.Dense(2)
    layer.input_dim = 3  # an attribute of custom layers too, not only of Embedding
    inputs = keras.Input((None, 3))
    zoo.leakage(keras.Model(inputs, layer(inputs)), white(0, rows=8, steps=4) - 9, resamples=0)


def test_state_leakage_callback_logs_no_identity_error_for_other_output_shapes():
    x = white(0, rows=8, steps=5, features=2).astype("float32")
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, keras.layers.Dense(5)(ops.mean(inputs, axis=1)))
    callback = zoo.callbacks.StateLeakage(x)
    callback.set_model(model)
    assert set(callback.measure()) == {"state_leakage"}


def test_anomaly_score_has_more_leakage_than_its_model():
    leaky = lambda x: x + 0.05 * np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # noqa: E731
    x = white(0, rows=512, features=1)
    model, score = (
        zoo.leakage(leaky, x),
        zoo.leakage(zoo.diagnostics.anomaly_score(leaky, x), x),
    )
    assert model.index < 0.01
    assert score.index > 0.9
