"""A search space as plain data: what may vary, and how far. No Keras, no KerasTuner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, is_int, is_real


@dataclasses.dataclass(frozen=True)
class Int:
    """An int in `[low, high]`, both included; `log=True` samples its logarithm evenly."""

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
    """A float in `[low, high]`; `log=True` samples its logarithm evenly."""

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
    """One of `values`, which are all strings, all ints or all floats."""

    values: tuple
    default: Any = None
    when: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values))
        kinds = {type(value) for value in self.values}
        if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
            raise ArgumentError(
                argument_message("values", "a non-empty list of strings or of numbers", self.values)
            )
        if self.default is not None and self.default not in self.values:
            raise ArgumentError(argument_message("default", f"one of {self.values}", self.default))

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.values))


Dimension = Int | Float | Choice


def dimension(name: str, given: Any, standard: Dimension | None = None) -> Dimension:
    """Reads what a user may write for one dimension.

    A `Dimension` is taken as it is; a list gives the choices; a tuple `(low, high)` a range, on
    the scale that `standard`, the entry's own dimension of that name, has.
    """
    when = standard.when if standard is not None else {}
    if isinstance(given, Dimension):
        return given if given.when else dataclasses.replace(given, when=when)
    if isinstance(given, list):
        return Choice(tuple(given), when=when)
    if isinstance(given, tuple) and len(given) == 2 and all(map(is_real, given)):
        kind = Int if all(map(is_int, given)) and not isinstance(standard, Float) else Float
        return kind(*given, log=getattr(standard, "log", False), when=when)
    raise ArgumentError(
        argument_message(
            f"space[{name!r}]", "a list of choices, a (low, high) tuple or a Dimension", given
        )
    )


def _check_range(dimension: Int | Float, valid, kind: str) -> None:
    low, high, default = dimension.low, dimension.high, dimension.default
    if not (valid(low) and valid(high) and low <= high):
        raise ArgumentError(
            argument_message("low, high", f"two {kind}s in rising order", (low, high))
        )
    if dimension.log and low <= 0:
        raise ArgumentError(argument_message("low", "above 0 on a log scale", low))
    if default is not None and not (valid(default) and low <= default <= high):
        raise ArgumentError(argument_message("default", f"within {low} and {high}", default))
