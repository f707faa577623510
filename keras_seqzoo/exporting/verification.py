"""Verification of an artifact: served without keras, its outputs are compared with the model's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from keras import ops

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.exporting.endpoint_samples import endpoint_samples
from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.formats import Format
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.exporting.tracing import named_outputs
from keras_seqzoo.inspection.sample_inputs import Sample
from keras_seqzoo.utils import files

PARITY = "parity.json"

# In standard deviations of a feature, by the lowest precision in the model.
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
TOLERANCE = 1e-5
DECODER_TOLERANCE = 1e-4  # each output is fed back as the next input, and with it its round-off
RUNTIME_SCRIPT = Path(__file__).with_name("runtime.py")

Outputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close the outputs of an artifact are to its model's. `str(parity)` is a table.

    Attributes:
        model: str, the model's name.
        cases: tuple of dict: endpoint, batch, steps, padding and the largest absolute difference.
        difference: float, the largest difference, in standard deviations of its feature.
        tolerance: float, the largest difference allowed.
        versions: dict of str, of Python and of the packages.
        format: str, the format of the artifact.
        left_out: dict of str, endpoints that the format does not support, and why.
        files: dict of str, the SHA-256 of each file.
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
            f"The outputs of the artifact of {self.model}, in a process without keras, equal the "
            f"model's: the largest difference is {self.difference:.1e} standard deviations "
            f"(allowed {self.tolerance:.0e}).",
            "",
        ]
        table = pd.DataFrame(self.cases)
        if len({case["endpoint"] for case in self.cases}) == 1:
            table = table.drop(columns="endpoint").set_index("batch")
        else:
            table = table.groupby("endpoint", sort=False).agg(
                cases=("batch", "size"), difference=("difference", "max")
            )
        text = table.reset_index().to_string(index=False, float_format="{:.1e}".format)
        lines += [f"  {line}" for line in text.splitlines()]
        if self.left_out:
            lines += ["", *(f"  Left out: {name}: {why}." for name, why in self.left_out.items())]
        return "\n".join(lines)


def verify_artifact(plan: ExportPlan, artifact_format: Format, folder: Path) -> Parity:
    """Moves an artifact, compares it with its model, and writes the report into it.

    Args:
        plan: `ExportPlan` with the endpoints of the artifact.
        artifact_format: `Format`.
        folder: the artifact.

    Raises:
        ArtifactError: as `check_parity`.
    """
    hashes = file_hashes(folder)
    moved = folder.with_name("moved") / folder.name  # to find paths that the artifact depends on
    moved.parent.mkdir()
    shutil.move(folder, moved)
    parity = check_parity(plan, artifact_format, moved)
    shutil.move(moved, folder)
    parity = dataclasses.replace(parity, left_out=dict(plan.left_out), files=hashes)
    files.write_text(folder / PARITY, json.dumps(parity.to_dict(), indent=2) + "\n")
    return parity


def check_parity(plan: ExportPlan, artifact_format: Format, artifact: Path) -> Parity:
    """Compares an artifact with its model on several batch sizes, lengths and paddings.

    Floats may differ by round-off; ids and strings must be equal.

    Args:
        plan: `ExportPlan` with the endpoints of the artifact.
        artifact_format: `Format`.
        artifact: folder.

    Raises:
        ArtifactError: if the artifact cannot be served without keras, or its outputs differ.
    """
    samples = [
        sample
        for sample in endpoint_samples(plan)
        if sample.endpoint in plan.endpoints and artifact_format.batch in (None, sample.batch)
    ]
    expected = [
        _model_outputs(
            plan.model.name,
            plan.endpoints["serve" if sample.over_time else sample.endpoint],
            sample,
        )
        for sample in samples
    ]
    received = [
        _last_step(*pair)
        for pair in zip(
            expected, run_artifact(artifact, artifact_format.name, samples), strict=True
        )
    ]
    cases = [_case(*compared) for compared in zip(samples, expected, received, strict=True)]
    tolerance = max(
        artifact_format.tolerance,
        0.0 if plan.decoder is None else DECODER_TOLERANCE,
        *(
            TOLERANCES.get(layer.compute_dtype, TOLERANCE)
            for layer in (*plan.model.layers, plan.model)
        ),
    )
    difference = _max(
        _normalized_difference(
            [outputs[name] for outputs, _ in pairs],
            [outputs[name] for _, outputs in pairs],
            tolerance,
        )
        for pairs in _by_endpoint(samples, expected, received)
        for name in pairs[0][0]
    )
    if not difference <= tolerance:  # NaN as well
        raise ArtifactError(
            "The artifact's outputs differ from the model's: the largest difference is "
            f"{difference:.1e} standard deviations, where {tolerance:.0e} is allowed. Nothing was "
            "written."
        )
    versions = _versions(artifact_format.modules.values())
    return Parity(
        plan.model.name, tuple(cases), difference, tolerance, versions, artifact_format.name
    )


def file_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _case(sample: Sample, expected: Outputs, received: Outputs) -> dict[str, Any]:
    """A row of the report: the largest difference of a sample's outputs."""
    for name, array in expected.items():
        if name not in received:
            raise ArtifactError(f"The artifact has no output {name!r}. Nothing was written.")
        if array.shape != received[name].shape:
            raise ArtifactError(
                f"The artifact's output has shape {received[name].shape} where the model's has "
                f"{array.shape} (batch {sample.batch}, {sample.steps} steps, {sample.padding} "
                "padding). Nothing was written."
            )
    return {
        "endpoint": sample.endpoint,
        "batch": sample.batch,
        "steps": sample.steps,
        "padding": sample.padding,
        "difference": _max(
            _differences(array, received[name]).max(initial=0) for name, array in expected.items()
        ),
    }


