"""Argument validation with uniform error messages.

Every message names the argument, what is expected, what was received, and what to do.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from keras_seqzoo.errors import ArgumentError


def argument_message(argument: str, expected: str, received: Any, hint: str = "") -> str:
    """Format the message of an invalid argument.

    Example:

    >>> argument_message("units", "a positive int", 0, "Use at least 1 unit.")
    '`units` must be a positive int. Received: units=0. Use at least 1 unit.'
    """
    value = repr(received)
    value = value if len(value) <= 200 else value[:197] + "..."
    return f"`{argument}` must be {expected}. Received: {argument}={value}." + (
        f" {hint}" if hint else ""
    )


def unknown_name_message(kind: str, name: Any, available: Iterable[str]) -> str:
    """Format the message of an unknown name, with the nearest known name and the list of all.

    Example:

    >>> unknown_name_message("cell", "grru", ["gru", "lstm"])
    "Unknown cell 'grru'. Did you mean 'gru'? Available: gru, lstm."
    """
    available = list(available)
    near = difflib.get_close_matches(str(name), available, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{suggestion} Available: {', '.join(available) or 'none'}."


def is_int(value: Any) -> bool:
    """Whether `value` is an integer that is not a bool; NumPy integers count."""
    # NumPy registers timedelta64 as Integral.
    integral = isinstance(value, numbers.Integral) and hasattr(value, "__index__")
    return integral and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether `value` is a finite real number that is not a bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond any float
        return False


def check_positive(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is an int of at least 1."""
    for name, value in arguments.items():
        if not is_int(value) or value < 1:
            raise ArgumentError(argument_message(name, "a positive int", value))


def check_size(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is an int from 1 to 2 ** 31 - 1."""
    check_positive(**arguments)
    for name, value in arguments.items():
        if value >= 2**31:
            raise ArgumentError(argument_message(name, "a positive int below 2 ** 31", value))


def check_count(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is an int of at least 0."""
    for name, value in arguments.items():
        if not is_int(value) or value < 0:
            raise ArgumentError(argument_message(name, "an int of at least 0", value))


def check_not_negative(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a number of at least 0."""
    for name, value in arguments.items():
        if not is_real(value) or value < 0:
            raise ArgumentError(argument_message(name, "a number of at least 0", value))


def check_bool(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is True or False."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ArgumentError(argument_message(name, "True or False", value))


def check_mask_value(mask_value: Any) -> None:
    """Raise `ArgumentError` unless `mask_value` is None or a number; NaN and infinity are valid."""
    number = isinstance(mask_value, numbers.Real) and not isinstance(mask_value, bool)
    if mask_value is not None and not number:
        raise ArgumentError(
            argument_message("mask_value", "None or a number, NaN included", mask_value)
        )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise `ArgumentError` unless `value` is one of `choices`."""
    choices = list(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(argument_message(name, expected, value))


def check_verbose(verbose: Any) -> None:
    """Raise `ArgumentError` unless `verbose` is 0, 1 or 2."""
    check_choice("verbose", verbose, (0, 1, 2))


def check_fraction(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a number in (0, 1)."""
    for name, value in arguments.items():
        if not is_real(value) or not 0 < value < 1:
            raise ArgumentError(
                argument_message(name, "a number between 0 and 1, both excluded", value)
            )


def check_rate(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a number in [0, 1)."""
    for name, value in arguments.items():
        if not is_real(value) or not 0 <= value < 1:
            raise ArgumentError(argument_message(name, "a number in [0, 1)", value))


def check_instance(classes: type | tuple[type, ...], **arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is an instance of one of the classes."""
    for name, value in arguments.items():
        if not isinstance(value, classes):
            names = [
                cls.__name__ for cls in (classes if isinstance(classes, tuple) else (classes,))
            ]
            raise ArgumentError(
                argument_message(name, f"an instance of {' or '.join(names)}", value)
            )


def check_sequence(**arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a list, an array or another collection.

    A str and an array without axes are not collections.
    """
    for name, value in arguments.items():
        collection = hasattr(value, "__len__") and hasattr(value, "__iter__")
        scalar_array = getattr(value, "shape", None) == ()
        if isinstance(value, str) or not collection or scalar_array:
            raise ArgumentError(argument_message(name, "a list or another collection", value))


def check_instances(cls: type, **arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a sequence of instances of the class."""
    check_sequence(**arguments)
    for name, value in arguments.items():
        if not all(isinstance(item, cls) for item in value):
            expected = f"a list of instances of {cls.__name__}"
            raise ArgumentError(argument_message(name, expected, value))


def check_names(count: int, **arguments: Any) -> None:
    """Raise `ArgumentError` unless every argument is a sequence of `count` str."""
    check_sequence(**arguments)
    for name, value in arguments.items():
        if len(value) != count or not all(isinstance(item, str) for item in value):
            raise ArgumentError(argument_message(name, f"{count} strings", value))


def check_seed(seed: Any) -> None:
    """Raise `ArgumentError` unless `seed` is an int of at least 0."""
    check_count(seed=seed)
