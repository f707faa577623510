"""Scoring of the Numenta Anomaly Benchmark against values by hand, and causality of the alarms."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.nab import alarms, generated_anomalies, scoring, seasons

# 2 / (1 + e^(5 x)) - 1, by hand: at -1, -0.5, -0.1 and 0.5.
AT_1, AT_HALF, AT_TENTH = 0.9866143, 0.8482836, 0.2449187
ROWS = 1000  # of which 150 are for training


def score(*detections, windows=((500, 509),), rows=ROWS):
    return scoring.score_file(detections, windows, rows)


def test_sigma_falls_from_1_through_0_to_minus_1():
    np.testing.assert_allclose(scoring.sigma(-1), AT_1, rtol=1e-6)
    np.testing.assert_allclose(scoring.sigma(-0.5), AT_HALF, rtol=1e-6)
    np.testing.assert_allclose(scoring.sigma(-0.1), AT_TENTH, rtol=1e-6)
    np.testing.assert_allclose([scoring.sigma(0), scoring.sigma(9)], [0, -1], atol=1e-12)


def test_left_edge_of_a_window_scores_1_and_no_detection_minus_1():
    np.testing.assert_allclose(score(500), 1)
    np.testing.assert_allclose(score(), -1)


def test_right_edge_of_a_window_scores_the_value_of_its_last_row():
    np.testing.assert_allclose(score(509), AT_TENTH / AT_1, rtol=1e-6)


def test_middle_of_a_window_scores_by_the_remaining_rows():
    np.testing.assert_allclose(score(505), AT_HALF / AT_1, rtol=1e-6)


def test_only_the_earliest_detection_of_a_window_counts():
    np.testing.assert_allclose(score(507, 505, 509), score(505))


def test_detection_before_the_first_window_has_the_full_penalty():
    np.testing.assert_allclose(score(499, 500), 1 - 0.11)
    np.testing.assert_allclose(score(200), -1 - 0.11)


def test_penalty_of_a_detection_after_a_window_increases_with_distance():
    # The window spans 10 rows; x is the distance from its end over 9.
    near, far = 0.11 * (2 / (1 + np.exp(5 / 9)) - 1), -0.11
    np.testing.assert_allclose(score(500, 510), 1 + near)
    np.testing.assert_allclose(score(500, 509 + 27), 1 + 0.11 * (2 / (1 + np.exp(15)) - 1))
    np.testing.assert_allclose(score(500, 509 + 28), 1 + far, rtol=0, atol=1e-15)


def test_every_false_alarm_lowers_the_score():
    np.testing.assert_allclose(score(200, 201, 202, 500), 1 - 3 * 0.11)


def test_window_scores_are_summed_and_a_false_alarm_is_scored_by_the_preceding_window():
    windows = ((300, 309), (500, 519), (800, 809))
    result = score(200, 300, 311, 500, 528, windows=windows)
    after_first = 0.11 * (2 / (1 + np.exp(5 * 2 / 9)) - 1)
    after_second = 0.11 * (2 / (1 + np.exp(5 * 9 / 19)) - 1)
    np.testing.assert_allclose(result, -0.11 + 1 + after_first + 1 + after_second - 1)


def test_training_rows_are_not_scored():
    assert scoring.training_rows(ROWS) == 150
    assert scoring.training_rows(4032) == 604
    assert scoring.training_rows(5000) == scoring.training_rows(22695) == 750
    np.testing.assert_allclose(score(0, 149, 500), 1)
    np.testing.assert_allclose(score(150, 500), 1 - 0.11)


@pytest.mark.parametrize(("total", "expected"), [(-4, 0), (4, 100), (0, 50), (-8, -50)])
def test_normalized_score_is_0_without_detections_and_100_for_perfect_ones(total, expected):
    np.testing.assert_allclose(scoring.normalized(total, 4), expected)


def test_windows_are_the_rows_between_timestamps_which_may_repeat(tmp_path):
    times = pd.date_range("2014-01-01", periods=20, freq="5min").repeat([1] * 10 + [2] + [1] * 9)
    stamps = [["2014-01-01 00:45:00.000000", "2014-01-01 00:55:00.000000"]]
    for folder in ("labels", "data/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps({"a/b.csv": stamps}))
    table = pd.DataFrame({"timestamp": times, "value": np.arange(21)})
    table.to_csv(tmp_path / "data" / "a" / "b.csv", index=False)
    result = scoring.read(tmp_path, "a/b.csv")
    assert result.windows == [(9, 12)]
    assert (result.name, len(result.values), result.train) == ("b", 21, 3)


# The rule is causal, and its threshold depends on training rows alone.


def record(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=rows), 5 + rng.normal(size=rows).cumsum() / 30


def test_scores_and_threshold_do_not_depend_on_later_rows():
    residuals, values = record()
    changed_residuals, changed_values = residuals.copy(), values.copy()
    for array in (changed_residuals, changed_values):
        array[2000:] += 50
    arguments = residuals, values, values, 600
    changed_arguments = changed_residuals, changed_values, changed_values, 600
    for name, statistic in alarms.statistics(*arguments).items():
        changed = alarms.statistics(*changed_arguments)[name]
        np.testing.assert_array_equal(statistic[:2000], changed[:2000], err_msg=name)
    scores, changed = alarms.scores(*arguments), alarms.scores(*changed_arguments)
    np.testing.assert_array_equal(scores[:2000], changed[:2000])
    assert changed[2000] > alarms.threshold(changed, 600) > scores[2000]
    assert alarms.threshold(scores, 600) == alarms.threshold(changed, 600)


def test_season_depends_on_earlier_rows_and_is_detected_in_training_rows():
    times = pd.date_range("2024-01-01", periods=2000, freq="30min")
    noise = 0.1 * np.random.default_rng(0).normal(size=2000)
    hour, weekend = np.arange(2000) % 48 / 2, np.arange(2000) // 48 % 7 >= 5
    daily = np.sin(hour / 24 * 2 * np.pi)
    assert seasons.find_period(daily + noise, times) == pd.Timedelta(days=1)
    assert seasons.find_period(daily * (1 + weekend) + noise, times) == pd.Timedelta(days=7)
    assert seasons.find_period(noise, times) is None
    changed = daily.copy()
    changed[1000:] = 9
    season, after_change = (
        seasons.earlier(x, times, pd.Timedelta(days=1)) for x in (daily, changed)
    )
    np.testing.assert_array_equal(season[:1048], after_change[:1048])
    np.testing.assert_array_equal(np.isnan(season), np.arange(2000) < 48)
    np.testing.assert_allclose(season[48:], daily[48:], atol=1e-12)


def test_season_uses_timestamps_with_gaps_and_decreases():
    times = pd.date_range("2024-01-01", periods=400, freq="1h").delete(slice(100, 130))
    hours = times.hour.to_numpy().astype(float)
    result = seasons.earlier(hours, times, pd.Timedelta(days=1))
    np.testing.assert_array_equal(result[130:], hours[130:])
    stamps = times.to_numpy().copy()
    stamps[200] = stamps[190]
    assert np.isfinite(seasons.earlier(hours, pd.DatetimeIndex(stamps), pd.Timedelta(days=1))[200])


def test_alarm_is_the_first_row_above_the_threshold_after_quiet_rows():
    above = np.zeros(1000, bool)
    above[[10, 200, 201, 290, 389, 490, 700]] = True
    np.testing.assert_array_equal(alarms.alarms(above, 100, quiet=100), [200, 490, 700])


def test_generated_anomalies_are_reproducible_and_have_scored_windows():
    for family in generated_anomalies.FAMILIES:
        assert generated_anomalies.record(family, "none", 0).windows == []
        anomaly = generated_anomalies.FAMILIES[family][3][-1]
        record = generated_anomalies.record(family, anomaly, 0)
        again = generated_anomalies.record(family, anomaly, 0)
        np.testing.assert_array_equal(record.values, again.values)
        ((first, last),) = record.windows
        assert record.train <= first < last < len(record.values)
