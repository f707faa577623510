"""Jacobian of a model at one row: a copy of the row for each output, one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection.gradients import gradient_of, tensor_function
from keras_seqzoo.inspection.model_function import machine_epsilon

NO_GRADIENT = (
    "`model` must be differentiable by the backend: a Keras model, a loaded SavedModel, or a "
    "function of tensors. Received: {!r}, whose output has no gradient."
)


class Jacobian:
    """`dy/dx` at a row as a float64 matrix, computed for at most `batch_size` outputs at a time.

    Args:
        model: a differentiable model or function.
        x: `(batch, time, ...)`, rows with the dtype of later calls.
        output_step: int, use this output step only; None for the whole output.
        batch_size: int, copies of a row per call of the model.

    Raises:
        ArgumentError: on a backend without gradients.
        DataError: if the input has no gradient, as tokens have none.
    """

    def __init__(self, model: Any, x: np.ndarray, output_step: int | None, batch_size: int):
        input_dtype = model.inputs[0].dtype if getattr(model, "inputs", None) else "float32"
        integers = not np.issubdtype(x.dtype, np.floating)
        if (x.ndim == 2 and integers) or keras.backend.is_int_dtype(input_dtype):
            raise DataError(
                f"`x` must be readings: tokens have no gradient. Received: shape {x.shape}, dtype "
                f"{x.dtype}. Pass vectors as `x`, and as `model` the layers after the embedding."
            )
        fixed = isinstance(model, keras.Model) or hasattr(model, "signatures") or integers
        self.dtype = np.dtype(input_dtype if fixed else x.dtype)
        self.round_off = machine_epsilon(model, self.dtype)
        self.batch_size = batch_size
        self._model = model
        self._gradient = _gradient_function(tensor_function(model), output_step)

    def __call__(self, row: np.ndarray, outputs: int) -> np.ndarray:
        """Jacobian `(outputs, inputs)` at `row`, `(time, ...)`, both sides flattened."""
        parts = []
        for start in range(0, outputs, self.batch_size):
            index = np.arange(start, min(start + self.batch_size, outputs), dtype=np.int32)
            copies = np.broadcast_to(row.astype(self.dtype), (len(index), *row.shape))
            parts.append(self._gradients(copies, index))
        return np.concatenate(parts).reshape(outputs, -1)

    def _gradients(self, copies: np.ndarray, index: np.ndarray) -> np.ndarray:
        try:
            gradients = self._gradient(copies, index)
        except (NotImplementedError, TypeError, AttributeError) as error:  # a function of arrays
            raise ArgumentError(NO_GRADIENT.format(self._model)) from error
        if gradients is None:
            raise ArgumentError(NO_GRADIENT.format(self._model))
        gradients = gradients.astype(np.float64)
        if not np.isfinite(gradients).all():
            raise DataError(
                "The Jacobian must be finite. Received: one with NaN or infinity. Has the model "
                "diverged, or has it no derivative at `x`?"
            )
        return gradients


def _gradient_function(call: Callable, output_step: int | None) -> Callable:
    """Gradient of one output per row, as `f(x, output) -> (batch, time, ...)`."""

    def selected_output(x: Any, output: Any) -> Any:
        y: Any = ops.convert_to_tensor(call(x))
        y = y if output_step is None else y[:, output_step]
        batch = ops.shape(y)[0]  # pyright: ignore[reportOptionalSubscript]  # Keras annotates None
        return ops.take_along_axis(ops.reshape(y, (batch, -1)), output[:, None], axis=1)

    return gradient_of(selected_output)
