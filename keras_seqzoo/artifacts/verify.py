"""Proof that an artifact stands alone: another process, another place, the same answers."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.errors import ArtifactError

# Of a feature's standard deviation, by the model's lowest precision.
TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
TOLERANCE = 1e-5
_CHILD = Path(__file__).with_name("serve_alone.py")


@dataclasses.dataclass(frozen=True)
class Parity:
    """How closely an artifact answers as its model does. `str(parity)` is a table.

    Attributes:
        model: str, the model's name.
        cases: tuple of dict: batch, steps, padding and the largest absolute difference.
        difference: float, the largest of all, as a share of the feature's standard deviation.
        tolerance: float, what was allowed.
        versions: dict of str.
    """

    model: str
    cases: tuple[dict[str, Any], ...]
    difference: float
    tolerance: float
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [
            f"The artifact of {self.model} answers as the model does: largest difference "
            f"{self.difference:.1e} of the output's deviation (allowed {self.tolerance:.0e}), in "
            "a process without keras.",
            "",
            "  batch   steps   padding   difference",
        ]
        lines += [
            f"  {case['batch']:>5}   {case['steps']:>5}   {case['padding']:<7}   "
            f"{case['difference']:.1e}"
            for case in self.cases
        ]
        return "\n".join(lines)


def check_parity(model: keras.Model, artifact: Path) -> Parity:
    """Compares `artifact` with `model` on several batch sizes, lengths and paddings.

    Raises:
        ArtifactError: if it cannot be served alone, or answers otherwise.
    """
    inputs = list(_inputs(model))
    expected = [np.asarray(model(x, training=False), np.float64) for _, _, x in inputs]
    if not all(np.isfinite(answer).all() for answer in expected):
        raise ArtifactError(
            f"The model {model.name!r} must give finite output to be compared. Received: NaN or "
            "infinity; has it diverged? Nothing was written."
        )
    served = _serve_alone(artifact, [x for _, _, x in inputs])
    cases, gaps = [], []
    for (padding, steps, x), ours, theirs in zip(inputs, expected, served, strict=True):
        if ours.shape != theirs.shape:
            raise ArtifactError(
                f"The artifact answers with shape {theirs.shape} where the model has {ours.shape} "
                f"(batch {len(x)}, {steps} steps, {padding} padding). Nothing was written."
            )
        gaps.append(np.abs(ours - theirs).reshape(-1, ours.shape[-1]).max(axis=0))
        difference = float(gaps[-1].max(initial=0.0))
        cases.append(
            {"batch": len(x), "steps": steps, "padding": padding, "difference": difference}
        )
    tolerance = max(
        TOLERANCES.get(layer.compute_dtype, TOLERANCE) for layer in (*model.layers, model)
    )
    # By feature, in units of its variation: a large offset must not hide what varies on top of it.
    answers = np.concatenate([answer.reshape(-1, answer.shape[-1]) for answer in expected])
    round_off = 4 * np.finfo(np.float32).eps * np.abs(answers).max(axis=0)
    unit = answers.std(axis=0) + round_off / tolerance
    worst = float((np.max(gaps, axis=0) / np.maximum(unit, np.finfo(np.float32).tiny)).max())
    if not worst <= tolerance:  # nan as well
        raise ArtifactError(
            f"The artifact answers otherwise than the model: it differs by {worst:.1e} of the "
            f"output's deviation, where {tolerance:.0e} is allowed. Nothing was written."
        )
    return Parity(model.name, tuple(cases), worst, tolerance, _versions())


def _inputs(model: keras.Model) -> Iterator[tuple[str, int, np.ndarray]]:
    """Random input in the range that the model was adapted to, padded where it knows padding."""
    (tensor,) = model.inputs
    rng = np.random.default_rng(0)
    lengths = (1, 7, 50) if len(tensor.shape) < 2 or tensor.shape[1] is None else (tensor.shape[1],)
    mean, deviation = _range(model)
    mask_value = next(
        (layer.mask_value for layer in model.layers if isinstance(layer, layers.StepMask)), None
    )
    for batch in (1, 3, 16):
        for steps in lengths:
            shape = (batch, steps, *tensor.shape[2:])
            x = (mean + deviation * rng.normal(size=shape)).astype(tensor.dtype)
            yield "none", steps, x
            if mask_value is not None and steps > 2:
                for side, padded in (("left", slice(0, steps // 3)), ("right", slice(-2, None))):
                    changed = x.copy()
                    changed[::2, padded] = mask_value
                    yield side, steps, changed


def _range(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    for layer in model.layers:
        if isinstance(layer, layers.Normalization) and not layer.invert:
            mean, variance = layer.get_weights()[:2]
            return mean, np.sqrt(variance)
    return np.zeros(1), np.ones(1)


def _serve_alone(artifact: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "given.npz"), Path(folder, "answers.npz")
        np.savez(given, *inputs)
        # Isolated: neither the working folder nor PYTHONPATH can bring anything in.
        command = [sys.executable, "-I", _CHILD, artifact, given, answers]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(
            list(map(str, command)),
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not answers.exists():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ArtifactError(
                f"The artifact cannot be served without keras: {lines[-1]}. Nothing was written."
            )
        with np.load(answers, allow_pickle=False) as found:
            return [found[name] for name in found.files]


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
