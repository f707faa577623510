"""The scoring rule of the Numenta Anomaly Benchmark, against cases worked by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import nab

# 2 / (1 + e^(5 x)) - 1, by hand: at -1, -0.5, -0.1 and 0.5.
AT_1, AT_HALF, AT_TENTH = 0.9866143, 0.8482836, 0.2449187
ROWS = 1000  # of which 150 are for training


def score(*detections, windows=((500, 509),), rows=ROWS):
    return nab.score_file(detections, windows, rows)


def test_sigma_falls_from_1_through_0_to_minus_1():
    np.testing.assert_allclose(nab.sigma(-1), AT_1, rtol=1e-6)
    np.testing.assert_allclose(nab.sigma(-0.5), AT_HALF, rtol=1e-6)
    np.testing.assert_allclose(nab.sigma(-0.1), AT_TENTH, rtol=1e-6)
    np.testing.assert_allclose([nab.sigma(0), nab.sigma(9)], [0, -1], atol=1e-12)


def test_left_edge_of_a_window_earns_1_and_nothing_said_loses_1():
    np.testing.assert_allclose(score(500), 1)
    np.testing.assert_allclose(score(), -1)


def test_right_edge_earns_what_its_last_row_is_worth():
    np.testing.assert_allclose(score(509), AT_TENTH / AT_1, rtol=1e-6)


def test_middle_earns_by_how_much_of_the_window_is_left():
    np.testing.assert_allclose(score(505), AT_HALF / AT_1, rtol=1e-6)


def test_earliest_detection_counts_and_later_ones_add_nothing():
    np.testing.assert_allclose(score(507, 505, 509), score(505))


def test_detection_before_any_window_costs_its_full_weight():
    np.testing.assert_allclose(score(499, 500), 1 - 0.11)
    np.testing.assert_allclose(score(200), -1 - 0.11)


def test_detection_shortly_after_a_window_costs_little_and_far_away_all():
    # The window spans 10 rows; x is the distance from its end over 9.
    near, far = 0.11 * (2 / (1 + np.exp(5 / 9)) - 1), -0.11
    np.testing.assert_allclose(score(500, 510), 1 + near)
    np.testing.assert_allclose(score(500, 509 + 27), 1 + 0.11 * (2 / (1 + np.exp(15)) - 1))
    np.testing.assert_allclose(score(500, 509 + 28), 1 + far, rtol=0, atol=1e-15)


def test_every_detection_outside_costs():
    np.testing.assert_allclose(score(200, 201, 202, 500), 1 - 3 * 0.11)


def test_several_windows_add_up_and_each_false_alarm_belongs_to_the_window_before_it():
    windows = ((300, 309), (500, 519), (800, 809))
    found = score(200, 300, 311, 500, 528, windows=windows)
    after_first = 0.11 * (2 / (1 + np.exp(5 * 2 / 9)) - 1)
    after_second = 0.11 * (2 / (1 + np.exp(5 * 9 / 19)) - 1)
    np.testing.assert_allclose(found, -0.11 + 1 + after_first + 1 + after_second - 1)


def test_training_rows_are_not_scored():
    assert nab.training_rows(ROWS) == 150
    assert nab.training_rows(4032) == 604
    assert nab.training_rows(5000) == nab.training_rows(22695) == 750
    np.testing.assert_allclose(score(0, 149, 500), 1)
    np.testing.assert_allclose(score(150, 500), 1 - 0.11)


@pytest.mark.parametrize(("total", "expected"), [(-4, 0), (4, 100), (0, 50), (-8, -50)])
def test_normalized_is_0_for_silence_and_100_for_perfection(total, expected):
    np.testing.assert_allclose(nab.normalized(total, 4), expected)


def test_windows_are_rows_between_their_stamps_and_stamps_may_repeat(tmp_path):
    times = pd.date_range("2014-01-01", periods=20, freq="5min").repeat([1] * 10 + [2] + [1] * 9)
    stamps = [["2014-01-01 00:45:00.000000", "2014-01-01 00:55:00.000000"]]
    (tmp_path / "combined_windows.json").write_text(json.dumps({"a/b.csv": stamps}))
    found = nab.read_windows(tmp_path, "a/b.csv", pd.Series(times))
    assert found == [(9, 12)]
