"""Populations against the same trials trained one by one by `Model.fit`."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.errors import FailedTrialError

import keras_seqzoo as zoo
from keras_seqzoo import layers
from keras_seqzoo.callbacks import StateLeakage
from keras_seqzoo.registry.search_space import Choice, Float, Int
from keras_seqzoo.tasks import task_for
from keras_seqzoo.tasks.window_data import Windows, split_windows
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.trial import TrialResult, run_trial
from keras_seqzoo.tuning.vectorized import philox, population
from keras_seqzoo.tuning.vectorized.packed_model import PackedModel
from keras_seqzoo.tuning.vectorized.population import Member, Population

pytestmark = pytest.mark.tensorflow

EPOCHS, TIME, FEATURES = 6, 12, 2
OBJECTIVES = [keras_tuner.Objective("val_identity_cost", "min")]


def recurrent_identity(
    *, features=FEATURES, units=8, cell="GRU", recurrent_regularizer=None, dropout=0.0,
    name="recurrent_identity",
):  # fmt: skip
    """An identity model with any cell, a second recurrent layer, and dropout in three places."""
    inputs = keras.Input((None, features))
    x = layers.Normalization(name="scale")(inputs)
    options = {"return_sequences": True, "dropout": dropout}
    x = getattr(layers, cell)(
        units, recurrent_regularizer=recurrent_regularizer, name="first", **options
    )(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="between")(x)
    x = layers.SimpleRNN(units, activation="relu", name="second", **options)(x)
    outputs = keras.layers.Dense(features, name="readout")(x)
    outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    return keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def entry():
    name = "recurrent_identity"
    kinds = {"recurrent_regularizer": ("l1", "l2", "l1_l2")}
    zoo.register(
        name,
        recurrent_identity,
        task="identity",
        summary="For these tests.",
        inputs="(batch, time, features)",
        outputs="(batch, time, features)",
        causal=True,
        space={
            "units": Int(2, 8, default=4),
            "recurrent_regularizer": Choice(("none", "l1", "l2", "l1_l2"), default="l1"),
            "recurrent_strength": Float(1e-5, 1.0, log=True, default=1e-2, when=kinds),
            "learning_rate": Float(1e-3, 3e-2, log=True, default=1e-2),
            "dropout": Float(0.0, 0.5, default=0.0),
        },
    )
    yield name
    zoo.unregister(name)


def hypermodel_of(name: str, data: Windows, *, global_clipnorm=None, **arguments) -> ZooHyperModel:
    """An entry's hypermodel, its task bound to windows."""
    task = task_for(name, features=FEATURES, **arguments).bound(windows=data)
    clip = {} if global_clipnorm is None else {"global_clipnorm": global_clipnorm}
    return ZooHyperModel(task, features=FEATURES, **clip, **arguments)


def rows(padded: bool = False) -> Windows:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(170, TIME, FEATURES)), axis=1).astype("float32") + 5
    if padded:
        x[np.arange(TIME) >= rng.integers(2, TIME + 1, (len(x), 1))] = np.nan
    return split_windows(x, None, None, 0.4)


def members(hypermodel: ZooHyperModel, values: list[dict]) -> list[Member]:
    result = []
    for seed, overrides in enumerate(values):
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        hp.values |= overrides
        result.append(Member(hp, seed + 10))
    return result


# Members of more than one call, with every kind of regularizer.
VALUES = [
    {"units": 8, "recurrent_regularizer": "none"},
    {"units": 3, "recurrent_regularizer": "l1", "recurrent_strength": 0.1},
    {"units": 5, "recurrent_regularizer": "l2", "recurrent_strength": 0.05, "learning_rate": 0.02},
    {"units": 2, "recurrent_regularizer": "l1_l2", "recurrent_strength": 0.02},
]


def train_population(
    hypermodel, population_members, batch_size=16, epochs=EPOCHS, stopping=None, until=()
):
    """Results of members trained as a population, regrouped at the epochs in `until`."""
    trained = Population(
        hypermodel,
        objectives=OBJECTIVES,
        epochs=epochs,
        batch_size=batch_size,
        stopping=stopping,
    )
    runs = [trained.start(member) for member in population_members]
    for epoch in (*until, epochs):
        for _ in trained.advance(runs, [epoch] * len(runs)):
            pass
    outcomes = []
    for run in runs:
        try:
            outcomes.append(trained.finish(run))
        except FailedTrialError as error:
            outcomes.append(error)
    return outcomes


