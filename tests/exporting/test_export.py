"""Model files and artifacts: whole and right, or refused with the old one untouched."""

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
from keras_seqzoo.utils import files

pytestmark = [pytest.mark.tensorflow, pytest.mark.own_process]

# The package re-exports the function under its module's name.
export_module = sys.modules[export_function.__module__]


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
    """One proved artifact with its model and its report."""
    path = tmp_path_factory.mktemp("proved") / "served"
    model = build(mask_value=float("nan"))
    return model, path, zoo.export(model, path, verbose=0)


# -------------------------------------------------------------------------------------------- load


def test_nothing_at_the_path_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        zoo.load(tmp_path / "missing.keras")


def test_a_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"a folder without saved_model\.pb"):
        zoo.load(tmp_path)


@pytest.mark.parametrize("name", ["model.h5", "model.pkl", "model"])
def test_a_file_of_another_kind_is_refused_unread(name, model_file):
    other = model_file.rename(model_file.with_name(name))
    with pytest.raises(ArtifactError, match=r"can run code.*model\.save\('name\.keras'\)"):
        zoo.load(other)


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5", "metadata.json"])
@pytest.mark.parametrize("change", ["missing", "empty", "garbage", "truncated"])
def test_a_model_file_with_a_damaged_part_is_refused(part, change, model_file):
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
def test_a_damaged_saved_model_is_refused(data, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(data)
    with pytest.raises(ArtifactError, match="must be a complete SavedModel"):
        zoo.load(tmp_path)


def test_a_saved_model_without_its_variables_is_refused(tmp_path):
    zoo.export(build(), tmp_path / "served", verify=False)
    for part in (tmp_path / "served" / "variables").iterdir():
        part.unlink()
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        zoo.load(tmp_path / "served")


# --------------------------------------------------------------------------------- what export does


def test_an_artifact_serves_other_batches_and_lengths(served):
    model, path, _ = served
    artifact = zoo.load(path)
    for batch, steps in ((1, 1), (2, 5), (7, 33)):
        x = random(batch, steps, 2)
        x[::2, : steps // 2] = np.nan
        expected = np.asarray(model(x, training=False))
        np.testing.assert_allclose(artifact.serve(x), expected, rtol=1e-4, atol=1e-5)


def test_an_artifact_holds_its_parity_report(served):
    model, path, parity = served
    assert isinstance(parity, Parity)
    known = json.loads((path / "parity.json").read_text())
    assert known == json.loads(json.dumps(parity.to_dict()))
    assert known["model"] == model.name
    assert known["difference"] <= known["tolerance"] == 1e-5
    assert {case["padding"] for case in known["cases"]} == {"none", "left", "right"}
    assert {case["batch"] for case in known["cases"]} == {1, 3, 16}
    assert {"python", "keras", "tensorflow", "numpy", "keras-seqzoo"} == set(known["versions"])


def test_a_parity_report_prints_one_line_per_endpoint_or_case(served):
    *_, parity = served
    endpoints = {case["endpoint"] for case in parity.cases}
    assert endpoints == {"serve", "step"}
    assert len(str(parity).splitlines()) == len(endpoints) + 3
    serve = [case for case in parity.cases if case["endpoint"] == "serve"]
    alone = dataclasses.replace(parity, cases=tuple(serve))
    assert len(str(alone).splitlines()) == len(serve) + 3
    assert "simple_rnn_identity" in str(parity)


def test_nothing_but_the_artifact_is_left_in_its_folder(served):
    _, path, _ = served
    assert [one.name for one in path.parent.iterdir()] == ["served"]


def test_a_fixed_time_is_kept_in_the_artifact(tmp_path):
    model = build(time=6)
    zoo.export(model, tmp_path / "served", verify=False)
    artifact = zoo.load(tmp_path / "served")
    assert artifact.serve(random(4, 6, 2)).shape == (4, 6, 2)
    with pytest.raises(Exception, match=r"shape|incompatible|signature"):
        artifact.serve(random(4, 5, 2))


def test_without_verification_there_is_no_report(tmp_path, capsys):
    assert zoo.export(build(), tmp_path / "served", verify=False) is None
    assert not (tmp_path / "served" / "parity.json").exists()
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------ what export refuses


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_at_the_path_is_not_touched(kind, tmp_path):
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
    assert [one.name for one in tmp_path.iterdir()] == ["served"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_overwrite_replaces_what_is_there(kind, tmp_path):
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
    assert [one.name for one in tmp_path.iterdir()] == ["served"]


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
def test_padding_that_keras_layers_know_is_tried(kind, tmp_path):
    if kind == "Masking":
        first = [keras.Input((None, 2)), keras.layers.Masking(-1.0)]
    else:
        first = [keras.Input((None,), dtype="int32"), keras.layers.Embedding(9, 3, mask_zero=True)]
    model = keras.Sequential([*first, keras.layers.GRU(4), keras.layers.Dense(2)])
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert {case["padding"] for case in parity.cases} == {"none", "left", "right"}


def test_several_inputs_and_named_outputs_are_served_by_their_names(tmp_path):
    left, right = keras.Input((None, 2), name="left"), keras.Input((None, 2), name="right")
    model = keras.Model([left, right], {"sum": left + right, "difference": left - right})
    zoo.export(model, tmp_path / "served", verbose=0)
    one, other = random(2, 3, 2), random(2, 3, 2)
    served = zoo.load(tmp_path / "served").signatures["serving_default"](left=one, right=other)
    assert sorted(served) == ["difference", "sum"]
    np.testing.assert_array_equal(served["difference"], one - other)


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
    ids=["stateful inside", "two outputs", "stateful", "unbuilt", "no model"],
)
def test_a_model_that_cannot_be_served_is_refused_before_anything_is_written(
    model, message, tmp_path
):
    with pytest.raises(ArgumentError, match=message):
        zoo.export(model(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"format": "pickle"}, {"format": None}, {"verify": 1}, {"overwrite": "yes"}]
)
def test_an_unknown_option_is_refused_before_anything_is_written(options, tmp_path):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        zoo.export(build(), tmp_path / "served", **options)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ failed proofs


@pytest.mark.parametrize("there", [True, False])
def test_a_failed_proof_leaves_what_was_there(there, tmp_path, monkeypatch):
    path = tmp_path / "served"
    if there:
        zoo.export(build(), path, verify=False)
    before = content(tmp_path)

    def check_parity(model, artifact, *_):
        assert (artifact / "saved_model.pb").is_file()
        raise ArtifactError("It answers otherwise.")

    monkeypatch.setattr(export_module, "check_parity", check_parity)
    with pytest.raises(ArtifactError, match="answers otherwise"):
        zoo.export(build(units=5), path, overwrite=True)
    assert content(tmp_path) == before
    assert [one.name for one in tmp_path.iterdir()] == ["served"] * there


def test_an_artifact_with_other_weights_is_caught(tmp_path, monkeypatch):
    write = export_module._write

    def write_another(model, known, folder, form):
        another = build()
        another.set_weights([1.01 * weight for weight in model.get_weights()])
        write(another, known, folder, form)

    monkeypatch.setattr(export_module, "_write", write_another)
    with pytest.raises(ArtifactError, match="answers otherwise than the model"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_answers_nan_is_caught_among_right_ones(tmp_path, monkeypatch):
    serve_alone = verification._run_in_own_process

    def spoiled(artifact, form, given):
        answers = serve_alone(artifact, form, given)
        for sample, answer in zip(given, answers, strict=True):
            if sample.endpoint == "step":
                answer["output"] = answer["output"] * np.nan
        return answers

    monkeypatch.setattr(verification, "_run_in_own_process", spoiled)
    with pytest.raises(ArtifactError, match="differs by nan"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_cannot_be_served_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_module,
        "_write",
        lambda model, known, folder, form: (folder / "saved_model.pb").write_bytes(b"x"),
    )
    with pytest.raises(ArtifactError, match="cannot be served without keras"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    class FullDisk(type(keras.export.ExportArchive())):
        def write_out(self, path, **options):
            (Path(path) / "half").write_text("half")
            raise OSError("No space left on device")

    monkeypatch.setattr(keras.export, "ExportArchive", FullDisk)
    with pytest.raises(ArtifactError, match="No space left on device"):
        zoo.export(build(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------- files: whole or not at all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole(tmp_path):
    assert files.write_text(tmp_path / "new" / "a.txt", "grün") == tmp_path / "new" / "a.txt"
    files.write_text(tmp_path / "new" / "a.txt", "neu")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"neu"
    assert names(tmp_path / "new") == ["a.txt"]


def test_the_temporary_name_ends_as_the_path_does(tmp_path):
    with files.replacing(tmp_path / "model.keras") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name != "model.keras"
        assert temporary.suffix == ".keras"
        temporary.write_text("x")
    assert names(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_the_old_file(failure, there, tmp_path):
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")
    with pytest.raises(failure), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert names(tmp_path) == ["a.txt"] * there
    if there:
        assert path.read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
def test_a_folder_takes_the_place_of_another(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "folder"
    for text in ("first", "second"):
        with files.replacing_folder(path, overwrite=True) as fresh:
            assert list(fresh.iterdir()) == []
            (fresh / f"{text}.txt").write_text(text)
    assert content(path) == {"second.txt": b"second"}
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
def test_a_failure_leaves_the_old_folder(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
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


def test_a_rename_that_fails_is_undone(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")
    rename, calls = files.os.rename, []

    def rename_once(one, other):
        calls.append(other)
        if len(calls) == 2:
            raise OSError("disk is gone")
        rename(one, other)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(files.os, "rename", rename_once)
    with (
        pytest.raises(OSError, match="disk is gone"),
        files.replacing_folder(path, overwrite=True) as fresh,
    ):
        (fresh / "new.txt").write_text("new")
    assert len(calls) == 3
    assert content(tmp_path) == {"folder/old.txt": b"old"}


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(ExistsError), files.replacing_folder(path) as fresh:
        (fresh / "new.txt").write_text("new")
        path.mkdir()
        (path / "theirs.txt").write_text("theirs")
    assert content(tmp_path) == {"folder/theirs.txt": b"theirs"}
    assert names(tmp_path) == ["folder"]


def test_existing_path_is_refused_before_any_work(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(export_module, "_write", lambda *_: written.append(1))
    with pytest.raises(ExistsError):
        zoo.export(zoo.get("simple_rnn_identity"), tmp_path)
    assert not written


def test_an_offset_does_not_hide_a_wrong_artifact(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 2)) + np.array([1e6, 0.0])
    model, other = (zoo.get("simple_rnn_identity", features=2) for _ in range(2))
    for one in (model, other):
        zoo.adapt(one, x)
    readout = other.get_layer("readout")
    readout.set_weights([np.zeros_like(weight) for weight in readout.get_weights()])
    write = export_module._write
    monkeypatch.setattr(export_module, "_write", lambda _, *to: write(other, *to))
    with pytest.raises(ArtifactError, match="otherwise than the model"):
        zoo.export(model, tmp_path / "served")


def test_a_diverged_model_is_not_exported(tmp_path):
    model = zoo.get("simple_rnn_identity")
    readout = model.get_layer("readout")
    readout.set_weights([np.full_like(weight, np.nan) for weight in readout.get_weights()])
    with pytest.raises(ArtifactError, match="finite"):
        zoo.export(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())
