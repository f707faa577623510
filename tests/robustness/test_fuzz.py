"""Fuzz tests: any argument of a public call is accepted or raises an error of the package."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError, SeqZooError
from keras_seqzoo.registry import search_space
from tests.robustness.fuzz_table import MORE, RESULTS, ROWS, public_callables

NAME = "simple_rnn_identity"
# Derandomized: every run has the same examples, so that a failure is due to a change.
SETTINGS = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
# Number of examples by the cost of one, in every run and in tests marked `long`.
NORMAL, LONG = {"fast": 200, "slow": 20}, {"fast": 10_000, "slow": 200}


def example_counts(cost: str) -> pytest.MarkDecorator:
    """Parametrize `count`, the number of examples."""
    long = pytest.param(LONG[cost], marks=pytest.mark.long)
    return pytest.mark.parametrize("count", [NORMAL[cost], long])


def fuzz(cost: str):
    """Make a Hypothesis test a pytest test with the number of examples as a parameter."""

    def decorate(check):
        @example_counts(cost)
        def test(count):
            settings(SETTINGS, max_examples=count)(check)()

        test.__name__ = test.__qualname__ = check.__name__
        return test

    return decorate


FAST, SLOW = fuzz("fast"), fuzz("slow")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([-(10**30), -1, 0, 1.0, 2.5, 1e300, -1e300, float("inf"), float("nan")]),
    st.sampled_from([np.int64(3), np.float32(2), np.bool_(True), 1j, b"l2", object(), 2**70]),
    st.sampled_from(["", "/", "a/b", "l1", "l2", "tanh", "none", "zeros", "no such", "L2", "\x00"]),
    st.text(max_size=8),
)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["class_name", "config", "l2", "x"]), inner, max_size=2),
    ),
    max_leaves=4,
)
ARGUMENTS = sorted(zoo.describe(NAME).arguments)


def call_or_none(function, *arguments, **options):
    """The result, or None after an error of the package; any other error fails the test."""
    try:
        return function(*arguments, **options)
    except SeqZooError as error:
        assert str(error)
        return None


# -------------------------------------------------------------------------------------- the zoo


@FAST
@given(argument=st.sampled_from(ARGUMENTS), value=junk)
@pytest.mark.slow
def test_any_value_of_one_argument_builds_or_is_rejected(argument, value):
    model = call_or_none(zoo.get, NAME, **{argument: value})
    assert model is None or isinstance(model, keras.Model)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_sizes_may_be_numpy_integers(kind):
    model = zoo.get(NAME, units=kind(3), features=kind(2), mask_value=np.float32(-1))
    assert model.output_shape == (None, None, 2)
    assert type(model.get_layer("recurrent").units) is int


@SLOW
@given(config=st.dictionaries(st.sampled_from(ARGUMENTS), junk, max_size=4))
@pytest.mark.slow
def test_any_values_of_several_arguments_build_or_are_rejected(config):
    call_or_none(zoo.get, NAME, **config)


valid_configs = st.fixed_dictionaries(
    {},
    optional={
        "features": st.integers(1, 5),
        "units": st.integers(1, 9),
        "return_sequences": st.booleans(),
        "activation": st.sampled_from(["tanh", "relu", "linear", None]),
        "recurrent_regularizer": st.sampled_from([None, "l1", "l2", "l1_l2"]),
        "kernel_regularizer": st.sampled_from([None, "l1", "l2", "l1_l2"]),
        "recurrent_initializer": st.sampled_from(["orthogonal", "zeros", "glorot_uniform"]),
        "normalize": st.booleans(),
        "mask_value": st.sampled_from([None, 0, -1.5, float("nan"), float("inf")]),
        "time": st.sampled_from([None, 4]),
        "name": st.sampled_from(["a", "A model", "pump-3", "é"]),
    },
)


@SLOW
@given(config=valid_configs)
def test_every_documented_value_builds_and_predicts(config):
    model = zoo.get(NAME, **config)
    x = np.random.default_rng(0).normal(size=(2, 4, config.get("features", 1)))
    y = np.asarray(model(x.astype("float32")))
    assert y.shape == (x.shape if config.get("return_sequences", True) else x[:, 0].shape)
    assert np.isfinite(y).all()
    assert model.name == config.get("name", NAME)


@FAST
@given(name=junk, argument=st.text(max_size=10), value=junk)
def test_unknown_names_and_arguments_are_rejected(name, argument, value):
    for function in (zoo.describe, zoo.get, zoo.unregister):
        assert call_or_none(function, name) is None
    if argument not in ARGUMENTS:
        assert call_or_none(zoo.get, NAME, **{argument: value}) is None


@FAST
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "pattern": junk,
            "exclude": junk,
            "task": junk,
            "causal": junk,
            "family": junk,
            "famly": junk,
        },
    )
)
def test_any_filter_lists_names_or_is_rejected(options):
    names = call_or_none(zoo.list_models, **options)
    assert names is None or set(names) <= set(zoo.list_models())


@FAST
@given(
    value=junk,
    default=st.sampled_from(
        [
            None,
            search_space.Int(1, 9),
            search_space.Float(0.1, 1.0, log=True),
            search_space.Choice(("a", "b")),
        ]
    ),
)
def test_any_dimension_is_accepted_or_rejected(value, default):
    dimension = call_or_none(search_space.as_dimension, "units", value, default)
    assert dimension is None or isinstance(dimension, search_space.Dimension)


@FAST
@given(
    low=st.one_of(st.integers(-5, 5), st.floats(-5, 5)),
    high=st.one_of(st.integers(-5, 5), st.floats(-5, 5)),
    log=st.booleans(),
)
def test_a_range_keeps_its_bounds(low, high, log):
    default = search_space.Float(0.1, 1.0, log=log)
    dimension = call_or_none(search_space.as_dimension, "rate", (low, high), default)
    if dimension is None:
        assert low > high or (log and low <= 0)
    else:
        assert (dimension.low, dimension.high, dimension.log) == (low, high, log)


def test_an_int_beyond_every_float_is_accepted_or_rejected():
    call_or_none(search_space.as_dimension, "units", (1, 10**400))


def test_an_array_as_a_filter_is_accepted_or_rejected():
    call_or_none(zoo.list_models, task=np.array([1, 2]))
    call_or_none(zoo.list_models, causal=np.array([1, 2]))


@pytest.mark.parametrize("value", ["glu", int, lambda x: x[:, :1], "activation"])
def test_an_activation_that_changes_the_shape_is_rejected(value):
    with pytest.raises(ArgumentError, match="activation"):
        zoo.get("simple_rnn_identity", activation=value)


@pytest.mark.parametrize("value", ["initializer", int, 3])
def test_an_invalid_initializer_is_rejected(value):
    with pytest.raises(ArgumentError, match="recurrent_initializer"):
        zoo.get("simple_rnn_identity", recurrent_initializer=value)


@pytest.mark.parametrize("value", ["regularizer", lambda x: x, 0.1])
def test_an_invalid_regularizer_is_rejected(value):
    with pytest.raises(ArgumentError, match="recurrent_regularizer"):
        zoo.get("simple_rnn_identity", recurrent_regularizer=value)


@pytest.mark.parametrize("path", [None, 3, ""])
def test_an_invalid_path_is_rejected(path):
    with pytest.raises(ArgumentError, match="path"):
        zoo.load(path)
    with pytest.raises(ArgumentError, match="path"):
        zoo.export(zoo.get("simple_rnn_identity"), path)


def test_an_output_whose_shape_depends_on_the_number_of_rows_is_rejected():
    x = np.random.default_rng(0).normal(size=(3, 4, 1))
    with pytest.raises(SeqZooError, match="same shape for every batch"):
        zoo.leakage(lambda rows: np.ones((*rows.shape[:2], len(rows))), x)


def test_more_cuts_than_steps_use_all_steps():
    x = np.random.default_rng(0).normal(size=(4, 6, 1))
    assert zoo.leakage(np.tanh, x, cuts=10**12).cuts == (1, 2, 3, 4, 5)


# ---------------------------------------------------------------------------------------- arrays

numbers = st.one_of(
    st.floats(width=32), st.floats(-100, 100, width=32), st.sampled_from([0.0, 1.0, 3e38])
)
arrays = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, min_side=0, max_side=5), elements=numbers),
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 2)),
        elements=st.floats(-100, 100),
    ),
    hnp.arrays(
        hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize <= 64),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=4),
        fill=st.nothing(),
    ),
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)),
    st.sampled_from([[[1.0], [1.0, 2.0]], [[[1.0]], [[1.0], [2.0]]], "text", None, 3, [], {}]),
)
masks = st.one_of(
    st.none(),
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    arrays,
    st.just([[True], [True, False]]),
)
# Rows with a mask of the right shape, which pass the argument checks.
valid_rows_and_masks = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.floats(-100, 100, width=32)),
        st.one_of(st.none(), hnp.arrays(bool, shape[:2])),
    )
)
rows_and_masks = st.one_of(st.tuples(arrays, masks), valid_rows_and_masks)
SCALED_MODELS = [
    zoo.get(NAME, features=features, mask_value=mask_value)
    for features in (1, 2)
    for mask_value in (None, float("nan"), 0.0)
]


@FAST
@given(model=st.sampled_from(SCALED_MODELS), rows=rows_and_masks)
def test_any_rows_adapt_a_model_or_are_rejected(model, rows):
    x, mask = rows
    call_or_none(zoo.adapt, model, x, mask=mask)
    for weight in model.get_weights():
        assert np.isfinite(weight).all()


def outputs(x: np.ndarray) -> dict[str, object]:
    """Outputs of valid and invalid functions of a batch, by name."""
    return {
        "same": x,
        "running sum": np.cumsum(x, axis=1),
        "last step": x[:, -1],
        "one score per step": x.reshape(*x.shape[:2], -1).sum(axis=-1),
        "one score per row": x.reshape(len(x), -1).sum(axis=-1),
        "constant": np.zeros_like(x),
        "whole batch mixed": x - x.mean(axis=0),
        "longer": np.concatenate([x, x], axis=1),
        "not finite": np.full(x.shape, np.nan),
        "other rows": x[:1],
        "nothing": x[:, :, :0] if x.ndim > 2 else x[:, :0],
        "scalar": 3.0,
        "none": None,
        "list": [x, x],
        "dict": {"y": x},
        "text": np.full(x.shape, "a"),
        "complex": x * 1j,
        "bool": x > 0,
        "another shape each time": np.zeros((len(x), x.shape[1], 1 + len(x) % 3)),
        "objects": np.full(x.shape, None),
    }


FUNCTIONS = sorted(outputs(np.ones((2, 2, 1))))
# At least half of the examples have a valid output.
function_names = st.one_of(
    st.sampled_from(["same", "running sum", "last step", "one score per step"]),
    st.sampled_from(FUNCTIONS),
)
quiet_numpy = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def function(name: str):
    with np.errstate(all="ignore"):
        return lambda x: outputs(x)[name]


@quiet_numpy  # the functions above overflow
@FAST
@given(
    kind=function_names,
    rows=rows_and_masks,
    y=st.one_of(st.none(), arrays),
    batch_size=st.sampled_from([1, 2, 4096, 0, None, 2.0, 2**70]),
)
def test_any_identity_error_is_measured_or_rejected(kind, rows, y, batch_size):
    x, mask = rows
    error = call_or_none(
        zoo.metrics.identity_error, function(kind), x, y, mask=mask, batch_size=batch_size
    )
    assert error is None or np.isnan(error) or error >= 0


valid_options = st.fixed_dictionaries(
    {"resamples": st.sampled_from([0, 5])},
    optional={
        "cuts": st.sampled_from([1, 3, 8, (1,), np.array([1])]),
        "burn_in": st.just(1),
        "output_step": st.sampled_from([0, -1]),
        "threshold": st.sampled_from([0.01, 0.5]),
        "scale": st.sampled_from(["feature", "none"]),
        "block": st.integers(1, 7),
        "seed": st.integers(0, 3),
        "batch_size": st.sampled_from([1, 2, 4096, 2**70]),
        "method": st.just("swap"),
    },
)
# Integers are bounded, because a billion resamples would be computed.
OPTIONS = (
    "resamples", "cuts", "burn_in", "output_step", "threshold", "scale", "block", "seed",
    "batch_size", "method", "probes", "mask",
)  # fmt: skip
small_junk = junk.filter(lambda value: not isinstance(value, int) or abs(value) < 100)
invalid_options = st.dictionaries(st.sampled_from(OPTIONS), small_junk, min_size=1, max_size=1)


@quiet_numpy
@FAST
@given(
    kind=function_names,
    rows=rows_and_masks,
    options=st.one_of(valid_options, valid_options, invalid_options),
)
def test_any_leakage_is_measured_or_rejected(kind, rows, options):
    x, mask = rows
    report = call_or_none(zoo.leakage, function(kind), x, **{"mask": mask} | options)
    if report is not None:
        assert np.isnan(report.index) or report.index >= 0
        assert str(report)
        assert report.to_dict()["rows"] == report.rows


valid_readouts = st.fixed_dictionaries(
    {"resamples": st.sampled_from([0, 5])},
    optional={
        "lags": st.sampled_from([None, 1, 2, (0,), np.array([1])]),
        "held_out": st.sampled_from([0.01, 0.5, 0.99]),
        "burn_in": st.integers(0, 2),
        "output_step": st.sampled_from([0, -1]),
        "block": st.integers(1, 3),
        "seed": st.integers(0, 3),
        "batch_size": st.sampled_from([1, 2, 4096]),
    },
)
READOUT_OPTIONS = (
    "lags", "readout", "layer", "held_out", "burn_in", "mask", "output_step", "block",
    "resamples", "batch_size", "seed",
)  # fmt: skip
invalid_readouts = st.dictionaries(
    st.sampled_from(READOUT_OPTIONS), small_junk, min_size=1, max_size=1
)


@quiet_numpy
@FAST
@given(
    kind=function_names,
    rows=rows_and_masks,
    options=st.one_of(valid_readouts, valid_readouts, invalid_readouts),
)
@pytest.mark.slow
def test_any_recoverability_is_measured_or_rejected(kind, rows, options):
    x, mask = rows
    report = call_or_none(
        zoo.diagnostics.recoverability, function(kind), x, **{"mask": mask} | options
    )
    if report is not None:
        assert np.isnan(report.capacity) or report.capacity <= report.by_feature.size + 1e-9
        assert report.rank <= report.outputs
        assert str(report)
        assert report.to_dict()["rows"] == report.rows


@quiet_numpy
@FAST
@given(kind=function_names, rows=rows_and_masks)
def test_any_anomaly_score_is_computed_or_rejected(kind, rows):
    x, mask = rows
    score = call_or_none(zoo.diagnostics.anomaly_score, function(kind), x, mask=mask)
    if score is not None:
        scores = call_or_none(score, x)
        assert scores is None or scores.shape == np.shape(x)[:2]


@quiet_numpy
@FAST
@given(
    kind=function_names,
    x=arrays,
    x_train=arrays,
    options=st.fixed_dictionaries(
        {"kind": st.sampled_from(["identity", "forecasting", "reconstruction", None, "none"])},
        optional={
            "quantile": st.sampled_from([0.5, 0.999, 0, 1, None]),
            "sequence_length": st.sampled_from([1, 2, 50, 0, 2.0]),
            "sequence_stride": st.sampled_from([1, 2, 0, "one"]),
            "combine": st.sampled_from(["mean", "longest", "last"]),
            "alone": st.sampled_from([False, True, 1]),
        },
    ),
)
@pytest.mark.slow
def test_any_anomaly_report_is_computed_or_rejected(kind, x, x_train, options):
    report = call_or_none(zoo.anomaly, function(kind), x, x_train, **options)
    if report is not None:
        assert report.scores.shape == (len(report.index),) == report.flagged.shape
        assert str(report)
        assert report.to_dict()["threshold"] == report.threshold


# ------------------------------------------------------------------------------ every public call


def test_every_public_call_has_a_row_and_every_row_a_call():
    calls = {name: call for name, call in public_callables().items() if call not in RESULTS}
    assert {name: row.call for name, row in ROWS.items()} == calls
    assert set(RESULTS) <= set(public_callables().values())


def test_every_result_is_a_class():
    for result in RESULTS:
        assert isinstance(result, type)


# Their valid arguments refer to an entry or a file that does not exist or cannot be read.
REJECTS_VALID_ARGUMENTS = (
    "load", "unregister", *(name for name in ROWS if name.startswith("read_")),
)  # fmt: skip
RETURNS_NONE = ("adapt", "compile_recurrences", "export")
anything = st.one_of(small_junk, arrays, st.sampled_from([[["a"]], [[1, 2], [3]], {"a": [1]}]))
ALL_ROWS = ROWS | MORE
FAST_ROWS = [name for name, row in ALL_ROWS.items() if not row.slow]
SLOW_ROWS = [name for name, row in ALL_ROWS.items() if row.slow]


def check_row(name: str, count: int, folder) -> None:
    """With any values of one or two arguments, the call returns or raises an allowed error."""
    row = ALL_ROWS[name]
    replaced = st.lists(
        st.tuples(st.sampled_from(row.fuzzed or sorted(row.valid())), anything),
        min_size=1,
        max_size=2,
    )

    @settings(SETTINGS, max_examples=count)
    @given(replaced=replaced)
    def check(replaced):
        call(name, dict(replaced), folder)

    check()


def call(name: str, replaced: dict, folder):
    row = ALL_ROWS[name]
    arguments = row.valid() | replaced
    positional = [arguments.pop(key) for key in sorted(key for key in arguments if key.isdigit())]
    if name == "export":
        positional.append(folder / str(len(list(folder.iterdir()))))
    if name == "search":
        arguments["directory"] = folder / str(len(list(folder.iterdir())))
    try:
        return row.call(*positional, **arguments)
    except row.rejections as error:
        assert str(error)
        return None
    finally:
        if name == "register" and "mine" in zoo.list_models():
            zoo.unregister("mine")


fuzz_warnings = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value|divide by zero|Degrees of freedom|Mean of empty|underflow)"
    ":RuntimeWarning",
)


@pytest.mark.parametrize("name", sorted(ALL_ROWS))
def test_the_valid_arguments_of_each_row_are_accepted(name, tmp_path):
    result = call(name, {}, tmp_path)
    if name in REJECTS_VALID_ARGUMENTS:
        assert result is None
    else:
        assert result is not None or name in RETURNS_NONE


@fuzz_warnings
@example_counts("fast")
@pytest.mark.parametrize("name", FAST_ROWS)
@pytest.mark.slow
def test_any_argument_is_accepted_or_rejected(name, count, tmp_path):
    check_row(name, count, tmp_path)


@fuzz_warnings
@example_counts("slow")
@pytest.mark.parametrize("name", SLOW_ROWS)
@pytest.mark.slow
def test_any_argument_of_a_slow_call_is_accepted_or_rejected(name, count, tmp_path):
    check_row(name, count, tmp_path)
