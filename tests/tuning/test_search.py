"""Searches: reproducible trials, also of a resumed search, results and refusals."""

import errno
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import filelock
import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import keras_seqzoo as zoo
from keras_seqzoo import registry
from keras_seqzoo.errors import (
    ArgumentError,
    DataError,
    SearchError,
    UnknownArgumentError,
    UnknownNameError,
)
from keras_seqzoo.registry.search_space import Choice, Float, Int
from keras_seqzoo.tasks.window_data import split_windows
from keras_seqzoo.tuning import results
from keras_seqzoo.tuning.report.page import write_report
from keras_seqzoo.tuning.study import storage
from keras_seqzoo.tuning.trial import BestEpoch
from keras_seqzoo.utils import files
from keras_seqzoo.utils.random import derive_seed, seeded

pytestmark = pytest.mark.tensorflow

COLUMNS = ["trial", "units", "learning_rate", "val_identity_error", "val_state_leakage", "state"]


def rows(seed=0, count=24, steps=8, features=2):
    walk = np.cumsum(np.random.default_rng(seed).normal(size=(count, steps, features)), axis=1)
    return (50 + 3 * walk).astype("float32")


def search(directory, x=None, name="simple_rnn_identity", **options):
    options = {"max_trials": 3, "epochs": 2, "verbose": 0, "report": False} | options
    return zoo.search(name, rows() if x is None else x, directory=directory, **options)


def eager_tpe(seed):
    """A TPE sampler that uses all results from the second trial on."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1)


def assert_same(actual, expected):
    for column in COLUMNS:
        np.testing.assert_array_equal(
            actual[column].to_numpy(), expected[column].to_numpy(), column
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted search of five trials."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    return search(directory, max_trials=5, sampler=eager_tpe)


def test_same_seed_gives_the_same_trials_and_scores(tmp_path, finished):
    np.random.seed(123)  # whatever state the user's generators are in
    again = search(tmp_path / "again", max_trials=5, sampler=eager_tpe)
    assert_same(again.results, finished.results)
    other = search(tmp_path / "other", max_trials=2, seed=1)
    assert other.results["val_identity_error"][0] != finished.results["val_identity_error"][0]


@pytest.mark.slow
def test_higher_max_trials_continues_the_search(tmp_path, finished):
    search(tmp_path, max_trials=2, sampler=eager_tpe)
    # Equal only if no population was incomplete: later proposals use more results.
    assert_same(search(tmp_path, max_trials=5, sampler=eager_tpe).results, finished.results)


ROOT = str(Path(__file__).resolve().parents[2])
SCRIPT = """
    import os, signal, sys
    import numpy as np, keras, optuna, keras_seqzoo as zoo
    from keras_seqzoo.tuning.study import oracle, storage
    sys.path.insert(0, {root!r})
    from tests.tuning.test_search import rows, eager_tpe

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    class Killer(keras.callbacks.Callback):
        epochs = 0
        def __deepcopy__(self, memo):
            return self
        def on_epoch_end(self, epoch, logs=None):
            Killer.epochs += 1
            if Killer.epochs == 5:
                die()

    where = {where!r}
    def third(function):
        calls = []
        def counted(*args, **kwargs):
            calls.append(1)
            return die() if len(calls) == 3 else function(*args, **kwargs)
        return counted

    if where == "suggest":
        oracle._suggest = third(oracle._suggest)
    if where == "tell":
        storage.TrialStore.finish = third(storage.TrialStore.finish)
    if where == "partial tell":
        cached = optuna.storages._CachedStorage
        cached.set_trial_state_values = third(cached.set_trial_state_values)
    callbacks = [Killer()] if where == "training" else []
    zoo.search("simple_rnn_identity", rows(), directory={directory!r}, max_trials=5, epochs=2,
               verbose=0, report=False, callbacks=callbacks, sampler=eager_tpe)
