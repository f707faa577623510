"""Proof that an artifact stands alone: another process, another place, the same answers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.exporting.endpoint_samples import endpoint_samples
from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.formats import Format
from keras_seqzoo.inspection.model_graph import decoder_of
from keras_seqzoo.inspection.sample_inputs import Sample

# Of a feature's standard deviation, by the model's lowest precision.
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
TOLERANCE = 1e-5
_DECODED = 1e-4  # of a decoder, whose round-off goes back into it with all that it says
_CHILD = Path(__file__).with_name("runtime.py")


@dataclasses.dataclass(frozen=True)
class Parity:
    """How closely an artifact answers as its model does. `str(parity)` is a table.

    Attributes:
        model: str, the model's name.
        cases: tuple of dict: endpoint, batch, steps, padding and the largest absolute difference.
        difference: float, the largest of all, as a share of the feature's standard deviation.
        tolerance: float, what was allowed.
        versions: dict of str.
        format: str, the artifact's.
        left_out: dict of str, endpoints that the format cannot hold, and why.
        files: dict of str, the SHA-256 of each of its files.
    """

    model: str
    cases: tuple[dict[str, Any], ...]
    difference: float
    tolerance: float
    versions: dict[str, str]
    format: str = "tf_saved_model"
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [
            f"The artifact of {self.model} answers as the model does: largest difference "
            f"{self.difference:.1e} of the output's deviation (allowed {self.tolerance:.0e}), in "
            "a process without keras.",
            "",
        ]
        table = pd.DataFrame(self.cases)
        if table["endpoint"].nunique() == 1:
            table = table.drop(columns="endpoint").set_index("batch")
        else:
            table = table.groupby("endpoint", sort=False).agg(
                cases=("batch", "size"), difference=("difference", "max")
            )
        table = table.reset_index().to_string(index=False, float_format="{:.1e}".format)
        lines += [f"  {line}" for line in table.splitlines()]
        if self.left_out:
            lines += [
                "",
                *(f"  Left out: {name}, as {why}." for name, why in self.left_out.items()),
            ]
        return "\n".join(lines)


def check_parity(
    model: keras.Model, artifact: Path, form: Format, known: Mapping[str, Endpoint]
) -> Parity:
    """Compares `artifact` with `model` on several batch sizes, lengths and paddings.

    Numbers may differ by round-off; tags, classes and names must be the same.

    Args:
        model: `keras.Model`.
        artifact: folder.
        form: its `Format`.
        known: mapping of name to `Endpoint`, those that it holds.

    Raises:
        ArtifactError: if it cannot be served alone, or answers otherwise.
    """
    given = [
        sample
        for sample in endpoint_samples(model, known)
        if sample.endpoint in known and form.rows in (None, sample.batch)
    ]
    expected = [
        _answer(model.name, known["serve" if sample.over_time else sample.endpoint], sample)
        for sample in given
    ]
    served = [
        _at_the_end(*pair)
        for pair in zip(expected, _run_in_own_process(artifact, form.name, given), strict=True)
    ]
    cases = []
    for sample, ours, theirs in zip(given, expected, served, strict=True):
        for name, answer in ours.items():
            if name not in theirs or answer.shape != theirs[name].shape:
                raise ArtifactError(
                    f"The artifact answers with shape {theirs[name].shape} where the model has "
                    f"{answer.shape} (batch {sample.batch}, {sample.steps} steps, "
                    f"{sample.padding} padding). Nothing was written."
                    if name in theirs
                    else f"The artifact has no output {name!r}. Nothing was written."
                )
        cases.append(
            {
                "endpoint": sample.endpoint,
                "batch": sample.batch,
                "steps": sample.steps,
                "padding": sample.padding,
                "difference": _largest(_gaps(ours[n], theirs[n]).max(initial=0) for n in ours),
            }
        )
    tolerance = max(
        form.tolerance,
        0.0 if decoder_of(model) is None else _DECODED,
        *(TOLERANCES.get(layer.compute_dtype, TOLERANCE) for layer in (*model.layers, model)),
    )
    worst = _largest(
        _worst([ours[name] for ours, _ in pairs], [theirs[name] for _, theirs in pairs], tolerance)
        for pairs in _by_endpoint(given, expected, served)
        for name in pairs[0][0]
    )
    if not worst <= tolerance:  # nan as well
        raise ArtifactError(
            f"The artifact answers otherwise than the model: it differs by {worst:.1e} of the "
            f"output's deviation, where {tolerance:.0e} is allowed. Nothing was written."
        )
    versions = _versions(form.modules.values())
    return Parity(model.name, tuple(cases), worst, tolerance, versions, form.name)


def _largest(numbers: Iterable[float]) -> float:
    """The largest of numbers, or NaN if one is NaN, which Python's `max` would pass over."""
    return float(np.max(list(numbers)))


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its place there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def _at_the_end(ours: dict, theirs: dict) -> dict:
    """What a step says at the end of a sequence, where a model says one thing of the whole."""
    return {
        name: array[:, -1] if name in ours and array.ndim > ours[name].ndim else array
        for name, array in theirs.items()
    }


