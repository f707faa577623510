"""Populations of classifiers and taggers against the same trials trained one by one."""

from __future__ import annotations

import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError

import keras_seqzoo as zoo
from keras_seqzoo.data import LabeledSequences
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.tasks import task_for
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.trial import run_trial
from keras_seqzoo.tuning.vectorized import population
from keras_seqzoo.tuning.vectorized.population import Member, Population
from keras_seqzoo.wrapping import preprocessor_of

pytestmark = pytest.mark.tensorflow

EPOCHS, BATCH = 25, 16
OBJECTIVES = [keras_tuner.Objective("val_accuracy", "max")]
MEMBERS = [
    {"units": 5, "learning_rate": 0.01},
    {
        "units": 3, "recurrent_regularizer": "l1", "recurrent_strength": 1e-3,
        "dropout": 0.3, "input_dropout": 0.2,
    },
    {"units": 6, "learning_rate": 0.02, "dropout": 0.5},
]  # fmt: skip


def examples(target: str, *, unequal: bool, count: int = 110) -> LabeledSequences:
    """Random walks, labeled with the class of the position at every step or at the end."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, count) if unequal else np.full(count, 10)
    sequences = [rng.normal(size=(length, 2)).astype(np.float32) for length in lengths]
    walks = [np.digitize(np.cumsum(sequence[:, 0]), (-1, 1)) for sequence in sequences]
    labels = [np.array(["down", "near", "up"])[walk].tolist() for walk in walks]
    if target == "tags":
        return LabeledSequences(sequences, tags=labels)
    return LabeledSequences(sequences, labels=[walk_labels[-1] for walk_labels in labels])


@pytest.mark.parametrize(
    ("name", "unequal", "fixed"),
    [
        ("gru_tagger", True, {}),
        ("bilstm_classifier", True, {}),
        ("simple_rnn_classifier", False, {"pooling": "max"}),
        ("bilstm_tagger", False, {"cell": "gru", "num_layers": 2}),
        ("gru_classifier", True, {"units": 4, "bidirectional": True, "pooling": "mean"}),
    ],
)
@pytest.mark.slow
def test_member_has_the_weights_and_logs_of_fit(name, unequal, fixed, float64, monkeypatch):
    monkeypatch.setattr(population, "MAX_UNITS", 10)  # two calls
    target = "tags" if name.endswith("tagger") else "labels"
    data = examples(target, unequal=unequal)
    task = task_for(name, **fixed).with_data(data, validation_split=0.3)
    hypermodel = ZooHyperModel(task, **fixed)
    members = []
    for seed, values in enumerate(MEMBERS):
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        hp.values |= values
        members.append(Member(hp, seed + 10))
    trained = Population(hypermodel, objectives=OBJECTIVES, epochs=EPOCHS, batch_size=BATCH)
    runs = [trained.start(member) for member in members]
    for _ in trained.advance(runs, [EPOCHS] * len(runs)):
        pass
    assert EPOCHS * -(-task.size // BATCH) > 100 and task.size % BATCH
    for index in (0, 1):
        result = trained.finish(runs[index])
        expected = run_trial(
            hypermodel, members[index].hp, objectives=OBJECTIVES, epochs=EPOCHS,
            batch_size=BATCH, callbacks=(), seed=members[index].seed,
        )  # fmt: skip
        assert result.epoch == expected.epoch
        assert set(result.history) == set(expected.history)
        for key, curve in expected.history.items():
            np.testing.assert_allclose(result.history[key], curve, rtol=1e-6, err_msg=key)
        for actual, reference in zip(result.model.weights, expected.model.weights, strict=True):
            np.testing.assert_allclose(actual.numpy(), reference.numpy(), rtol=0, atol=1e-8)
        assert len(set(expected.history["val_f1"])) > 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LabeledSequences([["a", "b"], ["c"]] * 4, labels=["x", "y"] * 4), "tokens"),
        (
            LabeledSequences([np.ones((40, 1)), *[np.ones((2, 1))] * 19], labels=["x", "y"] * 10),
            "lengths",
        ),
        (LabeledSequences([np.ones((3, 1))] * 8, tags=[["O", "B-x", "I-x"]] * 8), "entities"),
    ],
)
def test_population_obstacle_names_the_reason(data, reason):
    name = "gru_tagger" if data.tags else "gru_classifier"
    task = task_for(name).with_data(data, validation_data=data)
    assert reason in task.population_obstacle


def walks(count: int = 90, time: int = 12):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, time, 2)).astype("float32")
    return x, np.digitize(np.cumsum(x[..., 0], axis=1), (-1, 1))


SMALL = {"max_trials": 8, "epochs": 8, "verbose": 0, "space": {"units": (3, 6)}}


def test_integer_targets_give_a_model_that_outputs_probabilities(tmp_path):
    x, y = walks()
    result = zoo.search("gru_tagger", x, y, directory=tmp_path, **SMALL)
    assert result.oracle.objectives[0].name == "val_f1"
    assert result._population is not None
    probabilities = result.best_model.predict(x, verbose=0)
    assert probabilities.shape == (*y.shape, 3)
    loaded = zoo.load(tmp_path / "best.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), probabilities, atol=1e-6)
    before = loaded.evaluate(x, y, verbose=0)[0]
    loaded.fit(x, y, epochs=2, verbose=0)
    assert loaded.evaluate(x, y, verbose=0)[0] < before
    assert (
        "keras_seqzoo.search(&#39;gru_tagger&#39;, x, y" in (tmp_path / "report.html").read_text()
    )


@pytest.mark.slow
def test_string_targets_with_padding_give_an_end_to_end_model(tmp_path):
    x, y = walks()
    classes = np.array(["down", "near", "up"])[y]
    lengths = np.random.default_rng(2).integers(6, 13, len(x))
    x[np.arange(12) >= lengths[:, None]] = -9
    labels = classes[np.arange(len(x)), lengths - 1]
    result = zoo.search(
        "gru_classifier", x, labels, mask_value=-9.0, directory=tmp_path, report=False, **SMALL
    )
    assert preprocessor_of(result.best_model) == result.task.preprocessor
    assert result.task.preprocessor.mask_value == -9
    predictions = result.best_model.predict(x, verbose=0)
    assert set(predictions["labels"]) <= {b"down", b"near", b"up"}
    row, length = 3, lengths[3]
    alone = result.best_model.predict(x[row : row + 1, :length], verbose=0)["probabilities"]
    np.testing.assert_allclose(alone[0], predictions["probabilities"][row], atol=1e-6)


@pytest.mark.slow
def test_search_with_a_population_equals_the_search_one_by_one(tmp_path):
    x, y = walks()
    options = SMALL | {"sampler": "random", "report": False}
    together = zoo.search("gru_classifier", x, y[:, -1], directory=tmp_path / "a", **options)
    alone = zoo.search(
        "gru_classifier", x, y[:, -1], directory=tmp_path / "b", population=1, **options
    )
    columns = ["units", "loss"]
    np.testing.assert_allclose(
        together.results[columns].to_numpy(float), alone.results[columns].to_numpy(float), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (walks()[0], None, ArgumentError, "`y` must be given"),
        (walks()[0], np.ones((90, 12, 1), int), DataError, r"of shape \(90, 12\)"),
        (walks()[0], np.ones((90, 12)), DataError, "float64"),
        (walks()[0], -np.ones((90, 12), int), DataError, "from 0 on"),
        (np.ones((9, 12), int), np.ones((9, 12), int), DataError, "LabeledSequences"),
        (np.full((9, 12, 2), np.nan), np.ones((9, 12), int), DataError, "mask_value="),
    ],
)
def test_invalid_arrays_are_refused(x, y, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.search("gru_tagger", x, y, directory=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": 2}, ArgumentError, "`classes` must be 3"),
        ({"classes": "3"}, ArgumentError, "`classes`"),
        ({"time": 12}, ArgumentError, "`time`"),
        ({"mask_value": "nan"}, ArgumentError, "`mask_value`"),
        ({"validation_data": (walks()[0], walks()[1].astype(str))}, DataError, "both be ids"),
        ({"validation_data": walks()[0]}, ArgumentError, "a pair"),
    ],
)
def test_arguments_that_contradict_the_arrays_are_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.search("gru_tagger", *walks(), directory=tmp_path, **SMALL, **options)


def test_classes_at_padded_steps_are_ignored():
    x, y = walks()
    x[:, 8:], y[:, 8:] = -9, 99
    task = task_for("gru_tagger", mask_value=-9.0)
    bound = task.with_data(x, y, validation_split=0.25)
    assert bound.preprocessor.classes == ("0", "1", "2")
    assert set(bound.training.lengths) == {8}
    x[3] = -9
    with pytest.raises(DataError, match="row 3 with padding alone"):
        task.with_data(x, y, validation_split=0.25)
    with pytest.raises(DataError, match="of one length"):
        unmasked = task_for("gru_tagger").with_data(*walks(), validation_split=0.25).preprocessor
        unmasked.batches(sequences_of_two_lengths())


def sequences_of_two_lengths() -> LabeledSequences:
    return LabeledSequences([np.ones((3, 2)), np.ones((2, 2))], tags=[["0"] * 3, ["1"] * 2])


def test_integer_and_string_targets_have_different_fingerprints():
    x, y = walks()
    integers, strings = (
        task_for("gru_tagger").with_data(x, targets, validation_split=0.25)
        for targets in (y, y.astype(str))
    )
    assert integers.fingerprint() != strings.fingerprint()


@pytest.mark.slow
def test_diverged_single_trial_fails():
    data = examples("labels", unequal=True)
    hypermodel = ZooHyperModel(task_for("gru_classifier").with_data(data, validation_split=0.3))
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values["learning_rate"] = float("inf")
    with pytest.raises(FailedTrialError, match="diverged"):
        run_trial(
            hypermodel, hp, objectives=OBJECTIVES, epochs=2, batch_size=BATCH,
            callbacks=(), seed=0,
        )  # fmt: skip


@pytest.mark.slow
def test_sequences_are_padded_with_the_mask_value_of_the_model():
    data = examples("labels", unequal=True)
    trained = zoo.train(
        "gru_classifier", data, validation_data=data, mask_value=-9.0, units=4, epochs=1, verbose=0
    )
    assert trained.preprocessor.mask_value == preprocessor_of(trained.model).mask_value == -9
    assert np.isfinite(trained.history["loss"]).all()
