"""Formats of artifacts, verified in their own runtimes; model cards and parity reports."""

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
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.exporting.tracing import in_full_precision, without_cudnn

pytestmark = pytest.mark.tensorflow

NAN = float("nan")
NAMES = [name for name, value in FORMATS.items() if value.backend == "tensorflow" and value.suffix]


def require_packages(form: str) -> None:
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
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "pairs")) for name in MODELS]
)
@pytest.mark.parametrize("form", NAMES)
@pytest.mark.slow
def test_runtimes_serve_every_kind_of_model(form, name, tmp_path):
    require_packages(form)
    model = MODELS[name]()
    parity = zoo.export(model, tmp_path / "served", format=form, verbose=0)
    assert parity.format == form
    assert 0 <= parity.difference < 1e-3
    verified = {case["endpoint"] for case in parity.cases}
    ending = FORMATS[form].suffix
    written = {path.stem for path in (tmp_path / "served").glob(f"*{ending}")}
    assert written == verified | ({"initial_state"} if name == "padded readings" else set())
    assert "serve" in verified
    assert ("step" in verified) == (name in ("padded readings", "pairs"))
    assert len({(case["batch"], case["steps"], case["padding"]) for case in parity.cases}) > 2


def test_verification_detects_other_weights_in_other_runtimes(tmp_path, monkeypatch):
    require_packages("onnx")
    import dataclasses

    form = FORMATS["onnx"]

    def write_other_weights(plan, folder):
        weights = plan.model.get_weights()
        plan.model.set_weights([1.5 * weight for weight in weights])
        form.write(plan, folder)
        plan.model.set_weights(weights)

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(form, write=write_other_weights))
    with pytest.raises(ArtifactError, match="outputs differ"):
        zoo.export(MODELS["class"](), tmp_path / "served", format="onnx")
    assert not (tmp_path / "served").exists()


# -------------------------------------------------------------------------- rejected arguments


@pytest.mark.parametrize("form", NAMES)
def test_export_suggests_installing_missing_packages(form, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    missing = next(iter(FORMATS[form].modules))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(ArgumentError, match=rf"pip install 'keras-seqzoo\[{form}\]'"):
        zoo.export(MODELS["class"](), tmp_path / "served", format=form)
    assert not (tmp_path / "served").exists()


def test_export_rejects_unsupported_formats_before_writing(tmp_path, monkeypatch):
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
    tagger = zoo.tasks.end_to_end(
        zoo.get("gru_tagger", **preprocessor.model_arguments(), units=2), preprocessor
    )
    with pytest.raises(ArgumentError, match="inputs are strings, and this format supports numbers"):
        zoo.export(tagger, tmp_path / "served", format="onnx")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------- parity report, model card


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("formats") / "served"
    return path, zoo.export(seeded("simple_rnn_identity", units=3), path, verbose=0)


def test_parity_report_contains_file_hashes_and_versions(served):
    path, parity = served
    report = json.loads((path / "parity.json").read_text())
    assert report["format"] == "tf_saved_model"
    assert {"saved_model.pb", "variables/variables.index"} <= set(report["files"])
    for name, digest in report["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
    assert {"python", "keras", "keras-seqzoo", "tensorflow"} <= set(report["versions"])
    assert report["files"] == parity.files


def test_model_card_contains_entry_endpoints_and_parity(served):
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


def test_model_card_of_a_model_that_is_not_an_entry(tmp_path):
    model = keras.Sequential([k.Input((None, 2)), k.GRU(3)], name="own_model")
    zoo.export(model, tmp_path / "served", verify=False)
    card = (tmp_path / "served" / CARD).read_text()
    assert "# own_model" in card
    assert "Not checked" in card
    assert "GRU" in card


# ------------------------------------------------------------------------------ cuDNN, precision


def operations(path: Path) -> set[str]:
    """The operations of a SavedModel, in its functions too."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = saved_model.meta_graphs[0].graph_def
    functions = graph.library.function
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("cell", [k.GRU, k.LSTM])
def test_artifact_has_no_cudnn_operations(cell, tmp_path):
    model = keras.Sequential(
        [k.Input((None, 2)), k.Bidirectional(cell(3, use_cudnn=True, return_sequences=True))]
    )
    inner = model.layers[0].forward_layer
    zoo.export(model, tmp_path / "served", verbose=0)
    names = operations(tmp_path / "served")
    assert not [name for name in names if "Cudnn" in name]
    assert "While" in names or "StatelessWhile" in names
    assert inner.use_cudnn is True  # the model is unchanged
    with without_cudnn(model):
        assert inner.use_cudnn is False
    assert inner.use_cudnn is True


def test_mixed_precision_model_trains_and_is_exported(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zoo.get("simple_rnn_identity", features=2, units=4)
    finally:
        keras.config.set_dtype_policy(policy)
    x = np.random.default_rng(0).normal(size=(16, 6, 2)).astype("float32")
    zoo.adapt(model, x)
    model.compile("adam", "mse")
    losses = model.fit(x, x, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert parity.difference < 0.1
    with in_full_precision(ExportPlan.for_model(model)):
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert model.get_layer("recurrent").compute_dtype == "bfloat16"
    if importlib.util.find_spec("onnxruntime"):  # computes in the precision of the weights
        parity = zoo.export(model, tmp_path / "onnx", format="onnx", verbose=0)
        assert parity.difference < 0.1


# -------------------------------------------------------------------------------- the command line


def test_export_command_accepts_formats(tmp_path):
    seeded("simple_rnn_identity", units=3).save(tmp_path / "model.keras")
    arguments = ["export", str(tmp_path / "model.keras"), str(tmp_path / "out"), "--no-verify"]
    result = CliRunner().invoke(cli.main, [*arguments, "--format", "keras"])
    assert result.exit_code == 2
    assert "tf_saved_model" in result.output
    require_packages("onnx")
    result = CliRunner().invoke(cli.main, [*arguments, "--format", "onnx"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "serve.onnx").exists()
    assert "keras_seqzoo" in sys.modules
