"""Search space dimensions as plain data, independent of Keras and KerasTuner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, is_int, is_real


@dataclasses.dataclass(frozen=True)
class Int:
    """An int in `[low, high]`; `log=True` samples on a log scale.

    `when` maps the names of other dimensions to the values for which this one is active.
    """

    low: int
    high: int
    log: bool = False
    default: int | None = None
    when: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_range(self, is_int, "int")

    def __str__(self) -> str:
        return f"int, {self.low} to {self.high}" + (", log scale" if self.log else "")


@dataclasses.dataclass(frozen=True)
class Float:
    """A float in `[low, high]`; `log=True` samples on a log scale. `when` is as in `Int`."""

    low: float
    high: float
    log: bool = False
    default: float | None = None
    when: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_range(self, is_real, "float")

    def __str__(self) -> str:
        return f"float, {self.low:g} to {self.high:g}" + (", log scale" if self.log else "")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of `values`, which have one type: str, int, float or bool. `when` is as in `Int`."""

    values: tuple
    default: Any = None
    when: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values))
        types = {type(value) for value in self.values}
        if len(types) != 1 or not types <= {str, int, float, bool}:
            raise ArgumentError(
                argument_message("values", "a non-empty list of strings or of numbers", self.values)
            )
        if self.default is not None and self.default not in self.values:
            raise ArgumentError(argument_message("default", f"one of {self.values}", self.default))

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.values))


Dimension = Int | Float | Choice


def as_dimension(name: str, value: Any, default: Dimension | None = None) -> Dimension:
    """Convert a user's value to a dimension.

    Args:
        name: str, the name of the dimension.
        value: `Dimension`, list of choices, or tuple `(low, high)`.
        default: `Dimension`, the entry's own dimension of that name, whose scale and condition
            apply to `value`; None without one.

    Raises:
        ArgumentError: if `value` is something else.
    """
    when = default.when if default is not None else {}
    if isinstance(value, Dimension):
        return value if value.when else dataclasses.replace(value, when=when)
    if isinstance(value, list):
        return Choice(tuple(value), when=when)
    if isinstance(value, tuple) and len(value) == 2 and all(map(is_real, value)):
        kind = Int if all(map(is_int, value)) and not isinstance(default, Float) else Float
        return kind(*value, log=getattr(default, "log", False), when=when)
    raise ArgumentError(
        argument_message(
            f"space[{name!r}]", "a list of choices, a (low, high) tuple or a Dimension", value
        )
    )


def _check_range(dimension: Int | Float, is_valid: Callable[[Any], bool], kind: str) -> None:
    low, high, default = dimension.low, dimension.high, dimension.default
    if not (is_valid(low) and is_valid(high) and low <= high):
        raise ArgumentError(
            argument_message("low, high", f"two {kind}s in increasing order", (low, high))
        )
    if dimension.log and low <= 0:
        raise ArgumentError(argument_message("low", "above 0 on a log scale", low))
    if default is not None and not (is_valid(default) and low <= default <= high):
        raise ArgumentError(argument_message("default", f"within {low} and {high}", default))
