"""Searches over labeled and tagged sequences, and of forecasters."""

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
    """A city is what follows "in"."""
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


def test_a_tagger_is_chosen_by_f1(searched):
    found, _, _ = searched
    assert [(one.name, one.direction) for one in found.oracle.objectives] == [("val_f1", "max")]
    results = found.results
    assert len(results) == 3
    assert found.chosen.score == results["val_f1"].max()


def test_the_best_model_takes_sentences_and_scores_as_it_did(searched):
    found, examples, folder = searched
    model = found.best_model
    assert preprocessor_of(model) == found.task.preprocessor
    scores = evaluate(model, found.task.validation)
    np.testing.assert_allclose(scores.f1, found.chosen.score, atol=1e-6)
    loaded = zoo.load(folder / "best.keras")
    sentences = np.array([" ".join(one) for one in examples.sequences[:5]], object)
    np.testing.assert_array_equal(
        loaded.predict(sentences, verbose=0)["tags"], model.predict(sentences, verbose=0)["tags"]
    )


def test_a_report_shows_scores_memory_and_classes(searched):
    _, _, folder = searched
    report = (folder / "report.html").read_text()
    for said in ("F1, validation", "memory horizon", "look-ahead", "Learning curves", "city"):
        assert said in report
    assert report.count("<svg") >= 4


def test_a_search_goes_on_where_it_ended(searched, tmp_path):
    _, examples, _ = searched
    whole = zoo.search("gru_classifier", labeled(examples), directory=tmp_path / "a", **SMALL)
    zoo.search(
        "gru_classifier", labeled(examples), directory=tmp_path / "b", **SMALL | {"max_trials": 1}
    )
    again = zoo.search("gru_classifier", labeled(examples), directory=tmp_path / "b", **SMALL)
    columns = ["units", "learning_rate", "val_accuracy"]
    np.testing.assert_allclose(
        whole.results[columns].to_numpy(float), again.results[columns].to_numpy(float), rtol=1e-6
    )


def labeled(examples: LabeledSequences) -> LabeledSequences:
    return LabeledSequences(examples.sequences, labels=[one[-1] for one in examples.sequences])


def test_a_classifier_is_chosen_by_accuracy_and_other_data_is_another_search(tmp_path):
    examples = labeled(tagged())
    found = zoo.search("simple_rnn_classifier", examples, directory=tmp_path, **SMALL)
    assert found.oracle.objectives[0].name == "val_accuracy"
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
def test_what_cannot_be_searched_is_refused_at_once(
    name, examples, options, error, message, tmp_path
):
    with pytest.raises(error, match=message):
        zoo.search(name, examples, directory=tmp_path, **SMALL | options)


def test_keras_tuners_own_tuner_searches_a_tagger_on_arrays(tmp_path):
    hypermodel = zoo.hypermodel("gru_tagger", vocabulary_size=9, classes=3, space={"units": [3, 4]})
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=2, directory=tmp_path
    )
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 9, (12, 5)), rng.integers(0, 3, (12, 5))
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert all(trial.score is not None for trial in tuner.oracle.trials.values())


def test_a_forecaster_is_searched_by_the_error_of_the_next_reading(tmp_path):
    x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=400), sequence_length=20)
    found = zoo.search("gru_forecaster", x, directory=tmp_path, **SMALL)
    assert found.oracle.objectives[0].name == "val_identity_error"
    assert found.task.bound_windows.x.shape[1] == found.task.bound_windows.y.shape[1] == 19
    np.testing.assert_array_equal(
        found.task.bound_windows.x[:, 1:], found.task.bound_windows.y[:, :-1]
    )
