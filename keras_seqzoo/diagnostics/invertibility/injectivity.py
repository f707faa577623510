"""Local injectivity: whether a small change of the input always shows in the output."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.invertibility import collisions
from keras_seqzoo.diagnostics.invertibility.jacobian import Jacobian
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_fraction,
    check_positive,
    is_real,
)
from keras_seqzoo.utils.serialization import to_json_values


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class InjectivityReport:
    """What `injectivity` found. `str(report)` is a sentence, and a line for each row.

    Attributes:
        injective: bool array `(rows,)`, whether the rank is that of the input.
        rank: int array `(rows,)`, singular values above `tolerance` times the largest.
        inputs: int array `(rows,)`, real steps times features: the rank of an injective map.
        condition: `(rows,)`, the largest over the smallest singular value; inf where the rank is
            short.
        singular_values: `(rows, values)`, descending; nan behind those of rows with padding.
        twins: for each row another input with the same output, `(time, features)`, or None where
            the rank is full or none was found.
        input_distance: `(rows,)`, norm of the difference of a row and its twin; nan without one.
        output_distance: `(rows,)`, the same of their outputs, from running both.
        output_norm: `(rows,)`, norm of the row's output, which that distance is to be held against.
        tolerance: float, as asked for, or chosen.
    """

    injective: np.ndarray
    rank: np.ndarray
    inputs: np.ndarray
    condition: np.ndarray
    singular_values: np.ndarray
    collisions: tuple[np.ndarray | None, ...]
    input_distance: np.ndarray
    output_distance: np.ndarray
    output_norm: np.ndarray
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        lines = [
            f"Locally injective at {self.injective.sum()} of {len(self.rank)} rows (singular "
            f"values above {self.tolerance:.2g} of the largest count).",
            "",
            "  row   rank   of   condition   another input with the same output",
        ]
        for row, twin in enumerate(self.twins):
            found = "" if self.injective[row] else "none found"
            if twin is not None:
                found = (
                    f"at distance {self.input_distance[row]:.3g}; the outputs, of norm "
                    f"{self.output_norm[row]:.3g}, differ by {self.output_distance[row]:.2g}"
                )
            lines.append(
                f"  {row:>3}   {self.rank[row]:>4}   {self.inputs[row]:>2}   "
                f"{self.condition[row]:>9.3g}   {found}".rstrip()
            )
        return "\n".join(lines)


def injectivity(
    model: Any,
    x: Any,
    *,
    layer: str | None = None,
    tolerance: float | None = None,
    distance: float = 1.0,
    mask: Any = None,
    output_step: int | None = None,
    batch_size: int = model_function.BATCH_SIZE,
) -> InjectivityReport:
    """Tells, at given rows, whether the input can be told from the output, if only nearby.

    The singular values of the Jacobian `dy/dx` of the whole output by the whole input say how much
    the output moves with the input, direction by direction. Where all are above round-off the map
    is injective around that row, and the condition number says how much an error of the output can
    grow on its way back. Where the rank is short, the directions that do not show in the output
    lead to another input with the same output: one is found by moving along the one that shows
    least and back onto the level set by Gauss-Newton steps, and both are run.

    Full rank says nothing about inputs far away: `y = x**2` has it everywhere but at 0.

    Shapes: `x` is `(batch, time, features)`; the output has any shape. The Jacobian of a row has
        `time * features` columns and as many rows as the row has outputs.
    Masking: padded input steps are held fixed and not counted, nor are padded output steps.
    State: none; stateful models are refused.

    Args:
        model: any Keras model of one input and one output, a loaded SavedModel, or a function of
            tensors; the backend must be able to differentiate it.
        x: the rows to look at, of readings; a few will do, each costs a singular value
            decomposition.
        layer: str, name of the layer to look at in place of the model's output.
        tolerance: float in (0, 1), share of the largest singular value below which one counts as
            0; default round-off of the model's precision times the larger side of the Jacobian.
        distance: positive float, how far to move for another input, in standard deviations of `x`;
            less is tried where that fails.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own.
        output_step: int, the one output step to look at, -1 for the last; default all.
        batch_size: int, rows per call of the model.

    Returns:
        An `InjectivityReport`.

    Raises:
        DataError: if `x` are tokens, which have no gradient, or `x`, the mask or the output has a
            shape, type or value that cannot be used.
        ArgumentError: if the model cannot be differentiated, or another argument cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(1, 4, 2)).astype("float32")
    >>> report = zoo.diagnostics.injectivity(lambda x: x[..., :1] + x[..., 1:], x)
    >>> print(report.rank, report.inputs, report.output_distance < 1e-5)
    [4] [8] [ True]

    Reference: [Golub & Van Loan, Matrix Computations, 4th edition, section
    2.4](https://doi.org/10.56021/9781421407944)
    """
    if tolerance is not None:
        check_fraction(tolerance=tolerance)
    if not is_real(distance) or distance <= 0:
        raise errors.ArgumentError(argument_message("distance", "a positive number", distance))
    x, mask = model_function.prepare_inputs(model, x, mask)
    model = model_function.truncate_at_layer(model, layer)
    function = model_function.as_function(model)
    check_positive(batch_size=batch_size)
    jacobian = Jacobian(model, x, output_step, batch_size)
    x = x.astype(jacobian.dtype)
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    if not real.any(axis=1).all():
        raise errors.DataError("Each row of `x` must have real steps. Received: padding alone.")

    def run(rows: np.ndarray) -> np.ndarray:
        y = model_function.predict_in_batches(function, rows, batch_size)
        return model_function.select_step(y, output_step)

    y = run(x)
    model_function.check_output(y)
    counted = _counted_outputs(y, mask, output_step)
    if tolerance is None:
        sides = max(y[0].size, x[0].size)
        tolerance = min(jacobian.round_off * max(sides, 10), 0.5)
    move = distance * collisions.spread(x[real])
    found = [
        collisions.look(run, jacobian, row, steps, outputs, tolerance=tolerance, move=move)
        for row, steps, outputs in zip(x, real, counted, strict=True)
    ]
    return _report(found, y, counted, tolerance)


def _counted_outputs(y: np.ndarray, mask: np.ndarray | None, output_step) -> np.ndarray:
    """Which outputs of each row count, `(batch, outputs)` bool: those of padded steps do not."""
    counted = np.ones(y.shape, bool)
    if mask is not None and output_step is None and y.ndim > 2 and y.shape[1] == mask.shape[1]:
        counted[~mask] = False
    return counted.reshape(len(y), -1)


def _report(found: list[collisions.Look], y, counted, tolerance: float) -> InjectivityReport:
    values = np.full((len(found), max(len(one.singular_values) for one in found)), np.nan)
    for row, one in zip(values, found, strict=True):
        row[: len(one.singular_values)] = one.singular_values
    rank = np.array([one.rank for one in found])
    inputs = np.array([one.inputs for one in found])
    norms = np.where(counted, y.reshape(len(y), -1).astype(np.float64), 0.0)
    return InjectivityReport(
        injective=rank == inputs,
        rank=rank,
        inputs=inputs,
        condition=np.array([one.condition for one in found]),
        singular_values=values,
        twins=tuple(one.twin for one in found),
        input_distance=np.array([one.input_distance for one in found]),
        output_distance=np.array([one.output_distance for one in found]),
        output_norm=np.linalg.norm(norms, axis=1),
        tolerance=tolerance,
    )
