"""Checks of arguments, with one wording for all error messages.

Every message names the argument, what was expected, what was received, and what to do next.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from keras_seqzoo.errors import ArgumentError


def argument_message(argument: str, expected: str, received: Any, hint: str = "") -> str:
    """Formats "`argument` must be ... Received: ... What to do." for one argument."""
    shown = repr(received)
    shown = shown if len(shown) <= 200 else shown[:197] + "..."
    return f"`{argument}` must be {expected}. Received: {argument}={shown}." + (
        f" {hint}" if hint else ""
    )


def unknown_name_message(kind: str, name: Any, known: Iterable[str]) -> str:
    """Formats "Unknown ...", the nearest known name, and the list of all."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{suggestion} Available: {', '.join(known) or 'none'}."


def is_int(value: Any) -> bool:
    """Whether `value` is an integer that is not a bool; NumPy integers count."""
    whole = isinstance(value, numbers.Integral) and hasattr(value, "__index__")  # no timedelta64
    return whole and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether `value` is a finite real number that is not a bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond any float
        return False


def check_positive(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is an int of at least 1."""
    for name, value in arguments.items():
        if not is_int(value) or value < 1:
            raise ArgumentError(argument_message(name, "a positive int", value))


def check_size(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument may be the size of a tensor's axis."""
    check_positive(**arguments)
    for name, value in arguments.items():
        if value >= 2**31:
            raise ArgumentError(argument_message(name, "a positive int below 2 ** 31", value))


def check_count(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is an int of at least 0."""
    for name, value in arguments.items():
        if not is_int(value) or value < 0:
            raise ArgumentError(argument_message(name, "an int of at least 0", value))


def check_not_negative(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is a number of at least 0."""
    for name, value in arguments.items():
        if not is_real(value) or value < 0:
            raise ArgumentError(argument_message(name, "a number of at least 0", value))


def check_bool(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is True or False."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ArgumentError(argument_message(name, "True or False", value))


def check_mask_value(mask_value: Any) -> None:
    """Raises `ArgumentError` unless it is None or a number, NaN and infinity included."""
    number = isinstance(mask_value, numbers.Real) and not isinstance(mask_value, bool)
    if mask_value is not None and not number:
        raise ArgumentError(
            argument_message("mask_value", "None or a number, NaN included", mask_value)
        )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises `ArgumentError` unless `value` is one of `choices`."""
    choices = list(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(argument_message(name, expected, value))


def check_verbose(verbose: Any) -> None:
    """Raises `ArgumentError` unless `verbose` is 0, 1 or 2."""
    check_choice("verbose", verbose, (0, 1, 2))


def check_fraction(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is a number in (0, 1)."""
    for name, value in arguments.items():
        if not is_real(value) or not 0 < value < 1:
            raise ArgumentError(
                argument_message(name, "a number between 0 and 1, both excluded", value)
            )


def check_rate(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is a number in [0, 1)."""
    for name, value in arguments.items():
        if not is_real(value) or not 0 <= value < 1:
            raise ArgumentError(argument_message(name, "a number in [0, 1)", value))


def check_instance(kinds: type | tuple[type, ...], **arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is an instance of a class, or one of several."""
    for name, value in arguments.items():
        if not isinstance(value, kinds):
            names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
            raise ArgumentError(argument_message(name, f"of the class {' or '.join(names)}", value))


def check_sequence(**arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is a collection in some order, and no str."""
    for name, value in arguments.items():
        collection = hasattr(value, "__len__") and hasattr(value, "__iter__")
        without_axes = getattr(value, "shape", None) == ()
        if isinstance(value, str) or not collection or without_axes:
            raise ArgumentError(argument_message(name, "a list or another collection", value))


def check_names(count: int, **arguments: Any) -> None:
    """Raises `ArgumentError` unless every argument is a list of so many str."""
    check_sequence(**arguments)
    for name, value in arguments.items():
        if len(value) != count or not all(isinstance(one, str) for one in value):
            raise ArgumentError(argument_message(name, f"{count} strings", value))


def check_seed(seed: Any) -> None:
    """Raises `ArgumentError` unless `seed` is an int of at least 0."""
    check_count(seed=seed)
