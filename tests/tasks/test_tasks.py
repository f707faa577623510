"""Tasks: every entry trains on data of its task; custom entries behave like built-in ones."""

import importlib.metadata
import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

import keras_seqzoo as zoo
from keras_seqzoo import data, tasks
from keras_seqzoo.cli import main
from keras_seqzoo.errors import ArgumentError, RegistrationError
from keras_seqzoo.registry import requirements

pytestmark = pytest.mark.tensorflow

QUICK = {"epochs": 1, "verbose": 0}
SMALL = {"units": 3}


def series(steps: int = 240, features: int = 2) -> data.TimeSeries:
    values = np.cumsum(np.random.default_rng(0).normal(size=(steps, features)), axis=0)
    return data.TimeSeries(values, tuple(f"sensor_{n}" for n in range(features)))


def sentences(count: int = 40) -> data.LabeledSequences:
    rng = np.random.default_rng(0)
    tokens = [rng.choice(["a", "b", "c"], rng.integers(2, 6)).tolist() for _ in range(count)]
    return data.LabeledSequences(
        tokens, labels=[sequence[0] for sequence in tokens], tags=[list(s) for s in tokens]
    )


def pairs(count: int = 40) -> data.SequencePairs:
    tokens = sentences(count).sequences
    return data.SequencePairs(tokens, [sequence[::-1] for sequence in tokens])


def data_of(name: str):
    task = zoo.describe(name).task
    if task == "seq2seq":
        if "vector" in name:
            return data.forecasting_pairs(series(), past=8, steps=3)
        return pairs()
    return sentences() if task in ("classification", "tagging") else series()


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_entry_can_be_trained_and_evaluated(name):
    options = {"sequence_length": 12} if data_of(name).__class__ is data.TimeSeries else {}
    result = zoo.train(name, data_of(name), **QUICK, **SMALL, **options)
    assert len(result.history) == 1
    assert result.task.entry.name == name
    scores = zoo.evaluate(result.model, data_of(name))
    assert type(scores) is type(result.scores)
    json.dumps(scores.to_dict())
    assert all(figure.label and figure.value for figure in scores.figures())
    assert str(scores)


def test_identity_trains_on_a_time_series_windows_a_dataframe_a_dataset_and_a_path(tmp_path):
    record = series()
    frame = pd.DataFrame(record.values, columns=record.columns)
    frame.to_csv(tmp_path / "readings.csv", index=False)
    windows = data.make_windows(record.split(0.8, 0.2)[0], sequence_length=12, sequence_stride=6)
    validation = data.make_windows(record.split(0.8, 0.2)[1], sequence_length=12)
    batches = tf.data.Dataset.from_tensor_slices(windows).batch(7)
    weights = []
    for x, options in (
        (record, {"sequence_length": 12}),
        (frame, {"sequence_length": 12}),
        (tmp_path / "readings.csv", {"sequence_length": 12}),
        (windows, {"validation_data": validation}),
        (batches, {"validation_data": validation}),
    ):
        result = zoo.train("simple_rnn_identity", x, **QUICK, **SMALL, **options)
        weights.append(np.concatenate([w.ravel() for w in result.model.get_weights()]))
    for other in weights[1:]:
        np.testing.assert_allclose(other, weights[0], rtol=1e-5)


def test_a_time_series_is_split_by_time_before_windows_are_cut():
    record = data.TimeSeries(np.arange(100.0)[:, None], ("t",))
    task = tasks.task_for("simple_rnn_identity", sequence_length=10).with_data(
        record, validation_split=0.3
    )
    assert task.bound_windows.x.max() == 69 and task.bound_windows.x_val.min() == 70
    assert task.bound_windows.x[1, 0, 0] == 5  # training windows overlap by half


def test_validation_metric_of_windows_excludes_the_penalty_of_regularizers():
    options = {"sequence_length": 12, "recurrent_regularizer": keras.regularizers.L2(10.0)}
    result = zoo.train("simple_rnn_identity", series(), **QUICK, **SMALL, **options)
    assert result.history["val_error"][0] < result.history["val_loss"][0] - 1


