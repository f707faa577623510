"""The command line on sentences and sequences: train, evaluate, predict, search."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from keras_seqzoo.cli import main

pytestmark = pytest.mark.tensorflow


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sentences with tags and labels, and a tagger trained on them."""
    folder = tmp_path_factory.mktemp("sentences")
    rng = np.random.default_rng(0)
    tokens, tags, labels = [], [], []
    for _ in range(80):
        city = rng.choice(["oslo", "rome", "bern"])
        before = " ".join(rng.choice(["is", "it", "warm"], rng.integers(1, 4)))
        tokens.append(f"{before} in {city}")
        tags.append(" ".join(["O"] * len(before.split()) + ["O", "B-city"]))
        labels.append(city)
    (folder / "data").mkdir()
    for name, lines in (("seq.in", tokens), ("seq.out", tags), ("label", labels)):
        (folder / "data" / name).write_text("\n".join(lines) + "\n")
    done = run(
        "train", "bilstm_crf_tagger", "--data", folder / "data", "--test", folder / "data",
        "--epochs", 12, "--learning-rate", 0.02, "--set", "units=8", "--out", folder / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_train_writes_model_artifact_scores_and_plots(folder):
    folder, output = folder
    assert "80 sequences of tokens, 3 labels, 2 tags" in output
    assert "Test, evaluated once" in output
    assert "State leakage" in output
    for written in (
        "best.keras", "saved_model/parity.json", "figures.json", "history.csv", "scores.png",
        "leakage.png",
    ):  # fmt: skip
        assert (folder / "run" / written).is_file()
    figures = json.loads((folder / "run" / "figures.json").read_text())
    assert figures["test"]["f1"] > 0.9
    assert {"past", "future"} <= set(figures["leakage"])


def test_train_replaces_files_only_with_overwrite(folder):
    folder, _ = folder
    before = (folder / "run" / "best.keras").read_bytes()
    again = run("train", "gru_tagger", "--data", folder / "data", "--out", folder / "run")
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert (folder / "run" / "best.keras").read_bytes() == before


def test_evaluate_equals_the_test_scores_of_train(folder):
    folder, _ = folder
    done = run("evaluate", folder / "run" / "best.keras", folder / "data", "--json")
    figures = json.loads((folder / "run" / "figures.json").read_text())
    assert json.loads(done.output)["f1"] == pytest.approx(figures["test"]["f1"])


@pytest.mark.slow
def test_audit_of_an_end_to_end_model_audits_the_inner_model(folder, tmp_path):
    folder, _ = folder
    done = run("audit", folder / "run" / "best.keras", folder / "data", "--json", tmp_path / "a")
    assert done.exit_code == 0, done.output
    findings = json.loads((tmp_path / "a").read_text())["findings"]
    found = {one["check"]: one["verdict"] for one in findings}
    assert found["rows"] == found["padding"] == found["inference"] == "holds"
    strict = run("audit", folder / "run" / "best.keras", folder / "data", "--causal")
    assert strict.exit_code == 1, strict.output
    assert "look_ahead" in strict.output


def test_predict_prints_each_prediction_before_the_input_ends(folder):
    folder, _ = folder
    start = "from keras_seqzoo.cli import main; main()"
    command = [sys.executable, "-c", start, "predict", str(folder / "run" / "best.keras")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write("warm in rome\n")
        process.stdin.flush()
        first = [process.stdout.readline() for _ in range(4)]  # before the input has ended
        rest, _ = process.communicate("\nit is nowhere")
    assert first == ["warm\tO\n", "in\tO\n", "rome\tB-city\n", "\n"]
    tokens = [line.partition("\t")[0] for line in rest.splitlines()]
    assert tokens == ["", "it", "is", "nowhere", ""]
    assert process.returncode == 0


def test_predict_prints_label_probability_and_sentence_with_a_classifier(folder, tmp_path):
    folder, _ = folder
    done = run(
        "train", "gru_classifier", "--data", folder / "data", "--epochs", 15, "--no-export",
        "--learning-rate", 0.02, "--set", "units=8", "--out", tmp_path / "run", "-q",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (tmp_path / "sentences").write_text("is it warm in bern\n")
    done = run("predict", tmp_path / "run" / "best.keras", tmp_path / "sentences")
    label, probability, sentence = done.output.strip().split("\t")
    assert (label, sentence) == ("bern", "is it warm in bern")
    assert 0 < float(probability) <= 1


@pytest.mark.slow
def test_search_tunes_a_classifier(folder, tmp_path):
    folder, _ = folder
    done = run(
        "search", "simple_rnn_classifier", "--data", folder / "data", "--max-trials", 2,
        "--epochs", 2, "--set", "units=4", "--directory", tmp_path / "run", "--no-export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "test, evaluated once" in done.output
    assert (tmp_path / "run" / "report.html").is_file()


def test_train_predict_and_evaluate_with_readings(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "readings.npy", np.cumsum(rng.normal(size=(300, 2)), axis=0))
    for name in ("simple_rnn_identity", "gru_forecaster"):
        done = run(
            "train", name, "--data", tmp_path / "readings.npy",
            "--sequence-length", 10, "--epochs", 2,
            "--set", "units=4", "--no-export", "--out", tmp_path / name,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        figures = json.loads((tmp_path / name / "figures.json").read_text())
        assert figures["validation"]["normalized_mse"] > 0
    done = run(
        "predict", tmp_path / "simple_rnn_identity" / "best.keras", tmp_path / "readings.npy"
    )
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 301  # the first line has the column names
    done = run(
        "evaluate", tmp_path / "simple_rnn_identity" / "best.keras", tmp_path / "readings.npy"
    )
    assert "Normalized MSE" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "gru_tager", "--data", "x"), "Did you mean 'gru_tagger'"),
        (("train", "gru_tagger", "--data", "nowhere.conll"), "does not exist"),
        (("train", "gru_tagger"), "--data"),
        (("predict", "nowhere.keras"), "does not exist"),
        (("search", "gru_tagger"), "`data`"),
        (("search", "simple_rnn_identity", "--test", "x"), "--data"),
    ],
)
def test_invalid_arguments_exit_with_status_2(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
