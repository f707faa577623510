"""What goes into an audited model: one array or several, those along time as one."""

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
    "`model` must take numbers and give numbers. Received: {!r}, which takes or gives strings or a "
    "dict. Audit the network inside: keras_seqzoo.wrapping.inner_model(model)."
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The arrays of a model's inputs, and which of them share the time axis of the output.

    Those along time are handled as one array `(batch, time, ...)`, `packed`; the others stay with
    their rows.

    Attributes:
        arrays: list of `(batch, ...)`.
        names: tuple of str.
        along: tuple of int, positions of the inputs along time; empty if that is not known.
        structure: how the model takes them: "one", "list" or "dict".
        tensors: the model's own inputs, or None for each if they are not known.
    """

    arrays: list[np.ndarray]
    names: tuple[str, ...]
    along: tuple[int, ...]
    structure: str
    tensors: tuple[Any, ...]

    @property
    def packed(self) -> np.ndarray:
        """The inputs along time as one array."""
        parts = [self.arrays[at] for at in self.along]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return np.zeros((len(self.arrays[0]), 1, 0), "float32")
        return np.concatenate([self._flat(part).astype(np.float64) for part in parts], axis=-1)

    def unpacked(self, x: np.ndarray, rows: np.ndarray) -> Any:
        """What the model takes: `x` where time runs, and the other inputs of `rows`.

        Raises:
            DataError: if the model takes another shape.
        """
        arrays = [one[rows] for one in self.arrays]
        start = 0
        for at in self.along:
            one = self.arrays[at]
            if len(self.along) == 1:
                arrays[at] = x
                break
            width = int(np.prod(one.shape[2:], dtype=int))
            part = x[..., start : start + width]
            arrays[at] = part.reshape(*part.shape[:2], *one.shape[2:]).astype(one.dtype)
            start += width
        arrays = [
            one if tensor is None else model_function.cast_to_spec(one, tensor.shape, tensor.dtype)
            for one, tensor in zip(arrays, self.tensors, strict=True)
        ]
        if self.structure == "one":
            return arrays[0]
        return arrays if self.structure == "list" else dict(zip(self.names, arrays, strict=True))

    def padding(self, model: Any, mask_value: float | None) -> np.ndarray | None:
        """A padded step of `packed`, or None if the model has none that could be found."""
        values = [self._padding_of(model, at, mask_value) for at in self.along]
        if not values or any(value is None for value in values):
            return None
        steps = [
            np.full(self.arrays[at].shape[2:], value)
            for at, value in zip(self.along, values, strict=True)
        ]
        return steps[0] if len(steps) == 1 else np.concatenate([step.ravel() for step in steps])

    def _padding_of(self, model: Any, at: int, mask_value: float | None) -> float | None:
        tokens = self.arrays[at].dtype.kind in "iu"
        if mask_value is not None:
            known = model_graph.input_vocabulary_size(model, self.tensors[at])
            if known is not None:
                as_tokens("mask_value", mask_value, known)
            return 0.0 if tokens and len(self.along) > 1 else float(mask_value)
        found = model_graph.padding_values(model, self.tensors[at])
        if not found and len(self.along) > 1 and tokens and at != self.along[0]:
            return 0.0  # the characters of a padded token
        return found.pop() if len(found) == 1 else None

    @staticmethod
    def _flat(part: np.ndarray) -> np.ndarray:
        return part.reshape(*part.shape[:2], -1)


def read_inputs(model: Any, x: Any, along: Any) -> Inputs:
    """The inputs of `model`, from what a user gives.

    Raises:
        ArgumentError: if the model takes or gives no numbers, or `along` names no input.
        DataError: if `x` is not one array for each input, with one row count.
    """
    tensors = _tensors(model)
    _check_numbers(model, tensors)
    arrays, names, structure = _arrays(model, x, tensors)
    if not arrays:
        raise DataError("`x` must have at least one array. Received: an empty dict.")
    for name, one in zip(names, arrays, strict=True):
        if one.ndim < 1 or one.dtype.kind not in "biuf" or 0 in one.shape:
            raise DataError(
                f"`{name}` must be numeric, of shape (batch, time, ...). Received: shape "
                f"{one.shape}, dtype {one.dtype}."
            )
    for name, tensor, one in zip(names, tensors, arrays, strict=False):  # if tensors are known
        model_function.as_model_input(model, tensor, one, name)
    if len({len(one) for one in arrays}) > 1:
        shapes = ", ".join(str(one.shape) for one in arrays)
        raise DataError(f"The inputs must have as many rows each. Received: shapes {shapes}.")
    positions = _positions(0 if along is None and len(arrays) == 1 else along, names)
    times = {arrays[at].shape[1:2] for at in positions}
    if len(times) > 1 or () in times:
        shapes = ", ".join(str(arrays[at].shape) for at in positions)
        hint = f"Their shapes are {shapes}."
        raise ArgumentError(argument_message("along", "inputs of as many steps", along, hint))
    return Inputs(arrays, names, positions, structure, tensors or (None,) * len(arrays))


def _tensors(model: Any) -> tuple[Any, ...]:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return ()
    return tuple((_by_name(model) or dict(enumerate(model.inputs))).values())


def _by_name(model: keras.Model) -> dict[str, Any]:
    """The inputs of a model that takes them as a dict; an empty one for others."""
    given = model_graph.input_of(model)
    return given if isinstance(given, dict) else {}


def _check_numbers(model: Any, tensors: tuple[Any, ...]) -> None:
    outputs = getattr(model, "outputs", None) if isinstance(model, keras.Model) else None
    if any(one.dtype == "string" for one in (*tensors, *(outputs or ()))):
        raise ArgumentError(STRINGS.format(model.name))


def _arrays(model: Any, x: Any, tensors) -> tuple[list[np.ndarray], tuple[str, ...], str]:
    """Arrays, their names, and how the model takes them."""
    if tensors:
        by_name = _by_name(model)
        names = tuple(by_name) or tuple(one.name for one in tensors)
        if len(tensors) == 1 and not isinstance(x, dict):
            return [as_array("x", x)], names, "dict" if by_name else "one"
        given = dict(x) if isinstance(x, dict) else None
        if given is None and isinstance(x, list | tuple) and len(x) == len(names):
            given = dict(zip(names, x, strict=True))
        if given is None or set(given) != set(names):
            shown = list(x) if isinstance(x, dict) else type(x).__name__
            expected = f"one array for each input of {model.name!r}: {', '.join(names)}"
            raise DataError(
                argument_message("x", expected, shown, "Give them as a list or a dict.")
            )
        structure = "dict" if by_name else "list" if len(names) > 1 else "one"
        return [as_array(name, given[name]) for name in names], names, structure
    if isinstance(x, dict):
        return [as_array(name, one) for name, one in x.items()], tuple(x), "dict"
    if isinstance(x, tuple) and len(x) > 1:
        names = tuple(f"input {number}" for number in range(len(x)))
        return [as_array(name, one) for name, one in zip(names, x, strict=True)], names, "list"
    return [as_array("x", x)], ("x",), "one"


def _positions(along: Any, names: Sequence[str]) -> tuple[int, ...]:
    """Positions of the inputs that `along` names, in their order."""
    if along is None:
        return ()
    found = set()
    if isinstance(along, str) or is_int(along):
        along = [along]
    check_sequence(along=along)
    for one in along:
        if is_int(one) and 0 <= one < len(names):
            found.add(int(one))
        elif isinstance(one, str) and one in names:
            found.add(names.index(one))
        else:
            raise ArgumentError(unknown_name_message("input", one, names))
    return tuple(sorted(found))
