"""Inputs of an audited model: one array or several, with those along time as one array."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function, model_graph
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_sequence,
    is_int,
    unknown_name_message,
)
from keras_seqzoo.utils.array_validation import as_array, as_tokens

STRINGS = (
    "`model` must have numeric inputs and outputs. Received: {!r}, with strings or a dict of "
    "outputs. Audit the model inside: keras_seqzoo.wrapping.inner_model(model)."
)


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """The input arrays of a model, and which of them share the time axis of the output.

    The inputs along time are handled as one array `(batch, time, ...)`, `time_array`; the others
    accompany their rows.

    Attributes:
        arrays: list of `(batch, ...)`.
        names: tuple of str.
        along: tuple of int, positions of the inputs along time; empty if unknown.
        structure: how the model takes its inputs: "one", "list" or "dict".
        tensors: the model's own input tensors, or None for each if unknown.
    """

    arrays: list[np.ndarray]
    names: tuple[str, ...]
    along: tuple[int, ...]
    structure: str
    tensors: tuple[Any, ...]

    @property
    def time_array(self) -> np.ndarray:
        """The inputs along time as one array."""
        parts = [self.arrays[position] for position in self.along]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return np.zeros((len(self.arrays[0]), 1, 0), "float32")
        flat = [part.reshape(*part.shape[:2], -1).astype(np.float64) for part in parts]
        return np.concatenate(flat, axis=-1)

    def model_inputs(self, x: np.ndarray, rows: np.ndarray) -> Any:
        """Inputs of a model call: `x` along time, and the other inputs of `rows`.

        Raises:
            DataError: if the model takes another shape.
        """
        arrays = [array[rows] for array in self.arrays]
        start = 0
        for position in self.along:
            original = self.arrays[position]
            if len(self.along) == 1:
                arrays[position] = x
                break
            width = int(np.prod(original.shape[2:], dtype=int))
            part = x[..., start : start + width]
            part = part.reshape(*part.shape[:2], *original.shape[2:])
            arrays[position] = part.astype(original.dtype)
            start += width
        arrays = [
            array
            if tensor is None
            else model_function.cast_to_spec(array, tensor.shape, tensor.dtype)
            for array, tensor in zip(arrays, self.tensors, strict=True)
        ]
        if self.structure == "one":
            return arrays[0]
        return arrays if self.structure == "list" else dict(zip(self.names, arrays, strict=True))

    def padding(self, model: Any, mask_value: float | None) -> np.ndarray | None:
        """A padded step of `time_array`, or None if the model is not known to mask one."""
        values = [self._padding_value(model, position, mask_value) for position in self.along]
        if not values or any(value is None for value in values):
            return None
        steps = [
            np.full(self.arrays[position].shape[2:], value)
            for position, value in zip(self.along, values, strict=True)
        ]
        return steps[0] if len(steps) == 1 else np.concatenate([step.ravel() for step in steps])

    def _padding_value(self, model: Any, position: int, mask_value: float | None) -> float | None:
        tokens = self.arrays[position].dtype.kind in "iu"
        if mask_value is not None:
            vocabulary_size = model_graph.input_vocabulary_size(model, self.tensors[position])
            if vocabulary_size is not None:
                as_tokens("mask_value", mask_value, vocabulary_size)
            return 0.0 if tokens and len(self.along) > 1 else float(mask_value)
        values = model_graph.padding_values(model, self.tensors[position])
        if not values and len(self.along) > 1 and tokens and position != self.along[0]:
            return 0.0  # the characters of a padded token
        return values.pop() if len(values) == 1 else None


def read_inputs(model: Any, x: Any, along: Any) -> ModelInputs:
    """The inputs of `model` from the `x` and `along` of a user.

    Raises:
        ArgumentError: if the model has no numeric inputs and outputs, or `along` contains an
            unknown input.
        DataError: if `x` is not one array for each input, all with the same number of rows.
    """
    tensors = _tensors(model)
    _check_numeric(model, tensors)
    arrays, names, structure = _arrays(model, x, tensors)
    if not arrays:
        raise DataError("`x` must have at least one array. Received: an empty dict.")
    for name, array in zip(names, arrays, strict=True):
        if array.ndim < 1 or array.dtype.kind not in "biuf" or 0 in array.shape:
            raise DataError(
                f"`{name}` must be numeric, of shape (batch, time, ...). Received: shape "
                f"{array.shape}, dtype {array.dtype}."
            )
    for name, tensor, array in zip(names, tensors, arrays, strict=False):  # if tensors are known
        model_function.as_model_input(model, tensor, array, name)
    if len({len(array) for array in arrays}) > 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DataError(f"The inputs must have the same number of rows. Received: shapes {shapes}.")
    positions = _positions(0 if along is None and len(arrays) == 1 else along, names)
    times = {arrays[position].shape[1:2] for position in positions}
    if len(times) > 1 or () in times:
        shapes = ", ".join(str(arrays[position].shape) for position in positions)
        hint = f"Their shapes are {shapes}."
        raise ArgumentError(
            argument_message("along", "inputs with as many steps as each other", along, hint)
        )
    return ModelInputs(arrays, names, positions, structure, tensors or (None,) * len(arrays))


def _tensors(model: Any) -> tuple[Any, ...]:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return ()
    return tuple((_inputs_by_name(model) or dict(enumerate(model.inputs))).values())


def _inputs_by_name(model: keras.Model) -> dict[str, Any]:
    """The input tensors of a model that takes a dict; empty for other models."""
    inputs = model_graph.input_of(model)
    return inputs if isinstance(inputs, dict) else {}


def _check_numeric(model: Any, tensors: tuple[Any, ...]) -> None:
    outputs = getattr(model, "outputs", None) if isinstance(model, keras.Model) else None
    if any(tensor.dtype == "string" for tensor in (*tensors, *(outputs or ()))):
        raise ArgumentError(STRINGS.format(model.name))


def _arrays(
    model: Any, x: Any, tensors: tuple[Any, ...]
) -> tuple[list[np.ndarray], tuple[str, ...], str]:
    """Arrays, their names, and the structure in which the model takes them."""
    if tensors:
        by_name = _inputs_by_name(model)
        names = tuple(by_name) or tuple(tensor.name for tensor in tensors)
        if len(tensors) == 1 and not isinstance(x, dict):
            return [as_array("x", x)], names, "dict" if by_name else "one"
        values = dict(x) if isinstance(x, dict) else None
        if values is None and isinstance(x, list | tuple) and len(x) == len(names):
            values = dict(zip(names, x, strict=True))
        if values is None or set(values) != set(names):
            shown = list(x) if isinstance(x, dict) else type(x).__name__
            expected = f"one array for each input of {model.name!r}: {', '.join(names)}"
            raise DataError(
                argument_message("x", expected, shown, "Pass them as a list or a dict.")
            )
        structure = "dict" if by_name else "list" if len(names) > 1 else "one"
        return [as_array(name, values[name]) for name in names], names, structure
    if isinstance(x, dict):
        return [as_array(name, value) for name, value in x.items()], tuple(x), "dict"
    if isinstance(x, tuple) and len(x) > 1:
        names = tuple(f"input {position}" for position in range(len(x)))
        return [as_array(name, value) for name, value in zip(names, x, strict=True)], names, "list"
    return [as_array("x", x)], ("x",), "one"


def _positions(along: Any, names: Sequence[str]) -> tuple[int, ...]:
    """Positions of the inputs in `along`, names or positions, in ascending order."""
    if along is None:
        return ()
    positions = set()
    if isinstance(along, str) or is_int(along):
        along = [along]
    check_sequence(along=along)
    for item in along:
        if is_int(item) and 0 <= item < len(names):
            positions.add(int(item))
        elif isinstance(item, str) and item in names:
            positions.add(names.index(item))
        else:
            raise ArgumentError(unknown_name_message("input", item, names))
    return tuple(sorted(positions))
