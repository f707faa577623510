"""Artifacts in other formats: proved by their runtimes, or refused before anything is written."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers as k

import keras_seqzoo as zoo
from keras_seqzoo import cli
from keras_seqzoo.errors import ArgumentError, ArtifactError
from keras_seqzoo.exporting.formats import FORMATS
from keras_seqzoo.exporting.model_card import CARD
from keras_seqzoo.exporting.tracing import in_full_precision, without_cudnn

pytestmark = pytest.mark.tensorflow

NAN = float("nan")
OTHERS = [name for name, form in FORMATS.items() if form.backend == "tensorflow" and form.ending]


def needs(form: str) -> None:
    for module in FORMATS[form].modules:
        pytest.importorskip(module, reason=f"pip install 'keras-seqzoo[{FORMATS[form].extra}]'")


def seeded(name: str, **config) -> keras.Model:
    model = zoo.get(name, **config)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(0.4 * rng.normal(size=weight.shape))
    return model


PAIR = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 4, "embedding_dim": 3}
MODELS = {
    "padded readings": lambda: seeded("gru_forecaster", features=2, units=3, mask_value=NAN),
    "tags": lambda: seeded("bilstm_crf_tagger", vocabulary_size=9, units=3, embedding_dim=4),
    "class": lambda: seeded("bilstm_classifier", features=2, units=3),
    "autoencoder": lambda: seeded("lstm_autoencoder", features=2, units=3, code_size=2),
    "pairs": lambda: seeded("attention_gru_encoder_decoder", **PAIR),
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.long] * (one == "pairs")) for one in MODELS]
)
@pytest.mark.parametrize("form", OTHERS)
def test_each_kind_of_model_is_served_by_each_runtime(form, name, tmp_path):
    needs(form)
    model = MODELS[name]()
    parity = zoo.export(model, tmp_path / "served", format=form, verbose=0)
    assert parity.format == form
    assert 0 <= parity.difference < 1e-3
    proved = {case["endpoint"] for case in parity.cases}
    ending = FORMATS[form].ending
    written = {path.stem for path in (tmp_path / "served").glob(f"*{ending}")}
    assert written == proved | ({"initial_state"} if name == "padded readings" else set())
    assert "serve" in proved
    assert ("step" in proved) == (name in ("padded readings", "pairs"))
    assert len({(case["batch"], case["steps"], case["padding"]) for case in parity.cases}) > 2


def test_another_runtime_that_answers_otherwise_is_found_out(tmp_path, monkeypatch):
    """A format that writes other weights than the model's proves nothing."""
    needs("onnx")
    import dataclasses

    form = FORMATS["onnx"]

    def spoiled(model, endpoints, folder):
        before = model.get_weights()
        model.set_weights([1.5 * weight for weight in before])
        form.write(model, endpoints, folder)
        model.set_weights(before)

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(form, write=spoiled))
    with pytest.raises(ArtifactError, match="answers otherwise"):
        zoo.export(MODELS["class"](), tmp_path / "served", format="onnx")
    assert not (tmp_path / "served").exists()


# ------------------------------------------------------------------------- refused before writing