"""


@pytest.mark.parametrize("where", ["training", "suggest", "tell", "partial tell"])
@pytest.mark.slow
def test_killed_search_resumes_to_the_uninterrupted_results(tmp_path, finished, where):
    script = textwrap.dedent(SCRIPT).format(root=ROOT, where=where, directory=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = search(tmp_path, max_trials=5, sampler=eager_tpe)
    assert_same(resumed.results, finished.results)
    for actual, expected in zip(
        resumed.best_model.get_weights(), finished.best_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert len(study.get_trials()) == 5  # the interrupted trial was repeated, not copied


@pytest.mark.parametrize("where", ["weights", "study"])
@pytest.mark.slow
def test_full_disk_stops_the_search_without_loss_of_trials(tmp_path, finished, monkeypatch, where):
    calls = []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) != 3:
            return original(*args, **kwargs)
        if where == "weights":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise optuna.exceptions.StorageInternalError("database or disk is full")

    target, name = (files, "replacing") if where == "weights" else (storage.TrialStore, "finish")
    original = getattr(target, name)
    monkeypatch.setattr(target, name, full)
    with pytest.raises(SearchError, match=r"had to stop.*Nothing that was finished is lost"):
        search(tmp_path, max_trials=5, sampler=eager_tpe)
    monkeypatch.undo()
    assert_same(search(tmp_path, max_trials=5, sampler=eager_tpe).results, finished.results)


@pytest.mark.slow
def test_second_process_in_the_same_directory_is_refused(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(SearchError, match="Another process"):
        search(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x": rows(seed=1)}, "data"),
        ({"space": {"units": [2, 4]}}, "space"),
        ({"epochs": 3}, "epochs"),
        ({"seed": 9}, "seed"),
        ({"activation": "relu"}, "fixed arguments"),
        ({"block": 2}, "block"),
    ],
)
def test_other_settings_or_data_are_refused_on_resume(tmp_path, finished, change, word):
    with pytest.raises(SearchError, match=f"another .*{word}"):
        search(finished.path, **({"max_trials": 5, "sampler": eager_tpe} | change))
    assert len(search(finished.path, max_trials=5, sampler=eager_tpe).results) == 5


@pytest.mark.slow
def test_overwrite_starts_over_and_keeps_other_files(tmp_path):
    search(tmp_path, max_trials=1)
    (tmp_path / "notes.txt").write_text("mine")
    fresh = search(tmp_path, max_trials=2, seed=3, overwrite=True)
    assert len(fresh.results) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_damaged_study_is_refused_with_one_sentence(tmp_path):
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be read" * 50)
    with pytest.raises(SearchError, match="cannot be read"):
        search(tmp_path)


@pytest.fixture
def picky():
    """An entry that cannot be built with 3 units."""

    def picky(*, features: int = 1, units: int = 2, name: str = "picky"):
        if units == 3:
            raise RuntimeError("three is too many")
        return registry.get_entry("simple_rnn_identity").load_constructor()(
            features=features, units=units
        )

    zoo.register(
        "picky", picky, task="identity", summary="Fails at times.", inputs="(b, t, f)",
        outputs="(b, t, f)", causal=True, space={"units": Choice((3, 2, 3), default=3)},
    )  # fmt: skip
    yield "picky"
    zoo.unregister("picky")


def test_failing_trial_keeps_its_traceback_and_the_search_continues(tmp_path, picky):
    result = search(tmp_path, name=picky, max_trials=6, sampler="random", report=True)
    table = result.results
    assert set(table["state"]) == {"complete", "failed"}
    assert table["message"][0].startswith("Traceback")
    assert "three is too many" in table["message"][0]
    assert result.best_model is not None
    assert "three is too many" in (tmp_path / "report.html").read_text()
    same_again = search(tmp_path, name=picky, max_trials=6, sampler="random")
    assert list(same_again.results["state"]) == list(table["state"])


def test_targets_other_than_the_input_are_trained_and_reported(tmp_path):
    x = rows()
    result = search(tmp_path, x, y=3 * x, max_trials=1, report=True)
    error = zoo.metrics.identity_error(result.best_model, x[18:], 3 * x[18:])
    np.testing.assert_allclose(result.results["val_identity_error"][0], error, rtol=1e-6)
    assert f"{error:.2g}" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_initializer_and_regularizer_objects_are_seeded_per_trial_and_resume(tmp_path):
    def run(**options):
        return search(
            tmp_path,
            recurrent_initializer=keras.initializers.Orthogonal(),
            kernel_regularizer=keras.regularizers.L2(0.01),
            **options,
        )

    random.seed(1)
    first = run(max_trials=1).results["val_identity_error"][0]
    random.seed(2)
    again = run(max_trials=1, overwrite=True).results["val_identity_error"][0]
    assert first == again
    assert len(run(max_trials=2).results) == 2


def test_unmet_budget_raises_and_saves_the_model_with_the_best_objective(tmp_path):
    with pytest.raises(SearchError, match=r"the least is.*best\.keras"):
        search(tmp_path, max_trials=2, max_leakage=0.0)
    assert zoo.load(tmp_path / "best.keras") is not None


def test_pareto_front_respects_a_maximized_objective(tmp_path):
    objectives = [
        keras_tuner.Objective("val_identity_error", "min"),
        keras_tuner.Objective("val_state_leakage", "max"),
    ]
    table = search(tmp_path, objective=objectives, max_trials=4, sampler="random").results
    assert table["pareto"][table["val_state_leakage"].idxmax()]
    assert table["pareto"][table["val_identity_error"].idxmin()]


def test_search_whose_trials_all_fail_raises_with_the_first_traceback(tmp_path, picky):
    with (
        pytest.warns(UserWarning, match="Nothing varies"),
        pytest.raises(SearchError, match=r"(?s)All 2 trials failed.*three is too many"),
    ):
        search(tmp_path, name=picky, max_trials=2, units=3)


def test_diverged_trial_has_no_score(tmp_path):
    with pytest.raises(SearchError, match="diverged"), np.errstate(all="ignore"):
        search(tmp_path, max_trials=1, learning_rate=1e30, activation="relu", epochs=3)


def test_best_epoch_ignores_epochs_that_are_not_finite():
    best = BestEpoch([keras_tuner.Objective("cost", "min")])
    best.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    for epoch, cost in enumerate([np.nan, 3.0, 2.0, -np.inf, np.nan, 2.5]):
        best.on_epoch_end(epoch, {"cost": cost})
    assert (best.epoch, best.metrics) == (2, {"cost": 2.0})


def test_validation_windows_do_not_enter_normalization(tmp_path):
    x = rows(count=24)
    x[18:] += 1000
    result = search(tmp_path, x, max_trials=1, validation_split=0.25)
    mean = result.best_model.get_layer("scale").get_weights()[0]
    np.testing.assert_allclose(mean, x[:18].mean(axis=(0, 1)), rtol=1e-5)


def test_windows_are_split_in_time_order():
    x = np.arange(10.0).reshape(10, 1, 1).repeat(2, axis=1)
    x_train, _, x_val, _ = split_windows(x, None, None, 0.3)
    np.testing.assert_array_equal(x_train[:, 0, 0], np.arange(7))
    np.testing.assert_array_equal(x_val[:, 0, 0], [7, 8, 9])


@pytest.mark.slow
def test_score_is_that_of_the_weights_of_the_best_epoch(finished):
    x_val = finished.task.bound_windows.x_val
    for model, trial in zip(
        finished.get_best_models(3), finished.oracle.get_best_trials(3), strict=True
    ):
        error, leakage = zoo.metrics.identity_error(model, x_val), zoo.leakage(model, x_val).index
        np.testing.assert_allclose(error + leakage, trial.score, rtol=1e-6)


def test_saved_model_is_the_chosen_one_and_can_be_trained_further(finished):
    loaded = zoo.load(finished.path / "best.keras")
    x = rows(seed=5)
    np.testing.assert_array_equal(
        loaded.predict_on_batch(x), finished.best_model.predict_on_batch(x)
    )
    assert loaded.loss.variance is not None
    loaded.fit(x, x, verbose=0)


def test_results_agree_with_the_methods_of_kerastuner(finished, capsys):
    table = finished.results
    assert list(table["trial"]) == list(range(5))
    best = table.loc[table["val_identity_cost"].idxmin()]
    assert finished.get_best_hyperparameters()[0].values["units"] == best["units"]
    finished.results_summary()
    assert "Score" in capsys.readouterr().out
    assert table["pareto"].any()


def test_select_returns_the_best_model_within_the_budget(finished):
    table = finished.results
    limit = table["val_state_leakage"].median()
    within = table[table["val_state_leakage"] <= limit]
    model = finished.select(max_leakage=limit)
    error = zoo.metrics.identity_error(model, finished.task.bound_windows.x_val)
    np.testing.assert_allclose(error, within["val_identity_error"].min(), rtol=1e-6)
    assert finished.select(max_error=1e9) is not None
    with pytest.raises(SearchError, match="the least is"):
        finished.select(max_leakage=0.0)
    with pytest.raises(ArgumentError, match="neither"):
        finished.select()
    with pytest.raises(ArgumentError, match="together"):
        finished.select(max_leakage=1, max_error=1)
    with pytest.raises(ArgumentError, match="at least 0"):
        finished.select(max_leakage=float("nan"))


@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(1, 12), st.just(2)),
        elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan]),
    )
)
def test_pareto_front_has_the_rows_that_no_row_dominates(costs):
    front = results.pareto_front(costs)
    for i, row in enumerate(costs):
        dominated = any(
            (other <= row).all() and (other < row).any()
            for other in costs
            if np.isfinite(other).all()
        )
        assert front[i] == (np.isfinite(row).all() and not dominated)


@pytest.mark.slow
def test_two_objectives_are_sampled_for_their_pareto_front(tmp_path):
    result = search(tmp_path, objective=["val_identity_error", "val_state_leakage"], max_trials=3)
    assert len(result.oracle.trial_store.study.best_trials) == result.results["pareto"].sum()
    assert result.best_model is not None


@pytest.mark.slow
def test_search_restores_random_generators_and_dtype_policy(tmp_path):
    keras.layers.Dense(1)  # the first one has no number
    name, number = keras.layers.Dense(1).name.rsplit("_", 1)
    random.seed(5)
    np.random.seed(5)
    keras.config.set_dtype_policy("float32")
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    search(tmp_path, max_trials=1)
    assert (random.random(), np.random.random()) == expected
    assert keras.config.dtype_policy().name == "float32"
    assert keras.layers.Dense(1).name == f"{name}_{int(number) + 1}"


def test_derived_seeds_differ_by_seed_trial_and_purpose():
    seeds = [derive_seed(seed, trial, "training") for seed in range(50) for trial in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(0, 1, "training") != derive_seed(0, 1, "sampler")
    with seeded(3):
        value = np.random.random()
    with seeded(3):
        assert np.random.random() == value


def test_callbacks_are_copied_for_each_trial_and_can_monitor_objectives(tmp_path):
    stopping = keras.callbacks.EarlyStopping("val_identity_cost", mode="min", min_delta=1e6)
    result = search(tmp_path, max_trials=2, epochs=8, callbacks=[stopping])
    assert (result.results["epochs"] == 2).all()
    assert stopping.model is None


def test_first_trial_has_the_defaults_and_the_space_can_be_restricted(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Fixed("learning_rate", 0.02)
    result = search(
        tmp_path,
        max_trials=3,
        space={"units": [3, 5], "recurrent_strength": (0.01, 0.02)},
        recurrent_initializer="zeros",
        hyperparameters=hp,
    )
    table = result.results
    assert table["recurrent_regularizer"][0] == "l1"
    assert set(table["units"]) <= {3, 5}
    assert table["recurrent_strength"].dropna().between(0.01, 0.02).all()
    assert (table["learning_rate"] == 0.02).all()
    assert "recurrent_initializer" not in table


def test_hypermodel_builds_models_with_the_sampled_values():
    hypermodel = zoo.hypermodel("simple_rnn_identity", features=3, recurrent_regularizer="l2")
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    assert model.input_shape == (None, None, 3)
    # The kind of regularizer is fixed, its strength is not.
    assert set(hp.values) == {
        "units",
        "recurrent_strength",
        "recurrent_initializer",
        "learning_rate",
    }
    none = zoo.hypermodel("simple_rnn_identity", recurrent_regularizer=None)
    assert "recurrent_strength" not in none.dimensions
    tuned = zoo.hypermodel("simple_rnn_identity")
    hp = keras_tuner.HyperParameters()
    hp.Fixed("recurrent_regularizer", "l1_l2")
    hp.Fixed("recurrent_strength", 0.25)
    regularizer = tuned.build(hp).get_layer("recurrent").cell.recurrent_regularizer
    np.testing.assert_allclose([regularizer.l1, regularizer.l2], 0.25)


@pytest.mark.parametrize("kind", ["random", "bayesian", "hyperband"])
@pytest.mark.slow
def test_tuners_of_kerastuner_run_the_hypermodel(tmp_path, kind):
    hypermodel = zoo.hypermodel("simple_rnn_identity", features=2, space={"units": [2, 3]})
    options = {"directory": tmp_path, "project_name": "kt", "seed": 1}
    if kind == "hyperband":
        tuner = keras_tuner.Hyperband(
            hypermodel, hypermodel.objective, max_epochs=3, factor=3, **options
        )
    elif kind == "random":
        tuner = keras_tuner.RandomSearch(hypermodel, hypermodel.objective, max_trials=2, **options)
    else:
        pytest.importorskip("sklearn")
        tuner = keras_tuner.BayesianOptimization(
            hypermodel, hypermodel.objective, max_trials=3, num_initial_points=2, **options
        )
    x = rows()
    tuner.search(x[:16], validation_data=x[16:], epochs=2, verbose=0)
    best = tuner.oracle.get_best_trials()[0]
    assert best.status == "COMPLETED"
    assert np.isfinite(best.score)


@pytest.mark.slow
def test_padding_with_nan_is_neither_trained_on_nor_scored(tmp_path):
    x = rows()
    x[::2, 5:] = np.nan
    for sequences in (True, False):
        result = search(
            tmp_path / str(sequences),
            x,
            max_trials=1,
            mask_value=float("nan"),
            return_sequences=sequences,
        )
        assert np.isfinite(result.results["val_identity_error"][0])
        assert np.isfinite(result.results["loss"][0])


def test_progress_is_silent_or_one_line_per_trial(tmp_path, capsys):
    search(tmp_path / "a", max_trials=2)
    assert capsys.readouterr().out == ""
    search(tmp_path / "b", max_trials=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("2/2 done, trial 1: error ")
    assert "best error" in lines[1]


def test_report_is_self_contained_and_escapes_html(finished, monkeypatch):
    monkeypatch.setattr(finished.task, "columns", ("<oil>", "b"))
    text = write_report(finished, notes=("A & B.",)).read_text()
    assert text.count("<svg") >= 5
    assert "<oil>" not in text
    assert "&lt;oil&gt;" in text
    assert "A &amp; B." in text
    for outside in ('src="http', 'href="http', "@import", "<script", "<link"):
        assert outside not in text.replace('xlink:href="http://www.w3.org', "")
    assert finished.choice in text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "simple_rnn_identify"}, UnknownNameError, "Did you mean"),
        ({"unit": 3}, UnknownArgumentError, "Did you mean 'units'"),
        ({"space": {"unit": [3]}}, UnknownArgumentError, "units"),
        ({"space": {"units": "many"}}, ArgumentError, "list of choices"),
        ({"features": 5}, DataError, "for 'simple_rnn_identity'"),
        ({"activation": "tanhh"}, ArgumentError, "activation"),
        ({"x": np.ones((9, 3, 1))}, DataError, "must vary"),
        ({"x": np.zeros((9, 1, 1))}, DataError, "at least 2 steps"),
        ({"learning_rate": "fast"}, ArgumentError, "above 0"),
        ({"block": 5}, ArgumentError, "half of the"),
        ({"y": rows(), "validation_data": rows()}, ArgumentError, "given both"),
        ({"max_trials": 0}, ArgumentError, "max_trials"),
        ({"epochs": 1.5}, ArgumentError, "epochs"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"sampler": "best"}, ArgumentError, "tpe"),
        ({"objective": "f1_score"}, ArgumentError, "direction"),
        ({"objective": []}, ArgumentError, "objective"),
        ({"validation_split": 1.0}, ArgumentError, "between 0 and 1"),
        ({"validation_split": np.zeros(0)}, ArgumentError, "between 0 and 1"),
        ({"validation_data": rows(features=3)}, DataError, "features"),
        ({"validation_data": 3}, ArgumentError, "validation_data"),
        ({"x": np.zeros((5, 3))}, DataError, "windows"),
        ({"x": np.zeros((2, 3, 1))}, DataError, "enough rows"),
        ({"x": np.full((9, 3, 1), "a")}, DataError, "real numbers"),
        ({"y": np.zeros((2, 2))}, DataError, "as many rows"),
    ],
)
def test_invalid_arguments_are_refused_before_any_trial_runs(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        search(tmp_path / "new", **options)
    assert not list(tmp_path.glob("new/trials/*"))


def test_objective_that_is_not_in_the_logs_ends_the_search(tmp_path):
    objective = keras_tuner.Objective("val_f1", "max")
    with pytest.raises(SearchError, match=r"val_f1.*the logs have"):
        search(tmp_path, objective=objective)


def test_objective_that_includes_the_penalty_warns(tmp_path):
    with pytest.warns(UserWarning, match="penalty"):
        search(tmp_path, max_trials=1, objective="val_loss")


def test_invalid_dimensions_are_refused():
    with pytest.raises(ArgumentError, match="increasing"):
        Int(5, 2)
    with pytest.raises(ArgumentError, match="above 0"):
        Float(0.0, 1.0, log=True)
    with pytest.raises(ArgumentError, match="non-empty"):
        Choice(())
    with pytest.raises(ArgumentError, match="default"):
        Choice(("a",), default="b")
