"""Time series: reading from files, splitting in time order, windows, and synthetic readings."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_seqzoo.data import (
    TimeSeries,
    make_windows,
    read_time_series,
    sensor_fault,
    synthetic_readings,
    window_positions,
)
from keras_seqzoo.errors import ArgumentError, DataError

# All hypothesis examples of a test share one folder and overwrite the same file.
CHECKS = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def time_series(draw, min_steps=1):
    """Time series whose values are their row numbers, with segments anywhere."""
    steps = draw(st.integers(min_steps, 60))
    starts = draw(st.sets(st.integers(1, steps - 1))) if steps > 1 else set()
    values = np.arange(steps, dtype=float)[:, None] * [1, 100]
    times = pd.date_range("2024-01-01", periods=steps, freq="5min")
    return TimeSeries(values=values, columns=("a", "b"), times=times, starts=(0, *sorted(starts)))


@pytest.fixture
def csv(tmp_path):
    """Returns a function that writes a text as CSV and returns its path."""

    def write(text, name="pump.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def has_note(readings, text):
    """Whether one of the notes contains `text`."""
    return any(text in note for note in readings.notes)


# ---------------------------------------------------------------- windows


@CHECKS
@given(series=time_series(), length=st.integers(1, 12), stride=st.none() | st.integers(1, 15))
def test_windows_are_consecutive_rows_of_one_segment_in_time_order(series, length, stride):
    # Every window that fits into a segment, from the definition.
    expected, first = [], 0
    for segment in series.segments():
        for begin in range(0, len(segment) - length + 1, stride or length):
            expected.append(first + begin)
        first += len(segment)
    if not expected:
        with pytest.raises(DataError, match="longest segment"):
            make_windows(series, sequence_length=length, sequence_stride=stride)
        return
    cut = make_windows(series, sequence_length=length, sequence_stride=stride)
    rows = np.array(expected)[:, None] + np.arange(length)
    np.testing.assert_array_equal(cut, rows[..., None] * [1, 100])
    np.testing.assert_array_equal(
        window_positions(series, sequence_length=length, sequence_stride=stride), np.array(expected)
    )
    np.testing.assert_equal((cut.dtype, cut.flags.c_contiguous), (np.dtype("float32"), True))


def test_windows_of_an_array_equal_those_of_one_segment():
    values = np.arange(10.0)
    series = TimeSeries(values=values, columns=("x",))
    np.testing.assert_array_equal(
        make_windows(values, sequence_length=3), make_windows(series, sequence_length=3)
    )
    np.testing.assert_equal(make_windows(values, sequence_length=3).shape, (3, 3, 1))
    np.testing.assert_equal(make_windows(np.ones((100, 2))).shape, (2, 50, 2))


def test_windows_are_a_copy():
    series = TimeSeries(values=np.zeros((6, 1)), columns=("x",))
    make_windows(series, sequence_length=3)[:] = 7
    np.testing.assert_array_equal(series.values, np.zeros((6, 1)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 4)), "windows already"),
        (np.float64(3), "readings"),
        (np.zeros((0, 2)), "at least one step"),
        (np.array([1, np.nan]), "row 1"),
        (np.array([1.0, 1e300]), "float32|3.4e38"),
        (np.array(["a", "b"]), "real numbers"),
        (np.array([1j, 2]), "real numbers"),
        (np.array([True, False]), "real numbers"),
        ([[1.0], [2.0, 3.0]], "equal length"),
    ],
)
def test_make_windows_rejects_invalid_arrays(values, message):
    with pytest.raises(DataError, match=message):
        make_windows(values, sequence_length=1)


@pytest.mark.parametrize(
    "option",
    [
        {"sequence_length": 0},
        {"sequence_length": 2.0},
        {"sequence_stride": 0},
        {"sequence_stride": True},
    ],
)
def test_make_windows_rejects_options_that_are_not_positive_ints(option):
    with pytest.raises(ArgumentError, match=next(iter(option))):
        make_windows(np.zeros(100), **option)


def test_make_windows_error_has_the_longest_segment_and_the_length():
    series = TimeSeries(values=np.zeros((7, 1)), columns=("x",), starts=(0, 3))
    with pytest.raises(DataError, match=r"at most 4.*length=5"):
        make_windows(series, sequence_length=5)


# ---------------------------------------------------------------- splits


@CHECKS
@given(series=time_series(min_steps=10), share=st.floats(0.2, 0.8))
def test_concatenated_parts_of_a_split_equal_the_time_series(series, share):
    parts = series.split(share, 1 - share)
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), series.values)
    np.testing.assert_array_equal(
        np.concatenate([part.times for part in parts]), series.times.to_numpy()
    )
    cut = len(parts[0])
    rejoined = {*parts[0].starts, *(start + cut for start in parts[1].starts)}
    np.testing.assert_equal(rejoined, {*series.starts, cut})


def test_split_has_the_fractions_and_keeps_columns_and_notes():
    series = TimeSeries(values=np.zeros((10, 1)), columns=("x",), notes=("Noted.",), source="here")
    parts = series.split(0.6, 0.2, 0.2)
    np.testing.assert_equal([len(part) for part in parts], [6, 2, 2])
    np.testing.assert_equal({part.columns + part.notes[:1] for part in parts}, {("x", "Noted.")})
    np.testing.assert_equal(parts[1].notes[1], "This is part 2 of 3: rows 6 to 7.")


@pytest.mark.parametrize("fractions", [(), (0.5,), (0.5, 0.6), (1.5, -0.5), ("1",), (0.0, 1.0)])
def test_split_rejects_fractions_that_do_not_sum_to_1(fractions):
    with pytest.raises(ArgumentError, match="sum to 1"):
        TimeSeries(values=np.zeros((10, 1)), columns=("x",)).split(*fractions)


def test_split_rejects_an_empty_part():
    with pytest.raises(DataError, match="every part"):
        TimeSeries(values=np.zeros((2, 1)), columns=("x",)).split(0.1, 0.9)


# ---------------------------------------------------------------- readings


def test_time_series_values_are_read_only():
    values = np.zeros((3, 1))
    series = TimeSeries(values=values, columns=("x",))
    with pytest.raises(ValueError, match="read-only"):
        series.values[0] = 1
    values[0] = 1  # the array of the caller stays writable
    np.testing.assert_equal((len(series), series.features, series.values[0, 0]), (3, 1, 0.0))


@pytest.mark.parametrize(
    "parts",
    [
        {"columns": ("x", "y")},
        {"starts": ()},
        {"starts": (1,)},
        {"starts": (0, 2, 2)},
        {"starts": (0, 3)},
        {"times": pd.date_range("2024-01-01", periods=2)},
        {"values": np.array([[1.0], [np.nan], [2.0]])},
    ],
)
def test_time_series_rejects_inconsistent_fields(parts):
    with pytest.raises(DataError, match=next(iter(parts))):
        TimeSeries(**{"values": np.zeros((3, 1)), "columns": ("x",), **parts})


# ---------------------------------------------------------------- round trips

ARRAYS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=FINITE
)


@CHECKS
@given(values=ARRAYS, header=st.booleans(), kind=st.sampled_from([".csv", ".tsv", ".csv.gz"]))
def test_read_time_series_round_trips_finite_arrays_in_text_files(tmp_path, values, header, kind):
    path = tmp_path / f"values{kind}"
    table = pd.DataFrame(values, columns=[f"c{i}" for i in range(values.shape[1])])
    table.to_csv(path, index=False, header=header, sep="\t" if kind == ".tsv" else ",")
    series = read_time_series(path)
    np.testing.assert_array_equal(series.values, values)
    names = table.columns if header else map(str, range(values.shape[1]))
    np.testing.assert_equal((series.columns, series.starts), (tuple(names), (0,)))
    np.testing.assert_equal(has_note(series, "no header"), not header)


@CHECKS
@given(values=ARRAYS, kind=st.sampled_from([".npy", ".parquet"]))
def test_read_time_series_round_trips_finite_arrays_in_npy_and_parquet(tmp_path, values, kind):
    path = tmp_path / f"values{kind}"
    if kind == ".npy":
        np.save(path, values)
    else:
        pd.DataFrame(values, columns=[f"c{i}" for i in range(values.shape[1])]).to_parquet(path)
    np.testing.assert_array_equal(read_time_series(path).values, values)


def test_read_time_series_reads_one_axis_as_one_feature(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(4, dtype="int16"))
    series = read_time_series(tmp_path / "one.npy")
    np.testing.assert_array_equal(series.values, [[0.0], [1], [2], [3]])
    np.testing.assert_equal(series.columns, ("0",))


@CHECKS
@given(data=st.binary(max_size=200), kind=st.sampled_from([".csv", ".tsv", ".csv.gz", ".npy"]))
def test_read_time_series_of_any_bytes_raises_only_data_errors(tmp_path, data, kind):
    path = tmp_path / f"fuzz{kind}"
    path.write_bytes(data)
    try:
        assert np.isfinite(read_time_series(path).values).all()
    except DataError as error:
        assert "Traceback" not in str(error)


@settings(CHECKS, max_examples=150)
@given(text=st.text(alphabet='0123456789-:/. ,"\n\rTZaAM\tnulé', max_size=80))
def test_read_time_series_of_any_table_raises_only_data_errors(tmp_path, text):
    for start in ("", "time,x\n2024-01-01,1\n2024-01-02,2\n"):
        path = tmp_path / "fuzz.csv"
        path.write_bytes((start + text).encode())
        try:
            assert np.isfinite(read_time_series(path).values).all()
        except DataError as error:
            assert "Traceback" not in str(error)


@CHECKS
@given(place=st.integers(0, 2**31), byte=st.integers(0, 255), kept=st.floats(0, 1))
def test_read_time_series_of_damaged_files_raises_only_data_errors(tmp_path, place, byte, kept):
    np.save(tmp_path / "a.npy", np.arange(8.0))
    pd.DataFrame({"x": np.arange(8.0)}).to_parquet(tmp_path / "a.parquet")
    for path in (tmp_path / "a.npy", tmp_path / "a.parquet"):
        data = bytearray(path.read_bytes())
        data[place % len(data)] = byte
        for damaged in (data, data[: int(kept * len(data))]):
            path.write_bytes(damaged)
            try:
                read_time_series(path)
            except DataError as error:
                assert "Traceback" not in str(error)


# ---------------------------------------------------------------- time stamps, computed by hand

UNSORTED = """timestamp,bar,degrees
2024-01-01 00:00:00,1,10
2024-01-01 00:05:00,2,20
2024-01-01 00:15:00,4,40
2024-01-01 00:10:00,3,30
2024-01-01 00:10:00,5,
2024-01-01 00:20:00,6,60
"""


@pytest.mark.parametrize(
    ("duplicates", "expected"), [("mean", [4, 40]), ("first", [3, 30]), ("last", [5, 50])]
)
def test_rows_are_sorted_and_duplicates_merged(csv, duplicates, expected):
    series = read_time_series(csv(UNSORTED.replace(",5,\n", ",5,50\n")), duplicates=duplicates)
    np.testing.assert_array_equal(series.values, [[1, 10], [2, 20], expected, [4, 40], [6, 60]])
    np.testing.assert_array_equal(series.times, pd.date_range("2024-01-01", periods=5, freq="5min"))
    np.testing.assert_equal((series.columns, series.starts), (("bar", "degrees"), (0,)))
    assert has_note(series, "decrease once")
    assert has_note(series, "1 row repeated")


@pytest.mark.parametrize("missing", ["", "NaN", "inf"])
def test_mean_of_duplicates_ignores_missing_values(csv, missing):
    series = read_time_series(csv(UNSORTED.replace(",5,\n", f",5,{missing}\n")))
    np.testing.assert_array_equal(series.values[2], [4, 30])


def csv_at_minutes(minutes, values=None):
    """A CSV text with a reading at each of the minutes."""
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, unit="min")
    return pd.DataFrame({"x": values or range(len(minutes))}, index=times).to_csv()


def test_a_gap_begins_a_new_segment(csv):
    series = read_time_series(csv(csv_at_minutes([0, 5, 10, 15, 60, 65, 72, 77, 85])))
    # 7 minutes is within 1.5 times the median of 5; 8 is not.
    np.testing.assert_equal(series.starts, (0, 4, 8))
    assert has_note(series, "2 gaps were found, the longest 2700 s")
    np.testing.assert_array_equal(
        make_windows(series, sequence_length=4)[..., 0], [[0, 1, 2, 3], [4, 5, 6, 7]]
    )


def test_irregular_time_stamps_have_no_gaps(csv):
    series = read_time_series(csv(csv_at_minutes([0, 1, 30, 32, 90, 200, 207, 500])))
    np.testing.assert_equal(series.starts, (0,))
    assert has_note(series, "varies")


def formatted_times(series):
    return [str(time) for time in series.times]


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-01-30 00:00", "2024-01-31 00:00", "2024-02-01 00:00"],
        ["2024-01-30T00:00:00Z", "2024-01-31T00:00:00Z", "2024-02-01T00:00:00Z"],
        ["2024-01-30T02:00:00+02:00", "2024-01-30T23:00:00-01:00", "2024-02-01T00:00:00+00:00"],
        ["01/30/2024 00:00", "01/31/2024 00:00", "02/01/2024 00:00"],
        ["1/30/2024 12:00 AM", "1/31/2024 12:00 AM", "2/1/2024 12:00 AM"],
        ["30.01.2024", "31.01.2024", "01.02.2024"],
        ["30-Jan-2024", "31-Jan-2024", "01-Feb-2024"],
        ["20240130", "20240131", "20240201"],
        ["1706572800", "1706659200", "1706745600"],
        ["1706572800000", "1706659200000", "1706745600000"],
        ["1706572800.0e9", "1706659200.0e9", "1706745600.0e9"],
    ],
)
def test_time_stamps_are_parsed_in_many_formats(csv, stamps):
    rows = "".join(f"{value},{stamp}\n" for value, stamp in enumerate(stamps))
    series = read_time_series(csv("x,date\n" + rows))
    np.testing.assert_equal(
        formatted_times(series),
        ["2024-01-30 00:00:00", "2024-01-31 00:00:00", "2024-02-01 00:00:00"],
    )
    np.testing.assert_array_equal(series.values, [[0.0], [1], [2]])


def test_ambiguous_day_and_month_are_resolved_by_time_order_with_a_note(csv):
    # With the month first, these would decrease: January 5, February 5, March 5, January 6.
    series = read_time_series(
        csv("date,x\n01/05/2024,1\n02/05/2024,2\n03/05/2024,3\n01/06/2024,4\n")
    )
    np.testing.assert_equal(formatted_times(series)[-1][:10], "2024-06-01")
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3, 4])
    assert has_note(series, "ambiguous")


def test_date_and_time_columns_are_combined(csv):
    series = read_time_series(csv("Date,Time,x\n2024-01-01,23:55,1\n2024-01-02,00:00,2\n"))
    np.testing.assert_equal(formatted_times(series), ["2024-01-01 23:55:00", "2024-01-02 00:00:00"])
    np.testing.assert_equal(series.columns, ("x",))


def test_times_of_day_are_not_time_stamps(csv):
    series = read_time_series(csv("time,x\n23:50,1\n23:55,2\n00:00,3\n"))
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3])
    assert series.times is None
    assert has_note(series, "'time' was left out")


def test_texts_in_the_first_column_are_not_time_stamps(csv):
    series = read_time_series(csv("machine,x\nA1,1\nA2,2\n"))
    assert series.times is None
    assert has_note(series, "'machine' was left out: it is not numeric: row 1")


def test_error_names_the_invalid_time_stamp(csv):
    text = csv_at_minutes(range(0, 100, 5)).replace("2024-01-01 00:15:00", "soon")
    with pytest.raises(DataError, match=r"'soon' in column 'Unnamed: 0', row 4"):
        read_time_series(csv(text))
    with pytest.raises(DataError, match=r"'' in column 'time', row 2"):
        read_time_series(csv("time,x\n2024-01-01,1\n,2\n2024-01-03,3\n2024-01-04,3\n"))
    with pytest.raises(DataError, match=r"'nan' in column 'timestamp', row 2"):
        read_time_series(csv("timestamp,x\n1706572800,1\n,2\n"))


def test_time_stamps_are_detected_without_a_header(csv):
    series = read_time_series(csv("2024-01-01 00:00,1.5\n2024-01-01 00:05,2.5\n"))
    np.testing.assert_equal((series.columns, series.values.tolist()), (("1",), [[1.5], [2.5]]))
    np.testing.assert_equal(formatted_times(series)[0], "2024-01-01 00:00:00")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_time_stamps_come_from_a_column_or_the_index(tmp_path, zone):
    times = pd.date_range("2024-01-01 01:00", periods=3, freq="h", tz=zone)
    table = pd.DataFrame({"at": times, "x": [1, None, 3], "on": True, "who": "me"})
    table["x"] = table["x"].astype("Int64")
    table.to_parquet(tmp_path / "column.parquet")
    table.set_index("at").rename_axis(None).to_parquet(tmp_path / "index.parquet")
    for name in ("column", "index"):
        series = read_time_series(tmp_path / f"{name}.parquet")
        np.testing.assert_array_equal(series.values, [[1.0], [3]])
        hour = "01" if zone is None else "00"
        np.testing.assert_equal(formatted_times(series)[0], f"2024-01-01 {hour}:00:00")
        np.testing.assert_equal((series.columns, series.starts), (("x",), (0, 1)))
        assert has_note(series, "'on' was left out")
        assert has_note(series, "'who' was left out")


def test_a_folder_named_like_a_parquet_partition_adds_no_column(tmp_path):
    (tmp_path / "year=2024").mkdir()
    path = tmp_path / "year=2024" / "a.parquet"
    pd.DataFrame({"x": [1.0, 2.0]}).to_parquet(path)
    np.testing.assert_equal(read_time_series(path).columns, ("x",))


# ---------------------------------------------------------------- columns

TABLE = "load,site,flow,empty\n1,A,10,\n2,B,20,\n3,A,30,\n"


def test_text_and_empty_columns_are_omitted_with_a_note(csv):
    series = read_time_series(csv(TABLE))
    np.testing.assert_equal(series.columns, ("load", "flow"))
    assert has_note(series, "'site' was left out")
    assert has_note(series, "'empty' was left out: it has no value")
    assert has_note(series, "No time stamps")


@pytest.mark.parametrize("columns", ["flow,load", " flow , load", ["flow", "load"]])
def test_columns_have_the_requested_order(csv, columns):
    series = read_time_series(csv(TABLE), columns=columns)
    np.testing.assert_array_equal(series.values, [[10, 1], [20, 2], [30, 3]])
    np.testing.assert_equal(series.columns, ("flow", "load"))


def test_a_column_name_may_contain_a_comma(csv):
    np.testing.assert_equal(
        read_time_series(csv('"a,b",c\n1,2\n'), columns="a,b").columns, ("a,b",)
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("laod", "Did you mean 'load'"),
        (["load", "site"], "'site', which is not numeric: row 1.*'A'"),
        ("empty", "no value"),
    ],
)
def test_columns_that_are_not_numeric_are_rejected(csv, columns, message):
    with pytest.raises(DataError, match=message):
        read_time_series(csv(TABLE), columns=columns)


def test_time_stamps_are_never_a_feature(csv):
    for text in ("time,x\n2024-01-01,1\n", "time,x\n1706572800,1\n"):
        np.testing.assert_equal(read_time_series(csv(text)).columns, ("x",))
        with pytest.raises(DataError, match="the times"):
            read_time_series(csv(text), columns="time")


@pytest.mark.parametrize("columns", ["", ",", [], [0], 3, ["load", "load"]])
def test_columns_argument_of_another_type_is_rejected(csv, columns):
    with pytest.raises(ArgumentError, match="columns"):
        read_time_series(csv(TABLE), columns=columns)


def test_a_constant_column_is_kept_with_a_note(csv):
    series = read_time_series(csv("a,b\n1,7\n2,7\n"))
    np.testing.assert_equal(series.columns, ("a", "b"))
    assert has_note(series, "'b' is constant (7)")


def test_row_numbers_written_by_pandas_are_omitted(csv):
    series = read_time_series(csv(pd.DataFrame(np.ones((3, 2)) * 5).to_csv()))
    np.testing.assert_equal((series.columns, len(series)), (("0", "1"), 3))
    assert has_note(series, "row numbers")


def test_duplicate_and_empty_column_names_become_distinct(csv):
    series = read_time_series(csv("a,a,,a.1\n1,2,3,4\n"))
    np.testing.assert_equal(series.columns, ("a", "a.2", "Unnamed: 2", "a.1"))
    assert has_note(series, "is named 'a.2'")


# ---------------------------------------------------------------- missing values

WITH_MISSING = "x,y\n,0\n1,1\n,2\n3,inf\n5,4\n6,NaN\n"


def test_missing_split_omits_rows_and_begins_new_segments(csv):
    series = read_time_series(csv(WITH_MISSING))
    np.testing.assert_array_equal(series.values, [[1, 1], [5, 4]])
    np.testing.assert_equal(series.starts, (0, 1))
    assert has_note(series, "2 in 'x', 2 in 'y'")
    assert has_note(series, "4 of 6 rows were left out")


def test_missing_ffill_carries_the_last_value_forward(csv):
    series = read_time_series(csv(WITH_MISSING), missing="ffill")
    np.testing.assert_array_equal(series.values, [[1, 1], [1, 2], [3, 2], [5, 4], [6, 4]])
    np.testing.assert_equal(series.starts, (0,))


def test_missing_interpolate_is_linear_and_adds_a_note(csv):
    series = read_time_series(csv(WITH_MISSING), missing="interpolate")
    np.testing.assert_allclose(series.values, [[1, 1], [2, 2], [3, 3], [5, 4]], rtol=1e-12)
    assert has_note(series, "uses later readings")


@pytest.mark.parametrize("missing", ["ffill", "interpolate"])
def test_missing_values_are_not_filled_across_a_gap(csv, missing):
    text = csv_at_minutes([0, 5, 10, 60, 65, 70]).replace("01:00:00,3", "01:00:00,")
    series = read_time_series(csv(text), missing=missing)
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_equal(series.starts, (0, 3))


def test_missing_error_has_the_counts_and_the_first_row(csv):
    with pytest.raises(DataError, match="2 in 'x', 2 in 'y', the first in reading 1"):
        read_time_series(csv(WITH_MISSING), missing="error")


def test_missing_values_of_other_columns_are_ignored(csv):
    series = read_time_series(csv("x,y\n1,\n2,\n3,4\n"), columns="x", missing="error")
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3])


def test_a_file_without_a_complete_row_is_rejected(csv):
    with pytest.raises(DataError, match="without a missing value"):
        read_time_series(csv("x,y\n1,\n,2\n"))


def test_a_blank_line_is_a_missing_value_in_a_single_column_only(csv):
    np.testing.assert_equal(read_time_series(csv("x\n1\n\n2\n\n")).starts, (0, 1))
    np.testing.assert_equal(read_time_series(csv("x,y\n1,1\n\n2,2\n\n")).starts, (0,))


@pytest.mark.parametrize("option", [{"missing": "drop"}, {"duplicates": "sum"}, {"missing": None}])
def test_unknown_options_are_rejected(csv, option):
    with pytest.raises(ArgumentError, match="one of"):
        read_time_series(csv(TABLE), **option)


# ---------------------------------------------------------------- files that cannot be used


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "empty"),
        ("a.csv", "\n\n", "empty"),
        ("a.csv", "time,x\n", "header only"),
        ("a.csv", "x,y\n1,2\n3,4,5\n", "line 3 has 3 cells, not 2"),
        ("a.csv", "x,y\n1,2\n3\n", "line 3 has 1 cell, not 2"),
        ("a.csv", 'x,y\n1,"2\n', "line 2 cannot be read"),
        ("a.csv", "x\n1\n".encode("utf-16"), "not UTF-8"),
        ("a.csv", "°C\n1\n".encode("latin-1"), "not UTF-8"),
        ("a.csv", "x;y\n1;2\n", "column of numbers.*'x;y'.*commas"),
        ("a.csv", "time\n2024-01-01\n", "column of numbers.*'time', the times"),
        ("a.csv.gz", gzip.compress(b"x\n1\n", mtime=0)[:-6], "gzip"),
        ("a.csv.gz", b"x\n1\n", "gzip"),
        ("a.parquet", b"PAR1 no", "parquet"),
        ("a.npy", b"\x93NUMPY", "complete .npy"),
        ("a.npy", b"x\n1\n", "complete .npy"),
        ("a.xlsx", b"PK", "another kind"),
        ("a", b"1", "another kind"),
    ],
)
def test_unreadable_files_are_rejected_with_a_one_line_message(csv, name, content, message):
    path = csv(content, name)
    with pytest.raises(DataError, match=message) as caught:
        read_time_series(path)
    assert str(caught.value).startswith("`path` must")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 4)), "windows already"),
        (np.float64(1), r"shape \(\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([1j]), "complex128"),
        (np.array([True]), "bool"),
        (np.array(["a"]), "<U1"),
        (np.array(["2024-01-01"], dtype="M8[D]"), "datetime64"),
        (np.zeros(2, dtype=[("a", "f8")]), "dtype"),
        (np.array([1, None], dtype=object), "Python objects"),
    ],
)
def test_npy_arrays_that_are_not_readings_are_rejected(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read_time_series(tmp_path / "a.npy")


def test_npz_files_are_rejected(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match="several arrays"):
        read_time_series(tmp_path / "a.npy")


def test_truncated_files_are_rejected(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(100.0))
    pd.DataFrame({"x": np.arange(100.0)}).to_parquet(tmp_path / "a.parquet")
    for path in (tmp_path / "a.npy", tmp_path / "a.parquet"):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match="complete"):
            read_time_series(path)


def test_paths_that_are_not_files_are_rejected(tmp_path):
    with pytest.raises(DataError, match="directory"):
        read_time_series(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_time_series(tmp_path / "none.csv")
    with pytest.raises(ArgumentError, match="path to a file"):
        read_time_series(None)


# ---------------------------------------------------------------- synthetic readings


def test_synthetic_readings_are_determined_by_the_seed():
    first, same, other = (synthetic_readings(steps=300, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.values, same.values)
    assert (first.values != other.values).mean() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_synthetic_readings_are_in_the_measurement_ranges(seed):
    series = synthetic_readings(seed=seed)
    np.testing.assert_equal(series.values.shape, (4000, 4))
    low, high = series.values.min(axis=0), series.values.max(axis=0)
    assert (low > [20, 1, 0, 0]).all(), low
    assert (high < [110, 15, 60, 80]).all(), high
    assert not np.isin(np.diff(series.values, axis=0), 0).all(axis=1).any()


@pytest.mark.parametrize("seed", range(5))
def test_sensor_fault_is_in_the_last_fifth_has_a_note_and_lowers_the_pressure(seed):
    series, rows = synthetic_readings(seed=seed), sensor_fault(seed=seed)
    assert has_note(series, f"rows {rows[0]} to {rows[-1]} ")
    assert 0.8 * 4000 < rows[0] < rows[-1] < 4000
    # Relative to the load, which the current measures, pressure is low only during the fault.
    healthy = np.r_[0 : rows[0], rows[-1] + 1 : 4000]
    line = np.polyfit(series.values[healthy, 3], series.values[healthy, 1], 1)
    residual = series.values[:, 1] - np.polyval(line, series.values[:, 3])
    assert abs(residual[healthy].mean()) < 0.1
    assert residual[rows].mean() < -2


def test_no_channel_is_a_linear_function_of_the_others():
    values = synthetic_readings().values[:3200]
    for channel in range(4):
        others = np.c_[np.delete(values, channel, axis=1), np.ones(len(values))]
        fit = others @ np.linalg.lstsq(others, values[:, channel])[0]
        unexplained = np.var(values[:, channel] - fit) / np.var(values[:, channel])
        assert 0.05 < unexplained < 0.95, (channel, unexplained)


def test_the_interval_sets_the_time_stamps():
    series = synthetic_readings(steps=100, interval="30s")
    np.testing.assert_equal(str(series.times[1] - series.times[0]), "0 days 00:00:30")


@pytest.mark.parametrize(
    "option",
    [{"steps": 99}, {"steps": 1e3}, {"seed": -1}]
    + [{"interval": value} for value in (300, 0.5, "often", "-5min", "0s", None, "nat", [])],
)
def test_synthetic_readings_rejects_invalid_options(option):
    with pytest.raises(ArgumentError, match=next(iter(option))):
        synthetic_readings(**option)


def test_importing_data_does_not_load_keras():
    code = "import sys, keras_seqzoo.data; sys.exit('keras' in sys.modules)"
    np.testing.assert_equal(subprocess.run([sys.executable, "-c", code]).returncode, 0)
