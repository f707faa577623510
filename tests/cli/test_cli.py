"""The command line: printed output, written files, and errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import keras_seqzoo as zoo
from keras_seqzoo.cli import main

pytestmark = pytest.mark.tensorflow


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_readings(path, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(size=(rows, 2)), axis=0) + 60
    lines = [f"2024-01-01 {i // 60 % 24:02d}:{i % 60:02d}:00,{a:.4f},{b:.4f}"
             for i, (a, b) in enumerate(values)]  # fmt: skip
    path.write_text("timestamp,oil,air\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def search_run(tmp_path_factory):
    """The folder, the data and the output of a small search on a CSV file."""
    folder = tmp_path_factory.mktemp("cli")
    data = write_readings(folder / "readings.csv")
    done = run(
        "search", "simple_rnn_identity", "--data", data, "--sequence-length", 10, "--max-trials", 2,
        "--epochs", 2, "--directory", folder / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder, data, done.output


def test_search_writes_model_artifact_and_report(search_run):
    folder, _, output = search_run
    assert "TimeSeries(400 steps, 2 features: oil, air;" in output
    assert "test, evaluated once" in output
    for written in ("best.keras", "saved_model/saved_model.pb", "saved_model/parity.json"):
        assert (folder / "run" / written).is_file()
    report = (folder / "run" / "report.html").read_text()
    assert "keras-seqzoo" in report
    assert ">oil<" in report


def test_repeated_search_with_a_leakage_budget_runs_no_new_trials(search_run):
    folder, data, _ = search_run
    again = run(
        "search", "simple_rnn_identity", "--data", data, "--sequence-length", 10, "--max-trials", 2,
        "--epochs", 2, "--directory", folder / "run", "--max-leakage", 1e9, "--no-export",
    )  # fmt: skip
    assert again.exit_code == 0
    assert "Resuming the search after 2 finished trials." in again.output


def test_quiet_search_of_a_last_step_model_writes_a_report(search_run, tmp_path):
    done = run(
        "search", "simple_rnn_identity", "--data", search_run[1],
        "--sequence-length", 10, "--max-trials", 1,
        "--epochs", 1, "--directory", tmp_path, "--set", "return_sequences=false", "--quiet",
        "--columns", "oil", "--no-export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output == ""
    report = (tmp_path / "report.html").read_text()
    assert "Input and output" in report
    assert "Anomaly score" not in report


def test_leakage_of_a_model_file_and_of_an_artifact_are_equal(search_run, tmp_path):
    folder, data, _ = search_run
    reports = []
    for model in ("best.keras", "saved_model"):
        done = run("leakage", folder / "run" / model, data, "--sequence-length", 10, "--json")
        assert done.exit_code == 0, done.output
        reports.append(json.loads(done.output)["index"])
    np.testing.assert_allclose(*reports, rtol=1e-3)
    plot = tmp_path / "profile.png"
    done = run(
        "leakage", folder / "run" / "best.keras", data, "--sequence-length", 10, "--plot", plot
    )
    assert "State leakage" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_anomaly_writes_a_score_and_a_timestamp_per_reading(search_run, tmp_path):
    folder, data, _ = search_run
    out, plot = tmp_path / "new" / "scores.csv", tmp_path / "scores.png"
    done = run(
        "anomaly", folder / "run" / "best.keras", data, "--sequence-length", 10, "--quantile", 0.9,
        "--out", out, "--plot", plot,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "0.9 quantile of 240 training readings (kind identity" in done.output
    assert "to earlier readings" in done.output
    scores = pd.read_csv(out, parse_dates=["time"])
    assert scores.columns.tolist() == ["time", "score", "flagged", "residual_oil", "residual_air"]
    assert len(scores) == 160
    assert str(scores["time"][0]) == "2024-01-01 04:00:00"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not list(out.parent.glob(".*"))


def test_anomaly_scores_of_a_model_file_and_of_an_artifact_with_training_data_are_equal(
    search_run, tmp_path
):
    folder, data, _ = search_run
    reports = []
    for model in ("best.keras", "saved_model"):
        done = run(
            "anomaly", folder / "run" / model, data, "--sequence-length", 10, "--json", "--kind",
            "identity", "--train", write_readings(tmp_path / "train.csv", rows=200, seed=1),
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        reports.append(json.loads(done.output))
    assert len(reports[0]["scores"]) == 400
    assert len(reports[0]["train_scores"]) == 200
    np.testing.assert_allclose(*(one["scores"] for one in reports), rtol=1e-3, atol=1e-4)


def test_anomaly_rejects_invalid_options(search_run, tmp_path):
    folder, data, _ = search_run
    for options, words in (
        (["--train", data, "--train-fraction", 0.5], "must not both be given"),
        (["--train-fraction", 1], "train-fraction"),
        (["--quantile", 1], "quantile"),
        (["--columns", "oil"], "shape"),
        (["--out", tmp_path / "scores.csv", "--sequence-stride", 99], "stride"),
    ):
        done = run(
            "anomaly", folder / "run" / "best.keras", data, "--sequence-length", 10, *options
        )
        assert done.exit_code == 2, done.output
        assert words in done.output
        assert "Traceback" not in done.output
    assert "kind" in run("anomaly", folder / "run" / "saved_model", data).output
    assert not list(tmp_path.iterdir())


def test_export_replaces_an_artifact_only_with_overwrite(search_run, tmp_path):
    model = search_run[0] / "run" / "best.keras"
    assert run("export", model, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "parity.json").is_file()
    repeated = run("export", model, tmp_path / "out")
    assert repeated.exit_code == 2
    assert "--overwrite" in repeated.output
    assert run("export", model, tmp_path / "out", "--overwrite", "--no-verify").exit_code == 0


def test_list_and_describe_print_text_and_json():
    assert "simple_rnn_identity" in run("list", "*identity").output
    assert json.loads(run("list", "--json", "nothing*").output) == []
    card = json.loads(run("describe", "simple_rnn_identity", "--json").output)
    assert card["arguments"]["units"]["default"] == 8
    assert "(batch, time, features)" in run("describe", "simple_rnn_identity").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe", "simple_rnn_ident"], "Did you mean 'simple_rnn_identity'"),
        (["search", "nothing"], "Unknown model"),
        (["search", "simple_rnn_identity", "--data", "missing.csv"], "missing.csv"),
        (["search", "simple_rnn_identity", "--split", "60/40"], "60/20/20"),
        (["search", "simple_rnn_identity", "--set", "units"], "NAME=VALUE"),
        (["search", "simple_rnn_identity", "--set", "unit=3"], "Did you mean 'units'"),
        (["search", "simple_rnn_identity", "--set", "max_trials=3"], "Unknown argument"),
        (["search", "simple_rnn_identity", "--set", "learning_rate=fast"], "above 0"),
        (
            ["search", "simple_rnn_identity", "--split", "60/39/1", "--sequence-length", "100"],
            "at least 2 windows",
        ),
        (["search", "simple_rnn_identity", "--sequence-stride", "0"], "stride"),
        (["search", "simple_rnn_identity", "--columns", "oil"], "--data"),
        (["search", "simple_rnn_identity", "--sequence-length", "99999"], "sequence_length"),
        (["search", "simple_rnn_identity", "--max-trials", "0"], "max_trials"),
        (["search", "simple_rnn_identity", "--max-leakage", "-1"], "max_leakage"),
        (["leakage", "missing.keras", "README.md"], "README.md"),
        (["export", "missing.keras", "out"], "missing.keras"),
        (["anomaly", "missing.keras", "missing.csv"], "missing.csv"),
        (["export"], "Missing argument"),
        (["audits"], "No such command"),
    ],
)
def test_invalid_arguments_exit_with_status_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.rglob("*.keras"))


def test_unknown_column_suggests_the_nearest(search_run):
    _, data, _ = search_run
    done = run("search", "simple_rnn_identity", "--data", data, "--columns", "oill")
    assert done.exit_code == 2
    assert "oil" in done.output


def test_installed_command_prints_nothing_to_stderr(tmp_path):
    zoo.get("simple_rnn_identity").save(tmp_path / "model.keras")
    command = Path(sys.executable).with_name("keras-seqzoo")
    done = subprocess.run(
        [command, "export", tmp_path / "model.keras", tmp_path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Written" in done.stdout
