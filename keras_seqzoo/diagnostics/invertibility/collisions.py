"""Collisions: two inputs with the same output, by a move along a null direction of the Jacobian."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_seqzoo.diagnostics.invertibility.jacobian import Jacobian

GAUSS_NEWTON_STEPS = 12
HALVINGS = 6
SAME_OUTPUT = 64  # units of round-off up to which two outputs are the same
MIN_DISTANCE = 0.1  # share of the move by which a collision must differ from the row


@dataclasses.dataclass(frozen=True)
class RowInjectivity:
    """Local injectivity at one row.

    Attributes:
        singular_values: descending, of the Jacobian.
        rank: int, singular values that count.
        inputs: int, real steps times features.
        collision: another input with the same output, `(time, features)`, or None.
        input_distance: float, norm of the difference of the inputs; nan without a collision.
        output_distance: float, norm of the difference of the outputs.
    """

    singular_values: np.ndarray
    rank: int
    inputs: int
    collision: np.ndarray | None = None
    input_distance: float = float("nan")
    output_distance: float = float("nan")

    @property
    def condition(self) -> float:
        """Largest over smallest singular value; infinity where the rank is short."""
        if self.rank < self.inputs:
            return float("inf")
        return float(self.singular_values[0] / self.singular_values[-1])


def standard_deviation(readings: np.ndarray) -> float:
    """Standard deviation of real readings, `(steps, ...)`, or 1 where they are constant."""
    deviation = float(readings.astype(np.float64).std(axis=0).mean())
    return deviation if deviation > 0 else 1.0


def row_injectivity(
    run: Callable[[np.ndarray], np.ndarray],
    jacobian: Jacobian,
    row: np.ndarray,
    real: np.ndarray,
    counted: np.ndarray,
    *,
    tolerance: float,
    distance: float,
) -> RowInjectivity:
    """Singular values at one row, and a collision where the rank is short.

    Args:
        run: from rows to outputs.
        jacobian: of the same model.
        row: `(time, features)`.
        real: `(time,)` bool, steps that may change.
        counted: `(outputs,)` bool, outputs that must stay the same.
        tolerance: float, singular values at most this share of the largest count as 0.
        distance: float, length of the move along the null direction; shorter moves are tried where
            that fails.
    """
    free = np.broadcast_to(real.reshape(-1, *[1] * (row.ndim - 1)), row.shape)
    level_set = _LevelSet(run, jacobian, row, free, counted, tolerance)
    _, values, directions = np.linalg.svd(level_set.jacobian(row))
    rank = int((values > tolerance * values.max(initial=0.0)).sum())
    result = RowInjectivity(values, rank, int(free.sum()))
    if rank == result.inputs:
        return result
    direction = level_set.as_row(directions[-1])  # of the smallest singular value
    for halving in range(HALVINGS):
        for sign in (1, -1):
            step = sign * distance / 2**halving
            collision = level_set.project((row + step * direction).astype(row.dtype))
            output_distance = level_set.output_distance(collision)
            difference = collision.astype(np.float64) - row
            input_distance = np.linalg.norm(difference[free])  # padding may be NaN
            same = output_distance <= level_set.same_output
            if same and input_distance >= MIN_DISTANCE * abs(step):
                return dataclasses.replace(
                    result,
                    collision=collision,
                    input_distance=float(input_distance),
                    output_distance=output_distance,
                )
    return result


class _LevelSet:
    """The inputs with the same output as `row`."""

    def __init__(self, run, jacobian: Jacobian, row, free, counted, tolerance: float):
        self.run, self.row, self.free, self.counted = run, row, free, counted
        self.tolerance = tolerance
        self._jacobian = jacobian
        self._output = self.output(row)
        eps = jacobian.round_off
        self.same_output = SAME_OUTPUT * eps * max(float(np.linalg.norm(self._output)), eps)

    def output(self, row: np.ndarray) -> np.ndarray:
        """The counted outputs at `row`."""
        return self.run(row[None])[0].reshape(-1)[self.counted].astype(np.float64)

    def jacobian(self, row: np.ndarray) -> np.ndarray:
        """Jacobian of the counted outputs by the free inputs at `row`."""
        matrix = self._jacobian(row, self.counted.size)
        return matrix[np.ix_(self.counted, self.free.reshape(-1))]

    def as_row(self, direction: np.ndarray) -> np.ndarray:
        """A vector of free inputs as a row, 0 elsewhere."""
        row = np.zeros(self.row.shape)
        row[self.free] = direction
        return row

    def output_distance(self, row: np.ndarray) -> float:
        """Distance of the output from the level set; both rows run in one batch."""
        outputs = self.run(np.stack([self.row, row])).reshape(2, -1)[:, self.counted]
        return float(np.linalg.norm(np.subtract(*outputs.astype(np.float64))))

    def project(self, row: np.ndarray) -> np.ndarray:
        """The input on the level set nearest to `row`, or as near to the set as steps converge.

        The least-norm Gauss-Newton step has no component along null directions, so that the move
        along them is kept.
        """
        best, least = row, np.inf
        for _ in range(GAUSS_NEWTON_STEPS):
            error = self._output - self.output(row)
            if not np.linalg.norm(error) < least:
                break
            best, least = row, np.linalg.norm(error)
            if least <= self.same_output / 8:
                break
            inverse = np.linalg.pinv(self.jacobian(row), rcond=self.tolerance)
            row = (row + self.as_row(inverse @ error)).astype(row.dtype)
        return best
