"""Local injectivity: whether every small change of the input changes the output."""

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
    """Result of `injectivity`: rank, condition and collisions of each row.

    `str(report)` is a summary with a table.

    Attributes:
        injective: bool array `(rows,)`, whether the rank is that of the input.
        rank: int array `(rows,)`, singular values above `tolerance` times the largest.
        inputs: int array `(rows,)`, real steps times features: the rank of an injective map.
        condition: `(rows,)`, the largest over the smallest singular value; inf where the rank is
            short.
        singular_values: `(rows, values)`, descending; padded with nan for rows with padding.
        collisions: for each row another input with the same output, `(time, features)`, or None
            where the rank is full or none was found.
        input_distance: `(rows,)`, norm of the difference of a row and its collision; nan without.
        output_distance: `(rows,)`, norm of the difference of their outputs, from running both.
        output_norm: `(rows,)`, norm of the row's output, for comparison with `output_distance`.
        tolerance: float, argument of `injectivity`, or its default for this model.
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
        """The report as plain data for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        lines = [
            f"Locally injective at {self.injective.sum()} of {len(self.rank)} rows (singular "
            f"values above {self.tolerance:.2g} of the largest count).",
            "",
            "  row   rank   inputs   condition   another input with the same output",
        ]
        for row, collision in enumerate(self.collisions):
            description = "" if self.injective[row] else "none found"
            if collision is not None:
                description = (
                    f"at distance {self.input_distance[row]:.3g}; the outputs, of norm "
                    f"{self.output_norm[row]:.3g}, differ by {self.output_distance[row]:.2g}"
                )
            lines.append(
                f"  {row:>3}   {self.rank[row]:>4}   {self.inputs[row]:>6}   "
                f"{self.condition[row]:>9.3g}   {description}".rstrip()
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
    """Local injectivity of a model at given rows, with pairs of inputs that have the same output.

    The singular values of the Jacobian `dy/dx` of the whole output by the whole input measure how
    much the output changes with the input in each direction. Where all of them are above round-off,
    the map is injective around that row, and the condition number bounds how much an inverse
    amplifies an error of the output. Where the rank is short, another input with the same output
    exists: the search moves along the direction of the smallest singular value and returns to the
    level set by Gauss-Newton steps. Both inputs are then run.

    Full rank is a local property: `y = x**2` has it everywhere but at 0.

    Shapes: `x` is `(batch, time, features)`; the output has any shape. The Jacobian of a row has
        `time * features` columns and one row per output.
    Masking: padded input steps are held fixed and not counted; padded output steps are not counted.
    State: none; stateful models are refused.

    Args:
        model: a Keras model with one input and one output, a loaded SavedModel, or a function of
            tensors; differentiable by the backend.
        x: the rows, of readings. A few are enough, since each costs a singular value decomposition.
        layer: str, name of the layer to use instead of the model's output.
        tolerance: float in (0, 1), share of the largest singular value up to which a singular value
            counts as 0; default round-off of the model's precision times the larger side of the
            Jacobian.
        distance: positive float, distance to another input, in standard deviations of `x`; shorter
            distances are tried where that fails.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own mask.
        output_step: int, use this output step only, -1 for the last; default all.
        batch_size: int, rows per call of the model.

    Returns:
        An `InjectivityReport`.

    Raises:
        DataError: if `x` is tokens, which have no gradient, or `x`, the mask or the output has an
            unusable shape, type or value.
        ArgumentError: if the model is not differentiable, or another argument is invalid.

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
    share = tolerance
    if share is None:
        side = max(y[0].size, x[0].size)
        share = min(jacobian.round_off * max(side, 10), 0.5)
    move = distance * collisions.standard_deviation(x[real])
    rows = [
        collisions.row_injectivity(
            run, jacobian, row, steps, outputs, tolerance=share, distance=move
        )
        for row, steps, outputs in zip(x, real, counted, strict=True)
    ]
    return _report(rows, y, counted, share)


def _counted_outputs(y: np.ndarray, mask: np.ndarray | None, output_step: int | None) -> np.ndarray:
    """Outputs of real steps, `(batch, outputs)` bool."""
    counted = np.ones(y.shape, bool)
    if mask is not None and output_step is None and y.ndim > 2 and y.shape[1] == mask.shape[1]:
        counted[~mask] = False
    return counted.reshape(len(y), -1)


def _report(
    rows: list[collisions.RowInjectivity], y: np.ndarray, counted: np.ndarray, tolerance: float
) -> InjectivityReport:
    values = np.full((len(rows), max(len(row.singular_values) for row in rows)), np.nan)
    for padded, row in zip(values, rows, strict=True):
        padded[: len(row.singular_values)] = row.singular_values
    rank = np.array([row.rank for row in rows])
    inputs = np.array([row.inputs for row in rows])
    outputs = np.where(counted, y.reshape(len(y), -1).astype(np.float64), 0.0)
    return InjectivityReport(
        injective=rank == inputs,
        rank=rank,
        inputs=inputs,
        condition=np.array([row.condition for row in rows]),
        singular_values=values,
        collisions=tuple(row.collision for row in rows),
        input_distance=np.array([row.input_distance for row in rows]),
        output_distance=np.array([row.output_distance for row in rows]),
        output_norm=np.linalg.norm(outputs, axis=1),
        tolerance=tolerance,
    )
