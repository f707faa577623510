"""Export, verification and loading of artifacts, and atomic writing of files."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError, ArtifactError, ExistsError
from keras_seqzoo.exporting import Parity, verification
from keras_seqzoo.exporting import export as export_function
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.streaming import CannotStep, stepper
from keras_seqzoo.streaming import stream as stream_function
from keras_seqzoo.utils import files

pytestmark = [pytest.mark.tensorflow, pytest.mark.own_process]

# The packages re-export the functions under the names of their modules.
export_module = sys.modules[export_function.__module__]
stream_module = sys.modules[stream_function.__module__]


def build(**config) -> keras.Model:
    model = zoo.get("simple_rnn_identity", **{"features": 2, "units": 3} | config)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def model_file(tmp_path):
    build().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A verified artifact with its model and its parity report."""
    path = tmp_path_factory.mktemp("verified") / "served"
    model = build(mask_value=float("nan"))
    return model, path, zoo.export(model, path, verbose=0)


# -------------------------------------------------------------------------------------------- load


def test_load_rejects_a_missing_path(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        zoo.load(tmp_path / "missing.keras")


def test_load_rejects_a_folder_without_a_saved_model(tmp_path):
    with pytest.raises(ArtifactError, match=r"a folder without saved_model\.pb"):
        zoo.load(tmp_path)


@pytest.mark.parametrize("name", ["model.h5", "model.pkl", "model"])
def test_load_rejects_other_file_types_without_reading_them(name, model_file):
    other = model_file.rename(model_file.with_name(name))
    with pytest.raises(ArtifactError, match=r"can run code.*model\.save\('name\.keras'\)"):
        zoo.load(other)


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5", "metadata.json"])
@pytest.mark.parametrize("change", ["missing", "empty", "garbage", "truncated"])
def test_load_rejects_a_model_file_with_a_damaged_part(part, change, model_file):
    with zipfile.ZipFile(model_file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if change == "missing":
        del parts[part]
    else:
        parts[part] = {
            "empty": b"",
            "garbage": b"\x00\xff" * 50,
            "truncated": parts[part][: len(parts[part]) // 2],
        }[change]
    with zipfile.ZipFile(model_file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    if part == "metadata.json" and change != "missing":  # Keras never reads it
        assert zoo.load(model_file).name == "simple_rnn_identity"
        return
    with pytest.raises(ArtifactError, match=r"an archive without|is not JSON|weights are damaged"):
        zoo.load(model_file)


@pytest.mark.parametrize("data", [b"", b"garbage" * 100], ids=["empty", "garbage"])
def test_load_rejects_a_damaged_saved_model(data, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(data)
    with pytest.raises(ArtifactError, match="must be a complete SavedModel"):
        zoo.load(tmp_path)


def test_load_rejects_a_saved_model_without_variables(tmp_path):
    zoo.export(build(), tmp_path / "served", verify=False)
    for part in (tmp_path / "served" / "variables").iterdir():
        part.unlink()
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        zoo.load(tmp_path / "served")


# ------------------------------------------------------------------------------------------ export


def test_artifact_serves_any_batch_size_and_length(served):
    model, path, _ = served
    artifact = zoo.load(path)
    for batch, steps in ((1, 1), (2, 5), (7, 33)):
        x = random(batch, steps, 2)
        x[::2, : steps // 2] = np.nan
        expected = np.asarray(model(x, training=False))
        np.testing.assert_allclose(artifact.serve(x), expected, rtol=1e-4, atol=1e-5)


def test_artifact_contains_its_parity_report(served):
    model, path, parity = served
    assert isinstance(parity, Parity)
    report = json.loads((path / "parity.json").read_text())
    assert report == json.loads(json.dumps(parity.to_dict()))
    assert report["model"] == model.name
    assert report["difference"] <= report["tolerance"] == 1e-5
    assert {case["padding"] for case in report["cases"]} == {"none", "left", "right"}
    assert {case["batch"] for case in report["cases"]} == {1, 3, 16}
    assert {"python", "keras", "tensorflow", "numpy", "keras-seqzoo"} == set(report["versions"])


def test_parity_report_prints_one_line_per_endpoint_or_case(served):
    *_, parity = served
    endpoints = {case["endpoint"] for case in parity.cases}
    assert endpoints == {"serve", "step"}
    assert len(str(parity).splitlines()) == len(endpoints) + 3
    serve = [case for case in parity.cases if case["endpoint"] == "serve"]
    of_serve = dataclasses.replace(parity, cases=tuple(serve))
    assert len(str(of_serve).splitlines()) == len(serve) + 3
    assert "simple_rnn_identity" in str(parity)


def test_export_leaves_no_temporary_files(served):
    _, path, _ = served
    assert [entry.name for entry in path.parent.iterdir()] == ["served"]


def test_artifact_has_the_fixed_time_of_its_model(tmp_path):
    model = build(time=6)
    zoo.export(model, tmp_path / "served", verify=False)
    artifact = zoo.load(tmp_path / "served")
    assert artifact.serve(random(4, 6, 2)).shape == (4, 6, 2)
    with pytest.raises(Exception, match=r"shape|incompatible|signature"):
        artifact.serve(random(4, 5, 2))


def test_export_without_verification_writes_no_report(tmp_path, capsys):
    assert zoo.export(build(), tmp_path / "served", verify=False) is None
    assert not (tmp_path / "served" / "parity.json").exists()
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------- rejected exports


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_export_rejects_an_existing_path_and_leaves_it_unchanged(kind, tmp_path):
    path = tmp_path / "served"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("precious")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = content(tmp_path)
    with pytest.raises(ExistsError, match="overwrite=True"):
        zoo.export(build(), path, verify=False)
    assert content(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_export_with_overwrite_replaces_an_existing_path(kind, tmp_path):
    path = tmp_path / "served"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "old.txt").write_text("old")
    model = build()
    zoo.export(model, path, verify=False, overwrite=True)
    assert not (path / "old.txt").exists()
    x = random(2, 3, 2)
    artifact = zoo.load(path)
    np.testing.assert_allclose(artifact.serve(x), model(x), rtol=1e-5, atol=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"]


def two_inputs() -> keras.Model:
    left, right = keras.Input((None, 1)), keras.Input((None, 1))
    return keras.Model([left, right], left + right)


def two_outputs() -> keras.Model:
    inputs = keras.Input((None, 1))
    return keras.Model(inputs, [inputs + 1, inputs + 2])


def stateful() -> keras.Model:
    inputs = keras.Input((None, 1), batch_size=2)
    return keras.Model(inputs, keras.layers.SimpleRNN(2, stateful=True, name="memory")(inputs))


@pytest.mark.parametrize("kind", ["Masking", "mask_zero"])
@pytest.mark.slow
def test_padding_masked_by_keras_layers_is_verified(kind, tmp_path):
    if kind == "Masking":
        first = [keras.Input((None, 2)), keras.layers.Masking(-1.0)]
    else:
        first = [keras.Input((None,), dtype="int32"), keras.layers.Embedding(9, 3, mask_zero=True)]
    model = keras.Sequential([*first, keras.layers.GRU(4), keras.layers.Dense(2)])
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert {case["padding"] for case in parity.cases} == {"none", "left", "right"}


def test_artifact_serves_inputs_and_outputs_by_name(tmp_path):
    left, right = keras.Input((None, 2), name="left"), keras.Input((None, 2), name="right")
    model = keras.Model([left, right], {"sum": left + right, "difference": left - right})
    zoo.export(model, tmp_path / "served", verbose=0)
    x, y = random(2, 3, 2), random(2, 3, 2)
    served = zoo.load(tmp_path / "served").signatures["serving_default"](left=x, right=y)
    assert sorted(served) == ["difference", "sum"]
    np.testing.assert_array_equal(served["difference"], x - y)


def nested_stateful() -> keras.Model:
    inner = keras.Sequential([keras.layers.SimpleRNN(2, stateful=True, name="memory")])
    return keras.Sequential([keras.Input((None, 1), batch_size=2), inner])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nested_stateful, "stateful layers memory.*stateful=False"),
        (two_outputs, "one output, or a dict of outputs.* Received: 2 outputs without"),
        (stateful, "stateful layers memory.*stateful=False"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "a built keras.Model"),
        (lambda: "model", "a built keras.Model"),
    ],
    ids=["inner stateful", "two outputs", "stateful", "unbuilt", "no model"],
)
def test_export_rejects_models_that_cannot_be_served_before_writing(model, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        zoo.export(model(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, ValueError, CannotStep])
def test_only_the_error_cannot_step_omits_the_step_endpoint(error, tmp_path, monkeypatch):
    def rule(*args, **kwargs):
        raise error("is broken")

    monkeypatch.setattr(stepper, "streaming_rule", lambda operation: rule)
    if error is CannotStep:
        zoo.export(build(), tmp_path / "served", verify=False)
        artifact = zoo.load(tmp_path / "served")
        assert hasattr(artifact, "serve")
        assert not hasattr(artifact, "step")
        assert not hasattr(artifact, "initial_state")
        return
    with pytest.raises(error, match="is broken") as raised:
        zoo.export(build(), tmp_path / "served", verify=False)
    assert type(raised.value) is error
    assert list(tmp_path.iterdir()) == []


def test_export_compares_the_stream_with_the_model_once(tmp_path, monkeypatch):
    compare, models = stream_module._check_against_whole_sequences, []

    def counted(streamer):
        models.append(streamer.model.name)
        compare(streamer)

    monkeypatch.setattr(stream_module, "_check_against_whole_sequences", counted)
    zoo.export(build(), tmp_path / "served", verify=False)
    assert models == ["simple_rnn_identity"]


@pytest.mark.parametrize(
    "options", [{"format": "pickle"}, {"format": None}, {"verify": 1}, {"overwrite": "yes"}]
)
def test_export_rejects_invalid_options_before_writing(options, tmp_path):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        zoo.export(build(), tmp_path / "served", **options)
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- failed verification


@pytest.mark.parametrize("exists", [True, False])
def test_failed_verification_leaves_the_path_unchanged(exists, tmp_path, monkeypatch):
    path = tmp_path / "served"
    if exists:
        zoo.export(build(), path, verify=False)
    before = content(tmp_path)

    def check_parity(plan, artifact_format, artifact):
        assert (artifact / "saved_model.pb").is_file()
        raise ArtifactError("Its outputs differ.")

    monkeypatch.setattr(verification, "check_parity", check_parity)
    with pytest.raises(ArtifactError, match="outputs differ"):
        zoo.export(build(units=5), path, overwrite=True)
    assert content(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"] * exists


def test_verification_detects_other_weights(tmp_path, monkeypatch):
    write = export_module.write_artifact

    def write_another(plan, artifact_format, folder):
        another = build()
        another.set_weights([1.01 * weight for weight in plan.model.get_weights()])
        write(ExportPlan.for_model(another), artifact_format, folder)

    monkeypatch.setattr(export_module, "write_artifact", write_another)
    with pytest.raises(ArtifactError, match="outputs differ from the model's"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_verification_detects_nan_in_one_endpoint(tmp_path, monkeypatch):
    run_artifact = verification.run_artifact

    def run_with_nan(artifact, artifact_format, samples):
        outputs = run_artifact(artifact, artifact_format, samples)
        for sample, arrays in zip(samples, outputs, strict=True):
            if sample.endpoint == "step":
                arrays["output"] = arrays["output"] * np.nan
        return outputs

    monkeypatch.setattr(verification, "run_artifact", run_with_nan)
    with pytest.raises(ArtifactError, match="largest difference is nan"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_verification_detects_an_artifact_that_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_module,
        "write_artifact",
        lambda plan, artifact_format, folder: (folder / "saved_model.pb").write_bytes(b"x"),
    )
    with pytest.raises(ArtifactError, match="cannot be served without keras"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_no_files(tmp_path, monkeypatch):
    class FullDisk(type(keras.export.ExportArchive())):
        def write_out(self, path, **options):
            (Path(path) / "half").write_text("half")
            raise OSError("No space left on device")

    monkeypatch.setattr(keras.export, "ExportArchive", FullDisk)
    with pytest.raises(ArtifactError, match="No space left on device"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- atomic file writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_text_replaces_a_file(tmp_path):
    assert files.write_text(tmp_path / "new" / "a.txt", "grün") == tmp_path / "new" / "a.txt"
    files.write_text(tmp_path / "new" / "a.txt", "neu")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"neu"
    assert names(tmp_path / "new") == ["a.txt"]


def test_temporary_file_has_the_suffix_of_the_path(tmp_path):
    with files.replacing(tmp_path / "model.keras") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name != "model.keras"
        assert temporary.suffix == ".keras"
        temporary.write_text("x")
    assert names(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [True, False])
def test_replacing_leaves_the_old_file_on_failure(failure, exists, tmp_path):
    path = tmp_path / "a.txt"
    if exists:
        path.write_text("old")
    with pytest.raises(failure), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert names(tmp_path) == ["a.txt"] * exists
    if exists:
        assert path.read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
def test_replacing_folder_replaces_the_old_folder(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda source, target: False)
    path = tmp_path / "folder"
    for text in ("first", "second"):
        with files.replacing_folder(path, overwrite=True) as fresh:
            assert list(fresh.iterdir()) == []
            (fresh / f"{text}.txt").write_text(text)
    assert content(path) == {"second.txt": b"second"}
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
def test_replacing_folder_leaves_the_old_folder_on_failure(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda source, target: False)
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with (
        pytest.raises(RuntimeError, match="half way"),
        files.replacing_folder(path, overwrite=True) as fresh,
    ):
        (fresh / "new.txt").write_text("new")
        raise RuntimeError("half way")
    assert content(tmp_path) == {"folder/old.txt": b"old"}
    assert names(tmp_path) == ["folder"]


def test_replacing_folder_reverts_a_failed_rename(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")
    rename, calls = files.os.rename, []

    def rename_once(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk is gone")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda source, target: False)
    monkeypatch.setattr(files.os, "rename", rename_once)
    with (
        pytest.raises(OSError, match="disk is gone"),
        files.replacing_folder(path, overwrite=True) as fresh,
    ):
        (fresh / "new.txt").write_text("new")
    assert len(calls) == 3
    assert content(tmp_path) == {"folder/old.txt": b"old"}


def test_replacing_folder_rejects_a_folder_created_concurrently(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(ExistsError), files.replacing_folder(path) as fresh:
        (fresh / "new.txt").write_text("new")
        path.mkdir()
        (path / "theirs.txt").write_text("theirs")
    assert content(tmp_path) == {"folder/theirs.txt": b"theirs"}
    assert names(tmp_path) == ["folder"]


def test_export_rejects_an_existing_path_before_writing(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(export_module, "write_artifact", lambda *_: calls.append(1))
    with pytest.raises(ExistsError):
        zoo.export(zoo.get("simple_rnn_identity"), tmp_path)
    assert not calls


def test_verification_detects_errors_under_a_large_offset(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 2)) + np.array([1e6, 0.0])
    model, other = (zoo.get("simple_rnn_identity", features=2) for _ in range(2))
    zoo.adapt(model, x)
    zoo.adapt(other, x)
    readout = other.get_layer("readout")
    readout.set_weights([np.zeros_like(weight) for weight in readout.get_weights()])
    write = export_module.write_artifact
    other_plan = ExportPlan.for_model(other)
    monkeypatch.setattr(export_module, "write_artifact", lambda _, *to: write(other_plan, *to))
    with pytest.raises(ArtifactError, match="outputs differ from the model's"):
        zoo.export(model, tmp_path / "served")


def test_export_rejects_a_diverged_model(tmp_path):
    model = zoo.get("simple_rnn_identity")
    readout = model.get_layer("readout")
    readout.set_weights([np.full_like(weight, np.nan) for weight in readout.get_weights()])
    with pytest.raises(ArtifactError, match="finite"):
        zoo.export(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())