def test_early_stopping_restores_the_epoch_with_the_best_validation_metric():
    result = zoo.train(
        "simple_rnn_identity", series(), epochs=12, patience=2, learning_rate=0.3,
        sequence_length=12, verbose=0, **SMALL,
    )  # fmt: skip
    x_val = result.task.bound_windows.x_val
    variance = np.square(x_val - x_val.mean((0, 1))).mean((0, 1))
    error = np.square(result.model.predict(x_val, verbose=0) - x_val).mean((0, 1)) / variance
    np.testing.assert_allclose(result.scores.normalized_mse, error.mean(), rtol=1e-4)
    assert len(result.history) < 12
    assert result.history["val_error"].idxmin() < result.history.index[-1]


def test_callbacks_receive_the_validation_metric_of_the_task():
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(dict(logs)))
    zoo.train("gru_tagger", sentences(), callbacks=[callback], **QUICK, **SMALL)
    assert {"val_f1", "val_accuracy"} <= set(seen[0])


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("simple_rnn_identity", sentences(), "TimeSeries for the task 'identity'"),
        ("gru_tagger", series(), "LabeledSequences for the task 'tagging'"),
        ("gru_classifier", pairs(), "LabeledSequences for the task 'classification'"),
        ("gru_encoder_decoder", sentences(), "SequencePairs"),
        ("gru_encoder_decoder", series(), "forecasting_pairs"),
    ],
)
def test_data_of_another_task_raises(name, x, message):
    for function in (zoo.train, zoo.search):
        with pytest.raises(ArgumentError, match=message):
            function(name, x, verbose=0)


@pytest.mark.parametrize("option", ["class_weight", "min_count", "label_smoothing"])
def test_options_of_another_task_raise(option):
    with pytest.raises(ArgumentError, match=f"`{option}` must be None for the task 'identity'"):
        zoo.train("simple_rnn_identity", series(), **{option: 1})


# --------------------------------------------------------------------------------- custom entries


@pytest.fixture
def custom_tagger():
    """The smallest tagger that meets the requirements, registered as a user would."""

    @zoo.register(
        "custom_tagger", task="tagging", summary="GRU and a softmax at every step.", causal=True,
        inputs="(batch, time, features)", outputs="(batch, time, classes)",
    )  # fmt: skip
    def custom_tagger(*, features: int = 1, classes: int = 2, name: str = "custom_tagger"):
        inputs = keras.Input((None, features))
        x = keras.layers.GRU(4, return_sequences=True)(inputs)
        return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x), name=name)

    return "custom_tagger"


def signs(count: int = 30):
    x = np.random.default_rng(0).normal(size=(count, 6, 2)).astype("float32")
    return x, (x[..., 0] > 0).astype("int32")


@pytest.mark.filterwarnings("ignore:Nothing varies")
def test_custom_entry_supports_train_search_leakage_and_export(custom_tagger, tmp_path):
    x, y = signs()
    assert zoo.get(custom_tagger, features=2).output_shape == (None, None, 2)
    result = zoo.train(custom_tagger, x, y, **QUICK)
    assert 0 <= result.scores.accuracy <= 1
    search = zoo.search(
        custom_tagger, x, y, max_trials=2, epochs=1, directory=tmp_path / "run", verbose=0
    )
    assert (search.results["state"] == "complete").all()
    assert (tmp_path / "run" / "report.html").is_file()
    assert zoo.leakage(search.best_model, x).index >= 0
    parity = zoo.export(search.best_model, tmp_path / "served", verbose=0)
    assert parity.difference <= 1e-5


