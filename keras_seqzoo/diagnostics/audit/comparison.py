"""Differences of outputs, in units of round-off."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """The largest difference between an output and its expected value.

    Attributes:
        row: int, row of `x`.
        step: int, step of the output, or None for an output without steps.
        feature: int, feature of the output.
        size: float, the difference in units of round-off.
        expected: float, the value expected.
        actual: float, the value returned.
    """

    row: int
    step: int | None
    feature: int
    size: float
    expected: float
    actual: float

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}, "
        return (
            f"row {self.row}, {step}output {self.feature}: {self.actual:.6g} instead of "
            f"{self.expected:.6g}, {self.size:.3g} round-off units"
        )


def largest_difference(
    actual: np.ndarray,
    expected: np.ndarray,
    rows: np.ndarray,
    unit: np.ndarray,
    real: np.ndarray | None,
) -> Counterexample:
    """The largest difference between two outputs, in units of round-off.

    Args:
        actual: `(batch, steps, outputs)`.
        expected: `(batch, steps, outputs)`. Another shape than that of `actual` counts as an
            infinite difference.
        rows: int `(batch,)`, the row numbers to report.
        unit: `(1, 1, outputs)`, round-off of each output.
        real: `(batch, steps)` bool, steps to compare; None for all.
    """
    same_shape = actual.shape == expected.shape
    if not same_shape or not actual.size:
        size = 0.0 if same_shape else float("inf")
        return Counterexample(int(rows[0]), None, 0, size, np.nan, np.nan)
    gap = np.abs(actual - expected) / unit
    gap = np.where(np.isfinite(gap), gap, np.inf)
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    gap = np.where(equal, 0.0, gap)
    if real is not None:
        gap = np.where(real[..., None], gap, 0.0)
    position = np.unravel_index(np.argmax(gap), gap.shape)
    row, step, output = map(int, position)
    return Counterexample(
        row=int(rows[row]),
        step=step,
        feature=output,
        size=float(gap[position]),
        expected=float(expected[position]),
        actual=float(actual[position]),
    )
