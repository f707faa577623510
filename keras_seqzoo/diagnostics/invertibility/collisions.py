"""Two inputs with one output: along what does not show, and back onto the level set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_seqzoo.diagnostics.invertibility.jacobian import Jacobian

CORRECTIONS = 12  # Gauss-Newton steps
HALVINGS = 6
SAME = 64  # outputs are the same if they differ by less than that many units of round-off
NEAR = 0.1  # share of the move that a twin must keep: nearer ones are the row itself


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen at one row."""

    singular_values: np.ndarray
    rank: int
    inputs: int
    twin: np.ndarray | None = None
    input_distance: float = float("nan")
    output_distance: float = float("nan")

    @property
    def condition(self) -> float:
        if self.rank < self.inputs:
            return float("inf")
        return float(self.singular_values[0] / self.singular_values[-1])


def spread(readings: np.ndarray) -> float:
    """Standard deviation of real readings, `(steps, ...)`, or 1 where they are constant."""
    deviation = float(readings.astype(np.float64).std(axis=0).mean())
    return deviation if deviation > 0 else 1.0


def look(
    run: Callable,
    jacobian: Jacobian,
    row: np.ndarray,
    real: np.ndarray,
    counted: np.ndarray,
    *,
    tolerance: float,
    move: float,
) -> Look:
    """Singular values at one row, and another input with its output where the rank is short.

    Args:
        run: from rows to outputs.
        jacobian: of the same model.
        row: `(time, features)`.
        real: `(time,)` bool, steps that may change.
        counted: `(outputs,)` bool, outputs that must not.
        tolerance: float, singular values at most this share of the largest count as 0.
        move: float, how far to go.
    """
    free = np.broadcast_to(real.reshape(-1, *[1] * (row.ndim - 1)), row.shape)
    level = _Level(run, jacobian, row, free, counted, tolerance)
    _, values, directions = np.linalg.svd(level.jacobian(row))
    rank = int((values > tolerance * values.max(initial=0.0)).sum())
    seen = Look(values, rank, int(free.sum()))
    if rank == seen.inputs:
        return seen
    hidden = level.as_row(directions[-1])  # what shows least
    for halving in range(HALVINGS):
        for sign in (1, -1):
            step = sign * move / 2**halving
            twin = level.back((row + step * hidden).astype(row.dtype))
            distance = level.distance(twin)
            far = np.linalg.norm((twin.astype(np.float64) - row)[free])  # padding may be NaN
            if distance <= level.same and far >= NEAR * abs(step):
                return dataclasses.replace(
                    seen, twin=twin, input_distance=float(far), output_distance=distance
                )
    return seen


class _Level:
    """The inputs that have the output of `row`."""

    def __init__(self, run, jacobian, row, free, counted, tolerance):
        self.run, self.row, self.free, self.counted = run, row, free, counted
        self.tolerance = tolerance
        self._jacobian = jacobian
        self._output = self.output(row)
        eps = jacobian.round_off
        self.same = SAME * eps * max(float(np.linalg.norm(self._output)), eps)

    def output(self, row) -> np.ndarray:
        return self.run(row[None])[0].reshape(-1)[self.counted].astype(np.float64)

    def jacobian(self, row) -> np.ndarray:
        whole = self._jacobian(row, self.counted.size)
        return whole[np.ix_(self.counted, self.free.reshape(-1))]

    def as_row(self, direction: np.ndarray) -> np.ndarray:
        row = np.zeros(self.row.shape)
        row[self.free] = direction
        return row

    def distance(self, row) -> float:
        """How far the output is from the level; both rows are run together."""
        both = self.run(np.stack([self.row, row])).reshape(2, -1)[:, self.counted]
        return float(np.linalg.norm(np.subtract(*both.astype(np.float64))))

    def back(self, row: np.ndarray) -> np.ndarray:
        """The nearest input found that is on the level set, or as near to it as it gets.

        The least-norm step has no part in the directions that do not show, so that the way gone
        along them stays.
        """
        best, least = row, np.inf
        for _ in range(CORRECTIONS):
            missing = self._output - self.output(row)
            if not np.linalg.norm(missing) < least:
                break
            best, least = row, np.linalg.norm(missing)
            if least <= self.same / 8:
                break
            inverse = np.linalg.pinv(self.jacobian(row), rcond=self.tolerance)
            row = (row + self.as_row(inverse @ missing)).astype(row.dtype)
        return best