@pytest.mark.parametrize("form", OTHERS)
def test_packages_that_are_missing_are_named(form, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    missing = next(iter(FORMATS[form].modules))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(ArgumentError, match=rf"pip install 'keras-seqzoo\[{form}\]'"):
        zoo.export(MODELS["class"](), tmp_path / "served", format=form)
    assert not (tmp_path / "served").exists()


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    model = MODELS["class"]()
    with pytest.raises(ArgumentError, match="'tf_saved_model', 'onnx'"):
        zoo.export(model, tmp_path / "served", format="pickle")
    with pytest.raises(ArgumentError, match="KERAS_BACKEND=torch"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
        zoo.export(model, tmp_path / "served", format="torch")
    with pytest.raises(ArgumentError, match=r"Leave out the \.onnx"):
        zoo.export(model, tmp_path / "served.onnx", format="onnx")
    texts = zoo.data.LabeledSequences([["a", "b"], ["b"]], tags=[["O", "O"], ["O"]])
    preprocessor = zoo.data.SequencePreprocessor.from_data(texts)
    named = zoo.tasks.end_to_end(
        zoo.get("gru_tagger", **preprocessor.model_arguments(), units=2), preprocessor
    )
    with pytest.raises(ArgumentError, match="it takes strings, and this format holds numbers"):
        zoo.export(named, tmp_path / "served", format="onnx")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------- what lies beside it


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("formats") / "served"
    return path, zoo.export(seeded("simple_rnn_identity", units=3), path, verbose=0)


def test_the_report_holds_the_hash_of_every_file_and_the_versions(served):
    path, parity = served
    report = json.loads((path / "parity.json").read_text())
    assert report["format"] == "tf_saved_model"
    assert {"saved_model.pb", "variables/variables.index"} <= set(report["files"])
    for name, digest in report["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
    assert {"python", "keras", "keras-seqzoo", "tensorflow"} <= set(report["versions"])
    assert report["files"] == parity.files


def test_the_card_says_what_it_is_and_how_it_was_proved(served):
    path, parity = served
    card = (path / CARD).read_text()
    assert card.startswith("# simple_rnn_identity\n")
    for part in (
        zoo.describe("simple_rnn_identity").summary, "## Endpoints", "`initial_state`", "`step`",
        "## Parity", f"{parity.difference:.1e}", "## Files", parity.files["saved_model.pb"],
    ):  # fmt: skip
        assert part in card
    rows = [line for line in card.splitlines() if line.startswith("| `serve` |")]
    assert rows and "float32 (any, any, 1)" in rows[0]


def test_a_model_that_is_no_entry_has_a_card_too(tmp_path):
    model = keras.Sequential([k.Input((None, 2)), k.GRU(3)], name="my_own")
    zoo.export(model, tmp_path / "served", verify=False)
    card = (tmp_path / "served" / CARD).read_text()
    assert "# my_own" in card
    assert "Not checked" in card
    assert "GRU" in card


# ------------------------------------------------------------------------------ cuDNN, precision


def operations(path: Path) -> set[str]:
    """The operations of a SavedModel, in its functions too."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    read = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = read.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("cell", [k.GRU, k.LSTM])
def test_layers_that_would_take_cudnn_are_served_without(cell, tmp_path):
    model = keras.Sequential(
        [k.Input((None, 2)), k.Bidirectional(cell(3, use_cudnn=True, return_sequences=True))]
    )
    inner = model.layers[0].forward_layer
    zoo.export(model, tmp_path / "served", verbose=0)
    found = operations(tmp_path / "served")
    assert not [name for name in found if "Cudnn" in name]
    assert "While" in found or "StatelessWhile" in found
    assert inner.use_cudnn is True  # the model is as it was
    with without_cudnn(model):
        assert inner.use_cudnn is False
    assert inner.use_cudnn is True


def test_a_model_of_mixed_precision_trains_and_is_served(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zoo.get("simple_rnn_identity", features=2, units=4)
    finally:
        keras.config.set_dtype_policy(before)
    x = np.random.default_rng(0).normal(size=(16, 6, 2)).astype("float32")
    zoo.adapt(model, x)
    model.compile("adam", "mse")
    losses = model.fit(x, x, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert parity.difference < 0.1
    with in_full_precision(model):
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert model.get_layer("recurrent").compute_dtype == "bfloat16"
    if importlib.util.find_spec("onnxruntime"):  # computes in the precision of the weights
        exact = zoo.export(model, tmp_path / "onnx", format="onnx", verbose=0)
        assert exact.difference < 0.1


# -------------------------------------------------------------------------------- the command line


def test_the_command_knows_formats(tmp_path):
    seeded("simple_rnn_identity", units=3).save(tmp_path / "model.keras")
    arguments = ["export", str(tmp_path / "model.keras"), str(tmp_path / "out"), "--no-verify"]
    found = CliRunner().invoke(cli.main, [*arguments, "--format", "keras"])
    assert found.exit_code == 2
    assert "tf_saved_model" in found.output
    needs("onnx")
    found = CliRunner().invoke(cli.main, [*arguments, "--format", "onnx"])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "out" / "serve.onnx").exists()
    assert "keras_seqzoo" in sys.modules