def _max(values: Iterable[float]) -> float:
    """The largest value, or NaN if one is NaN, which Python's `max` may ignore."""
    return float(np.max(list(values)))


def _last_step(expected: Outputs, received: Outputs) -> Outputs:
    """The outputs of "step", at the last step where the model has one output per sequence."""
    return {
        name: array[:, -1] if name in expected and array.ndim > expected[name].ndim else array
        for name, array in received.items()
    }


def _by_endpoint(
    samples: list[Sample], expected: list[Outputs], received: list[Outputs]
) -> Iterator[list[tuple[Outputs, Outputs]]]:
    """For each endpoint its pairs of expected and received outputs."""
    for endpoint in dict.fromkeys(sample.endpoint for sample in samples):
        yield [
            (outputs, served)
            for sample, outputs, served in zip(samples, expected, received, strict=True)
            if sample.endpoint == endpoint
        ]


def _normalized_difference(
    expected: list[np.ndarray], received: list[np.ndarray], tolerance: float
) -> float:
    """The largest difference of an output in standard deviations; infinity if no float differs.

    Each feature is normalized by itself: a large offset must not hide what varies on top of it.
    """
    pairs = zip(expected, received, strict=True)
    differences = np.max([_differences(*pair).max(axis=0, initial=0) for pair in pairs], axis=0)
    if expected[0].dtype.kind != "f":
        return float("inf") if differences.any() else 0.0
    outputs = np.concatenate([_by_feature(array) for array in expected])
    round_off = 4 * np.finfo(np.float32).eps * np.abs(outputs).max(axis=0)
    unit = outputs.std(axis=0) + round_off / tolerance
    return float((differences / np.maximum(unit, np.finfo(np.float32).tiny)).max())


def _differences(expected: np.ndarray, received: np.ndarray) -> np.ndarray:
    """Absolute differences, `(steps, features)`; of ids and strings 1 where they are not equal."""
    if expected.dtype.kind == "f":
        return _by_feature(np.abs(expected - received))
    return (expected != received).astype(float).reshape(-1, 1)


def _by_feature(array: np.ndarray) -> np.ndarray:
    """An output as `(steps, features)`; one number per row is one feature."""
    return array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)


def _model_outputs(model_name: str, endpoint: Endpoint, sample: Sample) -> Outputs:
    """The model's own outputs by name, floats in double precision."""
    outputs = endpoint.function(*map(ops.convert_to_tensor, sample.inputs.values()))
    arrays = {}
    for name, output in named_outputs(outputs).items():
        array = np.asarray(ops.convert_to_numpy(output))
        if array.dtype == object:
            array = np.char.decode(array.astype(bytes), "utf-8")
        elif "float" in str(output.dtype):
            array = array.astype(np.float64)
            if not np.isfinite(array).all():
                raise ArtifactError(
                    f"The outputs of the model {model_name!r} must be finite to be compared. "
                    "Received: NaN or infinity; has its training diverged? Nothing was written."
                )
        arrays[name] = array
    return arrays


def run_artifact(artifact: Path, artifact_format: str, samples: list[Sample]) -> list[Outputs]:
    """The outputs of an artifact in a process of its own, where keras cannot be imported.

    Args:
        artifact: folder.
        artifact_format: str, name of its `Format`.
        samples: list of `Sample`.

    Raises:
        ArtifactError: if the artifact cannot be loaded or run there.
    """
    with tempfile.TemporaryDirectory() as folder:
        input_file, output_file = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        arrays: dict[str, Any] = {
            f"{case} {'over_time' if sample.over_time else sample.endpoint}/{name}": _as_saved(
                array
            )
            for case, sample in enumerate(samples)
            for name, array in sample.inputs.items()
        }
        np.savez(input_file, **arrays)
        failure = run_process([artifact_format, str(artifact), str(input_file), str(output_file)])
        if failure or not output_file.exists():
            raise ArtifactError(
                f"The artifact cannot be served without keras: {failure or 'no outputs'}. Nothing "
                "was written."
            )
        outputs: list[Outputs] = [{} for _ in samples]
        with np.load(output_file, allow_pickle=False) as file:
            for key in file.files:
                case, _, name = key.partition("/")
                outputs[int(case.split()[0])][name] = file[key]
        return outputs


def run_process(arguments: list[str]) -> str | None:
    """Runs `runtime.py` in a process of its own.

    Args:
        arguments: list of str, those of `runtime.main`.

    Returns:
        The last line of the error, or None without one.
    """
    # Isolated mode: neither the working folder nor PYTHONPATH is on the path of imports.
    process = subprocess.run(
        [sys.executable, "-I", str(RUNTIME_SCRIPT), *arguments],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if not process.returncode:
        return None
    return (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]


def _as_saved(array: np.ndarray) -> np.ndarray:
    """The array in a dtype that NumPy's files support, float32 in place of bfloat16."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _versions(runtime_packages: Iterable[str]) -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "numpy", *runtime_packages)
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
