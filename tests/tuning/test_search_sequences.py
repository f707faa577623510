"""Searches of taggers, classifiers and forecasters."""

import keras_tuner
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.data import LabeledSequences
from keras_seqzoo.errors import ArgumentError, DataError, UnknownArgumentError
from keras_seqzoo.tasks import evaluate
from keras_seqzoo.wrapping import preprocessor_of

pytestmark = pytest.mark.tensorflow

SMALL = {"max_trials": 3, "epochs": 2, "verbose": 0, "space": {"units": (3, 6)}}


def tagged(count: int = 60, seed: int = 0) -> LabeledSequences:
    """Sentences in which the token after "in" is tagged as a city."""
    rng = np.random.default_rng(seed)
    words, cities = ["play", "is", "it", "warm"], ["oslo", "rome", "bern"]
    sequences, tags = [], []
    for _ in range(count):
        before = list(rng.choice(words, rng.integers(1, 5)))
        sequences.append([*before, "in", rng.choice(cities)])
        tags.append(["O"] * (len(before) + 1) + ["B-city"])
    return LabeledSequences(sequences, tags=tags)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    examples = tagged()
    return zoo.search("bilstm_crf_tagger", examples, directory=folder, **SMALL), examples, folder


def test_tagger_is_chosen_by_f1(searched):
    search, _, _ = searched
    assert [(objective.name, objective.direction) for objective in search.oracle.objectives] == [
        ("val_f1", "max")
    ]
    results = search.results
    assert len(results) == 3
    assert search.chosen.score == results["val_f1"].max()


def test_best_model_is_end_to_end_and_reproduces_its_score(searched):
    search, examples, folder = searched
    model = search.best_model
    assert preprocessor_of(model) == search.task.preprocessor
    scores = evaluate(model, search.task.validation)
    np.testing.assert_allclose(scores.f1, search.chosen.score, atol=1e-6)
    loaded = zoo.load(folder / "best.keras")
    sentences = np.array([" ".join(sequence) for sequence in examples.sequences[:5]], object)
    np.testing.assert_array_equal(
        loaded.predict(sentences, verbose=0)["tags"], model.predict(sentences, verbose=0)["tags"]
    )


def test_report_has_scores_memory_horizon_and_classes(searched):
    _, _, folder = searched
    report = (folder / "report.html").read_text()
    for text in ("F1, validation", "memory horizon", "look-ahead", "Learning curves", "city"):
        assert text in report
    assert report.count("<svg") >= 4


@pytest.mark.slow
def test_search_continues_with_more_trials(searched, tmp_path):
    _, examples, _ = searched
    uninterrupted = zoo.search(
        "gru_classifier", labeled(examples), directory=tmp_path / "a", **SMALL
    )
    zoo.search(
        "gru_classifier", labeled(examples), directory=tmp_path / "b", **SMALL | {"max_trials": 1}
    )
    resumed = zoo.search("gru_classifier", labeled(examples), directory=tmp_path / "b", **SMALL)
    columns = ["units", "learning_rate", "val_accuracy"]
    np.testing.assert_allclose(
        uninterrupted.results[columns].to_numpy(float),
        resumed.results[columns].to_numpy(float),
        rtol=1e-6,
    )


def labeled(examples: LabeledSequences) -> LabeledSequences:
    return LabeledSequences(
        examples.sequences, labels=[sequence[-1] for sequence in examples.sequences]
    )


@pytest.mark.slow
def test_classifier_is_chosen_by_accuracy_and_other_data_is_refused(tmp_path):
    examples = labeled(tagged())
    search = zoo.search("simple_rnn_classifier", examples, directory=tmp_path, **SMALL)
    assert search.oracle.objectives[0].name == "val_accuracy"
    with pytest.raises(zoo.errors.SearchError, match="data"):
        zoo.search("simple_rnn_classifier", labeled(tagged(seed=1)), directory=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("name", "examples", "options", "error", "message"),
    [
        ("simple_rnn_identity", tagged(), {}, ArgumentError, "TimeSeries for the task"),
        ("gru_classifier", tagged(), {}, ArgumentError, "target"),
        ("gru_tagger", tagged(), {"validation_data": np.ones(3)}, ArgumentError, "Labeled"),
        ("gru_tagger", tagged(), {"unit": 3}, UnknownArgumentError, "Did you mean 'units'"),
        (
            "gru_tagger", tagged(), {"validation_data": labeled(tagged())}, DataError,
            "must have tags",
        ),
    ],
)  # fmt: skip
def test_invalid_data_and_arguments_are_refused(name, examples, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.search(name, examples, directory=tmp_path, **SMALL | options)


@pytest.mark.slow
def test_tuner_of_kerastuner_searches_a_tagger_on_arrays(tmp_path):
    hypermodel = zoo.hypermodel("gru_tagger", vocabulary_size=9, classes=3, space={"units": [3, 4]})
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=2, directory=tmp_path
    )
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 9, (12, 5)), rng.integers(0, 3, (12, 5))
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert all(trial.score is not None for trial in tuner.oracle.trials.values())


@pytest.mark.slow
def test_forecaster_is_chosen_by_the_error_of_the_next_reading(tmp_path):
    x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=400), sequence_length=20)
    search = zoo.search("gru_forecaster", x, directory=tmp_path, **SMALL)
    assert search.oracle.objectives[0].name == "val_identity_error"
    assert search.task.bound_windows.x.shape[1] == search.task.bound_windows.y.shape[1] == 19
    np.testing.assert_array_equal(
        search.task.bound_windows.x[:, 1:], search.task.bound_windows.y[:, :-1]
    )
