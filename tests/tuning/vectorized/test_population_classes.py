"""Classifiers and taggers trained together against the same trials trained alone."""

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
    """How far a walk has gone, in three classes: at every step, or in the end."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, count) if unequal else np.full(count, 10)
    sequences = [rng.normal(size=(length, 2)).astype(np.float32) for length in lengths]
    walks = [np.digitize(np.cumsum(one[:, 0]), (-1, 1)) for one in sequences]
    names = [np.array(["down", "near", "up"])[walk].tolist() for walk in walks]
    if target == "tags":
        return LabeledSequences(sequences, tags=names)
    return LabeledSequences(sequences, labels=[one[-1] for one in names])


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
def test_a_member_ends_where_it_ends_alone(name, unequal, fixed, float64, monkeypatch):
    monkeypatch.setattr(population, "UNITS", 10)  # two calls
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
    for place in (0, 1):
        found = trained.finish(runs[place])
        expected = run_trial(
            hypermodel, members[place].hp, objectives=OBJECTIVES, epochs=EPOCHS,
            batch_size=BATCH, callbacks=(), seed=members[place].seed,
        )  # fmt: skip
        assert found.epoch == expected.epoch
        assert set(found.history) == set(expected.history)
        for key, curve in expected.history.items():
            np.testing.assert_allclose(found.history[key], curve, rtol=1e-6, err_msg=key)
        for ours, theirs in zip(found.model.weights, expected.model.weights, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-8)
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
def test_what_trains_one_by_one_says_why(data, reason):
    name = "gru_tagger" if data.tags else "gru_classifier"
    task = task_for(name).with_data(data, validation_data=data)
    assert reason in task.population_obstacle


def walks(count: int = 90, time: int = 12):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, time, 2)).astype("float32")
    return x, np.digitize(np.cumsum(x[..., 0], axis=1), (-1, 1))


SMALL = {"max_trials": 8, "epochs": 8, "verbose": 0, "space": {"units": (3, 6)}}


def test_arrays_with_numbers_of_classes_give_a_model_of_numbers(tmp_path):
    x, y = walks()
    found = zoo.search("gru_tagger", x, y, directory=tmp_path, **SMALL)
    assert found.oracle.objectives[0].name == "val_f1"
    assert found._population is not None
    probabilities = found.best_model.predict(x, verbose=0)
    assert probabilities.shape == (*y.shape, 3)
    loaded = zoo.load(tmp_path / "best.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), probabilities, atol=1e-6)
    before = loaded.evaluate(x, y, verbose=0)[0]
    loaded.fit(x, y, epochs=2, verbose=0)
    assert loaded.evaluate(x, y, verbose=0)[0] < before
    assert (
        "keras_seqzoo.search(&#39;gru_tagger&#39;, x, y" in (tmp_path / "report.html").read_text()
    )


def test_arrays_with_names_and_padding_give_a_model_of_names(tmp_path):
    x, y = walks()
    names = np.array(["down", "near", "up"])[y]
    lengths = np.random.default_rng(2).integers(6, 13, len(x))
    x[np.arange(12) >= lengths[:, None]] = -9
    labels = names[np.arange(len(x)), lengths - 1]
    found = zoo.search(
        "gru_classifier", x, labels, mask_value=-9.0, directory=tmp_path, report=False, **SMALL
    )
    assert preprocessor_of(found.best_model) == found.rows.preprocessor
    assert found.rows.preprocessor.mask_value == -9
    answers = found.best_model.predict(x, verbose=0)
    assert set(answers["labels"]) <= {b"down", b"near", b"up"}
    row, length = 3, lengths[3]
    alone = found.best_model.predict(x[row : row + 1, :length], verbose=0)["probabilities"]
    np.testing.assert_allclose(alone[0], answers["probabilities"][row], atol=1e-6)


def test_a_search_of_classes_gives_what_it_gives_one_by_one(tmp_path):
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
def test_arrays_that_cannot_be_searched_are_refused(x, y, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.search("gru_tagger", x, y, directory=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": 2}, ArgumentError, "`classes` must be 3"),
        ({"classes": "3"}, ArgumentError, "`classes`"),
        ({"time": 12}, ArgumentError, "`time`"),
        ({"mask_value": "nan"}, ArgumentError, "`mask_value`"),
        ({"validation_data": (walks()[0], walks()[1].astype(str))}, DataError, "both be numbers"),
        ({"validation_data": walks()[0]}, ArgumentError, "a pair"),
    ],
)
def test_what_does_not_fit_the_arrays_is_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.search("gru_tagger", *walks(), directory=tmp_path, **SMALL, **options)


def test_classes_at_padded_steps_are_none():
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
        unmasked.batches(rows_of_two_lengths())


def rows_of_two_lengths() -> LabeledSequences:
    return LabeledSequences([np.ones((3, 2)), np.ones((2, 2))], tags=[["0"] * 3, ["1"] * 2])


def test_numbers_and_names_of_the_same_classes_are_other_data():
    x, y = walks()
    one, other = (
        task_for("gru_tagger").with_data(x, given, validation_split=0.25)
        for given in (y, y.astype(str))
    )
    assert one.fingerprint() != other.fingerprint()


def test_a_trial_that_diverges_alone_has_no_score():
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


def test_examples_are_padded_with_what_the_model_masks():
    data = examples("labels", unequal=True)
    trained = zoo.train(
        "gru_classifier", data, validation_data=data, mask_value=-9.0, units=4, epochs=1, verbose=0
    )
    assert trained.preprocessor.mask_value == preprocessor_of(trained.model).mask_value == -9
    assert np.isfinite(trained.history["loss"]).all()