def _by_endpoint(given: list[Sample], *answers: list[dict]) -> list[list[tuple[dict, ...]]]:
    """The answers of both sides, those of one endpoint together."""
    found: dict[str, list[tuple[dict, ...]]] = {}
    for sample, *pair in zip(given, *answers, strict=True):
        found.setdefault(sample.endpoint, []).append(tuple(pair))
    return list(found.values())


def _worst(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> float:
    """The largest difference of one output, in units of its variation; any at all is too much
    where it is no float.

    By feature: a large offset must not hide what varies on top of it.
    """
    pairs = zip(ours, theirs, strict=True)
    gaps = np.max([_gaps(*pair).max(axis=0, initial=0) for pair in pairs], axis=0)
    if ours[0].dtype.kind != "f":
        return float("inf") if gaps.any() else 0.0
    answers = np.concatenate([_by_feature(answer) for answer in ours])
    round_off = 4 * np.finfo(np.float32).eps * np.abs(answers).max(axis=0)
    unit = answers.std(axis=0) + round_off / tolerance
    return float((gaps / np.maximum(unit, np.finfo(np.float32).tiny)).max())


def _gaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How far two answers are apart, `(steps, features)`; 1 where names are not the same."""
    if ours.dtype.kind == "f":
        return _by_feature(np.abs(ours - theirs))
    return (ours != theirs).astype(float).reshape(-1, 1)


def _by_feature(answer: np.ndarray) -> np.ndarray:
    """Any answer as `(steps, features)`; a number per row is one feature."""
    return answer.reshape(-1, answer.shape[-1] if answer.ndim > 1 else 1)


def _answer(model: str, endpoint: Endpoint, sample: Sample) -> dict[str, np.ndarray]:
    """What the model itself gives, by the names of its outputs, floats in double precision."""
    outputs = endpoint.function(*map(keras.ops.convert_to_tensor, sample.inputs.values()))
    outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
    found = {}
    for name, output in outputs.items():
        array = keras.ops.convert_to_numpy(output)
        if array.dtype == object:
            array = np.char.decode(array.astype(bytes), "utf-8")
        elif "float" in str(output.dtype):
            array = array.astype(np.float64)
            if not np.isfinite(array).all():
                raise ArtifactError(
                    f"The model {model!r} must give finite output to be compared. Received: "
                    "NaN or infinity; has it diverged? Nothing was written."
                )
        found[name] = array
    return found


def _run_in_own_process(
    artifact: Path, form: str, asked: list[Sample]
) -> list[dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "given.npz"), Path(folder, "answers.npz")
        cases = {
            f"{case} {'over_time' if sample.over_time else sample.endpoint}/{name}": _saved(array)
            for case, sample in enumerate(asked)
            for name, array in sample.inputs.items()
        }
        np.savez(given, **cases)
        failure = _run_alone([form, str(artifact), str(given), str(answers)])
        if failure or not answers.exists():
            raise ArtifactError(
                f"The artifact cannot be served without keras: {failure or 'no answers'}. Nothing "
                "was written."
            )
        served: list[dict[str, np.ndarray]] = [{} for _ in asked]
        with np.load(answers, allow_pickle=False) as found:
            for key in found.files:
                case, _, name = key.partition("/")
                served[int(case.split()[0])][name] = found[key]
        return served


def _run_alone(arguments: list[str]) -> str | None:
    """Runs `runtime.py`, and returns why it failed, if it did."""
    # Isolated: neither the working folder nor PYTHONPATH can bring anything in.
    done = subprocess.run(
        [sys.executable, "-I", str(_CHILD), *arguments],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _saved(array: np.ndarray) -> np.ndarray:
    """As a file of NumPy's can hold it: that knows no bfloat16."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _versions(besides: Iterable[str]) -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "numpy", *besides)
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