@pytest.fixture(autouse=True)
def few_units_per_call(monkeypatch):
    """Allow few units per call, so that the members need several calls."""
    monkeypatch.setattr(population, "MAX_UNITS", 12)


def train_single(hypermodel, member, batch_size=16, epochs=EPOCHS):
    return run_trial(
        hypermodel,
        member.hp,
        objectives=OBJECTIVES,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=(),
        seed=member.seed,
    )


def assert_same(result: TrialResult, expected: TrialResult, tolerance: float):
    assert result.epoch == expected.epoch
    for actual, reference in zip(result.model.weights, expected.model.weights, strict=True):
        actual, reference = map(keras.ops.convert_to_numpy, (actual, reference))
        np.testing.assert_allclose(actual, reference, rtol=0, atol=tolerance)
    assert set(result.history) == set(expected.history)
    for name, curve in expected.history.items():
        # Metrics of fit are computed from float32 outputs of `predict`.
        np.testing.assert_allclose(result.history[name], curve, rtol=1e-5, atol=1e-7, err_msg=name)
        assert result.metrics[name] == result.history[name][result.epoch]


@pytest.mark.parametrize(
    ("sequences", "padded", "clip"),
    [(True, True, 0.2), (False, True, None), (True, False, None)],
    ids=["sequences, padded, clipped", "last, padded", "sequences"],
)
def test_member_has_the_weights_and_logs_of_fit(sequences, padded, clip, float64):
    data = rows(padded)
    hypermodel = hypermodel_of(
        "simple_rnn_identity",
        data,
        return_sequences=sequences,
        mask_value=np.nan if padded else None,
        global_clipnorm=clip,
    )
    population_members = members(hypermodel, VALUES)
    steps = EPOCHS * 3 * -(-len(data.x) // 16)
    assert steps > 100 and len(data.x) % 16  # the last batch is not full
    results = train_population(hypermodel, population_members, epochs=3 * EPOCHS)
    for index in (0, 1, 3) if sequences else (2,):
        expected = train_single(hypermodel, population_members[index], epochs=3 * EPOCHS)
        assert_same(results[index], expected, 1e-8)


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.slow
def test_member_with_dropout_has_the_weights_and_logs_of_fit_for_every_cell(entry, cell, float64):
    hypermodel = hypermodel_of(entry, rows(), cell=cell)
    values = [VALUES[1] | {"dropout": 0.3}, VALUES[2] | {"dropout": 0.0}, VALUES[3]]
    population_members = members(hypermodel, values)
    results = train_population(hypermodel, population_members, epochs=3 * EPOCHS)
    for index in (0, 1):
        expected = train_single(hypermodel, population_members[index], epochs=3 * EPOCHS)
        assert_same(results[index], expected, 1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_philox_numbers_equal_those_of_tensorflow(dtype):
    for seed in ((123, 7), (0, 0), (2**31 - 3, 12345)):
        expected = tf.random.stateless_uniform([1001], seed, dtype=dtype)
        seeds = [tf.constant(word) for word in seed]
        results = tf.function(philox.uniform, jit_compile=True)(
            [tf.fill((1001,), word) for word in seeds], tf.range(1001), dtype=tf.as_dtype(dtype)
        )
        np.testing.assert_array_equal(results, expected)


@pytest.mark.slow
def test_member_in_float32_differs_from_fit_by_round_off_only():
    hypermodel = hypermodel_of("simple_rnn_identity", rows())
    population_members = members(hypermodel, VALUES[:2])
    results = train_population(hypermodel, population_members, epochs=3)
    for result, member in zip(results, population_members, strict=True):
        expected = train_single(hypermodel, member, epochs=3)
        for actual, reference in zip(result.model.weights, expected.model.weights, strict=True):
            np.testing.assert_allclose(actual.numpy(), reference.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("monitor", "mode", "start"), [("val_identity_cost", "min", 1)])
@pytest.mark.slow
def test_members_stop_early_as_with_the_keras_callback(monitor, mode, start):
    stopping = keras.callbacks.EarlyStopping(
        monitor, mode=mode, patience=1, min_delta=0.02, start_from_epoch=start
    )
    hypermodel = hypermodel_of("simple_rnn_identity", rows())
    population_members = members(hypermodel, VALUES[:4])
    results = [
        result.history[monitor]
        for result in train_population(hypermodel, population_members, epochs=9, stopping=stopping)
    ]
    epochs_run = []
    for index, member in enumerate(population_members):
        expected = run_trial(
            hypermodel, member.hp, objectives=OBJECTIVES, epochs=9, batch_size=16,
            callbacks=[stopping], seed=member.seed,
        )  # fmt: skip
        np.testing.assert_allclose(results[index], expected.history[monitor], rtol=1e-3)
        epochs_run.append(len(results[index]))
    assert len(set(epochs_run)) > 1 and min(epochs_run) < 9


def test_population_metrics_equal_those_of_the_callback():
    data = rows()
    hypermodel = hypermodel_of("simple_rnn_identity", data, block=3)
    (result,) = train_population(hypermodel, members(hypermodel, VALUES[1:2]), epochs=2)
    callback = StateLeakage(data.x_val, block=3)
    callback.set_model(result.model)
    for name, value in callback.measure().items():
        assert result.metrics["val_" + name] == pytest.approx(value, rel=1e-4)


@pytest.mark.slow
def test_diverging_member_does_not_affect_other_members():
    hypermodel = hypermodel_of("simple_rnn_identity", rows())
    values = [VALUES[1], VALUES[2]]
    expected = train_population(hypermodel, members(hypermodel, values), epochs=2)
    values = [VALUES[1], VALUES[2], {"units": 4, "learning_rate": float("inf")}]
    *results, failure = train_population(hypermodel, members(hypermodel, values), epochs=2)
    assert "diverged" in str(failure)
    for result, expected_result in zip(results, expected, strict=True):
        assert result.history == expected_result.history


@pytest.mark.slow
def test_members_can_be_regrouped_between_epochs():
    hypermodel = hypermodel_of("simple_rnn_identity", rows())
    population_members = members(hypermodel, VALUES[:3])
    uninterrupted = train_population(hypermodel, population_members)
    regrouped = train_population(hypermodel, population_members, until=(1, 4))
    for result, expected_result in zip(regrouped, uninterrupted, strict=True):
        np.testing.assert_allclose(
            result.history["loss"], expected_result.history["loss"], rtol=1e-5
        )
        assert result.epoch == expected_result.epoch


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": "selu"}, "no fused kernel"),
        ({"kernel_regularizer": keras.regularizers.OrthogonalRegularizer()}, "no rule"),
    ],
)
def test_obstacle_names_the_reason(options, reason):
    model = zoo.get("simple_rnn_identity", **options)
    assert reason in PackedModel.obstacle(model, model)
    packable = zoo.get("simple_rnn_identity")
    assert PackedModel.obstacle(packable, packable) is None


@pytest.mark.slow
def test_search_trains_models_with_an_obstacle_one_by_one(tmp_path):
    search = zoo.search(
        "simple_rnn_identity",
        rows().x,
        activation="selu",
        max_trials=2,
        epochs=1,
        directory=tmp_path,
        verbose=0,
        report=False,
    )
    assert (search.results["state"] == "complete").all()


@pytest.mark.slow
def test_search_does_not_change_the_random_state_of_the_user(tmp_path):
    keras.utils.set_random_seed(5)
    expected = [keras.random.uniform((2,)) for _ in range(2)]
    keras.utils.set_random_seed(5)
    first = keras.random.uniform((2,))
    zoo.search(
        "simple_rnn_identity", rows().x, max_trials=2, epochs=1, directory=tmp_path, verbose=0,
        report=False,
    )  # fmt: skip
    np.testing.assert_array_equal(first, expected[0])
    np.testing.assert_array_equal(keras.random.uniform((2,)), expected[1])