@pytest.mark.filterwarnings("ignore:Nothing varies")
@pytest.mark.slow
def test_commands_accept_a_custom_entry(custom_tagger, tmp_path):
    x, _ = signs()
    folder = tmp_path / "data.ts"
    lines = ["@problemName signs", "@univariate false", "@dimensions 2", "@equalLength true",
             "@seriesLength 6", "@classLabel true up down", "@data"]  # fmt: skip
    for row in x:
        label = "up" if row[:, 0].sum() > 0 else "down"
        lines.append(
            ":".join(",".join(f"{v:.4f}" for v in row[:, f]) for f in (0, 1)) + f":{label}"
        )
    folder.write_text("\n".join(lines) + "\n")

    @zoo.register(
        "custom_classifier", task="classification", summary="Mean of GRU states.", causal=True,
        inputs="(batch, time, features)", outputs="(batch, classes)",
    )  # fmt: skip
    def custom_classifier(*, features: int = 1, classes: int = 2, name: str = "custom_classifier"):
        inputs = keras.Input((None, features))
        x = keras.layers.GRU(4)(inputs)
        return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x), name=name)

    run = CliRunner().invoke
    arguments = ["--data", str(folder), "--epochs", "1", "--no-export"]
    done = run(main, ["train", "custom_classifier", *arguments, "--out", str(tmp_path / "t")])
    assert done.exit_code == 0, done.output
    done = run(main, ["evaluate", str(tmp_path / "t" / "best.keras"), str(folder), "--json"])
    assert 0 <= json.loads(done.output)["accuracy"] <= 1
    done = run(
        main,
        ["search", "custom_classifier", *arguments, "--max-trials", "1",
         "--directory", str(tmp_path / "s")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for command in (["describe", "custom_classifier"], ["list", "--task", "classification"]):
        assert "custom_classifier" in run(main, command).output


def test_hypermodel_of_an_entry_without_a_search_space_warns(custom_tagger):
    with pytest.warns(UserWarning, match="Nothing varies"):
        zoo.hypermodel(custom_tagger)


@pytest.mark.parametrize(
    ("task", "arguments", "missing"),
    [
        ("tagging", ("features",), "`classes`"),
        ("classification", ("classes",), "`features` or `vocabulary_size`"),
        ("seq2seq", ("source_features",), "`target_vocabulary_size` or `target_features`"),
    ],
)
def test_registration_raises_for_a_constructor_without_required_arguments(task, arguments, missing):
    signature = ", ".join(f"{name}=1" for name in (*arguments, "name"))
    constructor = eval(f"lambda *, {signature}: None")
    with pytest.raises(RegistrationError, match=missing):
        zoo.register(
            "incomplete", constructor, task=task, summary="x", inputs="x", outputs="x", causal=True
        )
    assert "incomplete" not in zoo.list_models()


@pytest.mark.parametrize("name", zoo.list_models())
def test_built_in_entries_meet_the_requirements_of_their_tasks(name):
    entry = zoo.registry.get_entry(name)
    assert not requirements.REQUIREMENTS[entry.task].missing(entry.arguments())


class WindowMeanTask(tasks.WindowTask):
    """Predict the mean of the window from its steps."""

    name = "mean_of_window"
    requirements = requirements.Requirements((("features",),), "(batch, time, features) -> same")

    @property
    def objective(self):
        return ("val_identity_error", "min")


def test_a_custom_task_trains_searches_and_is_listed(tmp_path):
    @zoo.register(
        "own_mean", task=WindowMeanTask, summary="Linear layer.", causal=True, inputs="(b, t, f)",
        outputs="(b, t, f)", space={"learning_rate": zoo.registry.search_space.Float(1e-3, 1e-1)},
    )  # fmt: skip
    def own_mean(*, features: int = 1, name: str = "own_mean"):
        inputs = keras.Input((None, features))
        return keras.Model(inputs, keras.layers.Dense(features)(inputs), name=name)

    assert zoo.list_models(task="mean_of_window") == ["own_mean"]
    assert type(tasks.task_for("own_mean")) is WindowMeanTask
    assert zoo.train("own_mean", series(), sequence_length=8, **QUICK).scores.normalized_mse > 0
    search = zoo.search(
        "own_mean", series(), sequence_length=8, max_trials=1, epochs=1, directory=tmp_path,
        verbose=0, report=False,
    )  # fmt: skip
    assert search.oracle.objectives[0].name == "val_identity_error"
    with pytest.raises(RegistrationError, match="`task` must be"):
        zoo.register("other", own_mean, task=int, summary="x", inputs="x", outputs="x", causal=True)


def test_a_plug_in_package_adds_entries(monkeypatch, custom_tagger):
    entry = zoo.registry.get_entry(custom_tagger)
    zoo.unregister(custom_tagger)

    class EntryPoint:
        value = "plugin:register"

        def load(self):
            return lambda: zoo.register(
                "plugged", entry.constructor, task="tagging", summary="x", inputs="x", outputs="x",
                causal=True,
            )  # fmt: skip

    registry = zoo.registry.registry
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [EntryPoint()])
    monkeypatch.setattr(registry, "_entries", {})
    registry._load_builtin_and_plugins()
    assert "plugged" in registry._entries
    assert zoo.train("plugged", *signs(), **QUICK).scores.accuracy >= 0
