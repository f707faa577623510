"""Anomaly scores: residuals, overlapping windows, thresholds and the report."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.data import TimeSeries
from keras_seqzoo.diagnostics.anomaly import overlap
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.registry.search_space import Float


def readings(steps=400, features=2, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, features))


def shrinking(x):
    """An identity model with an error of 10 %."""
    return 0.9 * x


def persistence(x):
    """A forecaster that repeats the last reading."""
    return x


def mean_of_window(x):
    """A reconstruction of every reading by the mean of its window."""
    return np.broadcast_to(x.mean(axis=1, keepdims=True), x.shape)


def scored(model, x, x_train=None, **options):
    return zoo.anomaly(model, x, readings(seed=9) if x_train is None else x_train, **options)


def test_anomaly_scores_match_anomaly_score_on_the_windows():
    x, x_train = readings(), readings(seed=1)
    report = zoo.anomaly(shrinking, x, x_train, kind="identity", sequence_length=20)
    score = zoo.diagnostics.anomaly_score(
        shrinking, zoo.data.make_windows(x_train, sequence_length=20).astype("float64")
    )
    expected = score(zoo.data.make_windows(x, sequence_length=20).astype("float64")).ravel()
    np.testing.assert_allclose(report.scores, expected, rtol=1e-5)


def test_identity_score_depends_on_its_own_reading_only():
    x = readings()
    changed = x.copy()
    changed[:200] += 50
    original, shifted = (scored(shrinking, series, kind="identity") for series in (x, changed))
    np.testing.assert_array_equal(original.scores[200:], shifted.scores[200:])
    assert original.leakage.index == 0


@pytest.mark.parametrize("stride", [1, 7, 20])
def test_forecast_residual_is_that_of_the_next_reading_for_any_stride(stride):
    x, x_train = readings(), readings(seed=1)
    report = scored(
        persistence, x, x_train, kind="forecasting", sequence_length=20, sequence_stride=stride
    )
    unit = np.sqrt((np.diff(x_train, axis=0) ** 2).mean(axis=0))
    if stride < 20:  # windows that do not overlap have no forecast of their first reading
        np.testing.assert_allclose(report.residuals[1:], np.diff(x, axis=0) / unit, rtol=1e-5)
        np.testing.assert_array_equal(np.isnan(report.scores), np.arange(400) == 0)
    else:
        np.testing.assert_array_equal(np.isnan(report.scores), np.arange(400) % 20 == 0)
    assert not report.flagged[0]


def test_score_is_the_root_mean_square_of_residuals_in_training_units():
    x, x_train = readings(features=3), readings(features=3, seed=1) * [1, 10, 100]
    report = zoo.anomaly(shrinking, x, x_train, kind="identity")
    unit = np.sqrt(((0.1 * x_train) ** 2).mean(axis=0))
    np.testing.assert_allclose(report.residuals, 0.1 * x / unit, rtol=1e-6)
    np.testing.assert_allclose(report.scores, np.sqrt(((0.1 * x / unit) ** 2).mean(axis=1)))


def test_threshold_is_the_quantile_of_the_training_scores():
    x_train = readings(seed=1)
    for x in (readings(), 100 + readings()):
        report = scored(shrinking, x, x_train, kind="identity", quantile=0.9)
        np.testing.assert_allclose(report.threshold, np.quantile(report.train_scores, 0.9))
        np.testing.assert_allclose(report.threshold, scored(shrinking, x_train, x_train,
                                   kind="identity", quantile=0.9).threshold)  # fmt: skip
    assert report.flagged.all()
    train = scored(shrinking, x_train, x_train, kind="identity", quantile=0.9)
    assert train.flagged.sum() == 40


def test_combine_mean_averages_overlapping_windows():
    x = readings(steps=6, features=1)
    combined = overlap.combine_windows(
        overlap.as_segments("x", x),
        lambda w: w - mean_of_window(w),
        sequence_length=4,
        sequence_stride=2,
        combine="mean",
    )
    first, second = x[:4].mean(), x[2:].mean()
    outputs = [first, first, (first + second) / 2, (first + second) / 2, second, second]
    np.testing.assert_allclose(combined[:, 0], x[:, 0] - outputs)


def test_combine_longest_takes_the_window_with_the_longest_past():
    series = overlap.as_segments("x", np.arange(7.0))
    step = lambda w: np.broadcast_to(np.arange(w.shape[1])[None, :, None], w.shape) * 1.0  # noqa: E731
    combined = overlap.combine_windows(
        series, step, sequence_length=4, sequence_stride=2, combine="longest"
    )
    np.testing.assert_array_equal(combined[:, 0], [0, 1, 2, 3, 2, 3, 3])


def test_reconstruction_with_combine_longest_and_stride_1_is_causal():
    x = readings()
    changed = x.copy()
    changed[300:] += 50
    options = {
        "kind": "reconstruction",
        "sequence_length": 10,
        "sequence_stride": 1,
        "combine": "longest",
    }
    original, shifted = (scored(mean_of_window, series, **options) for series in (x, changed))
    np.testing.assert_allclose(original.scores[:300], shifted.scores[:300])
    original, shifted = (
        scored(mean_of_window, series, kind="reconstruction") for series in (x, changed)
    )
    assert np.abs(original.scores[:300] - shifted.scores[:300]).max() > 0.1


def test_windows_never_span_gaps_and_cover_every_reading():
    x = readings(steps=130)
    record = TimeSeries(values=x, columns=("oil", "air"), starts=(0, 40, 47))
    report = scored(mean_of_window, record, kind="reconstruction", sequence_length=20)
    parts = [scored(mean_of_window, part, kind="reconstruction", sequence_length=20)
             for part in record.segments()]  # fmt: skip
    np.testing.assert_allclose(report.scores, np.concatenate([part.scores for part in parts]))
    forecast = scored(persistence, record, kind="forecasting", sequence_length=20)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(forecast.scores)), [0, 40, 47])


def test_three_dimensional_input_is_one_segment_per_window():
    x = readings(steps=60)
    report = scored(persistence, x.reshape(3, 20, 2), kind="forecasting", sequence_length=20)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(report.scores)), [0, 20, 40])


def test_padding_has_no_score():
    x = readings(steps=100).astype("float32")
    x[30:40] = -1
    model = zoo.get("simple_rnn_identity", features=2, mask_value=-1.0)
    zoo.adapt(model, x[None, :30])
    report = zoo.anomaly(model, x, x, sequence_length=20)
    np.testing.assert_array_equal(np.isnan(report.scores), (np.arange(100) // 10) == 3)


def test_kind_defaults_to_the_task_of_the_model(tmp_path):
    x = readings(steps=100).astype("float32")
    for name, kind in (("simple_rnn_identity", "identity"), ("gru_forecaster", "forecasting")):
        model = zoo.get(name, features=2)
        zoo.adapt(model, x[None])
        assert model.task == kind
        assert zoo.anomaly(model, x, x).kind == kind
        model.save(tmp_path / "model.keras")
        for load in (zoo.load, keras.saving.load_model):
            assert zoo.anomaly(load(tmp_path / "model.keras"), x, x).kind == kind
    for model in (shrinking, zoo.get("gru_tagger", features=2)):
        with pytest.raises(ArgumentError, match="kind"):
            zoo.anomaly(model, x, x)


def test_kind_is_read_from_the_task_attribute_of_any_model():
    class Forecaster:
        task = "forecasting"

        def __call__(self, x):
            return x

    report = zoo.anomaly(Forecaster(), readings(steps=100), readings(seed=9))
    assert report.kind == "forecasting"


def test_score_leakage_is_zero_for_identity_and_large_for_a_forecaster():
    record = zoo.data.synthetic_readings(steps=2000)
    train, later = record.split(0.6, 0.4)
    alone, ahead = (
        zoo.anomaly(model, later, train, kind=kind)
        for model, kind in ((shrinking, "identity"), (persistence, "forecasting"))
    )
    assert alone.leakage.index == 0
    assert ahead.leakage.index > 0.1
    score = zoo.diagnostics.anomaly_score(
        persistence, zoo.data.make_windows(train), kind="forecasting"
    )
    x = zoo.data.make_windows(later)
    np.testing.assert_allclose(ahead.leakage.index, zoo.leakage(score, x).index, rtol=0.02)


def test_anomaly_report_prints_tabulates_and_serializes():
    record = zoo.data.synthetic_readings(steps=1000, interval="1h")
    train, later = record.split(0.5, 0.5)
    report = zoo.anomaly(shrinking, later, train, kind="identity", quantile=0.99)
    assert report.flagged.any()
    assert "0.99 quantile of 500 training readings" in str(report)
    assert str(later.times[report.episodes[0][0]]) in str(report)
    frame = report.to_frame()
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert frame.columns.tolist()[:2] == ["score", "flagged"]
    np.testing.assert_array_equal(frame["flagged"], report.flagged)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["flagged"] == np.flatnonzero(report.flagged).tolist()
    assert plain["times"][0] == str(later.times[0])


def test_episodes_are_runs_of_flagged_readings():
    x = np.zeros(60)
    x[[0, 1, 5, 59]] = 9
    report = zoo.anomaly(shrinking, x, readings(features=1), kind="identity", sequence_length=10)
    assert report.episodes == [(0, 1), (5, 5), (59, 59)]
    quiet = zoo.anomaly(
        shrinking, x[10:50], readings(features=1), kind="identity", sequence_length=10
    )
    assert quiet.episodes == []
    assert "Flagged: 0 of 40 readings" in str(quiet)


def test_plot_breaks_at_gaps_and_accepts_labels_as_rows_or_timestamps():
    x = readings(steps=60)
    times = pd.date_range("2024-01-01", periods=60, freq="h")
    record = TimeSeries(values=x, columns=("oil", "air"), times=times, starts=(0, 30))
    report = scored(shrinking, record, kind="identity", sequence_length=10)
    ax = report.plot(labels=[(3, 9), ("2024-01-02 12:00", "2024-01-02 15:00")])
    solid = [line for line in ax.lines if line.get_linewidth() == 0.7]
    assert [len(line.get_xdata()) for line in solid] == [30, 30]
    assert len(ax.patches) == 2
    by_row = scored(shrinking, x, kind="identity").plot(labels=[(3, 9)])
    assert by_row.get_xlabel() == "reading"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "forecast"}, "forecasting"),
        ({"quantile": 1}, "quantile"),
        ({"sequence_length": 0}, "sequence_length"),
        ({"sequence_stride": 0}, "sequence_stride"),
        ({"sequence_stride": 51}, "no score"),
        ({"combine": "median"}, "combine"),
        ({"alone": True, "kind": "forecasting"}, "alone"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ArgumentError, match=message):
        scored(shrinking, readings(), **{"kind": "identity"} | options)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (shrinking, np.zeros((0, 2)), "non-empty"),
        (shrinking, np.zeros((5, 2, 2, 2)), "steps, features"),
        (shrinking, np.full((60, 2), "a"), "dtype"),
        (shrinking, np.full((60, 2), np.nan), "finite"),
        (shrinking, readings(features=3), "features of `x_train`"),
        (lambda x: x[..., :1], readings(), "reconstruct its input"),
    ],
)
def test_invalid_readings_raise(model, x, message):
    with pytest.raises(DataError, match=message):
        scored(model, x, kind="identity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((4, 5))}, "`x` must be windows"),
        ({"x": [[[1.0]], [[1.0], [2.0]]]}, "one array"),
        ({"x": np.full((4, 5, 1), "a")}, "`x` must be real numbers"),
        ({"x": np.full((4, 5, 1), np.nan)}, "`x` must be finite"),
        ({"validation_data": np.zeros((4, 6, 2))}, "features of `x`"),
        ({"verbose": "loud"}, "`verbose`"),
        ({"learning_rate": 0}, "`learning_rate`"),
    ],
)
def test_train_on_windows_raises_for_invalid_arguments(change, message):
    windows = np.random.default_rng(0).normal(size=(4, 5, 1))
    arguments = {"x": windows, "validation_data": windows} | change
    with pytest.raises((ArgumentError, DataError), match=message):
        zoo.train("simple_rnn_identity", **arguments)


def test_training_segments_of_one_step_raise_for_a_forecaster():
    with pytest.raises(DataError, match="longer segments"):
        scored(persistence, readings(), readings()[:, None], kind="forecasting")


def test_registered_reconstruction_entry_sets_kind_combine_and_stride():
    assert zoo.anomaly is zoo.diagnostics.anomaly
    assert zoo.__all__ == sorted(zoo.__all__)

    @zoo.register(
        "window_autoencoder", task="reconstruction", summary="For a test.", causal=True,
        inputs="(b, t, f)",
        outputs="(b, t, f)", space={"learning_rate": Float(1e-3, 1e-1, default=1e-2)},
    )  # fmt: skip
    def window_autoencoder(*, features: int = 1, name: str = "window_autoencoder"):
        inputs = keras.Input((None, features))
        x = zoo.layers.SimpleRNN(2, return_sequences=True, name="encoder")(inputs)
        return keras.Model(inputs, keras.layers.Dense(features, name="decoder")(x), name=name)

    try:
        x = zoo.data.make_windows(readings(steps=200), sequence_length=20)
        model = zoo.train(
            "window_autoencoder", x[:8], validation_data=x[8:], epochs=2, verbose=0
        ).model
        report = zoo.anomaly(model, x[8:], x[:8], sequence_length=20)
    finally:
        zoo.unregister("window_autoencoder")
    assert (report.kind, report.combine, report.sequence_stride) == ("reconstruction", "mean", 10)
    assert np.isfinite(report.scores).all()
