"""Checks of constructor arguments that need Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.regularizers import SpectralNorm
from keras_seqzoo.utils.argument_validation import argument_message


def takes_numpy_numbers(constructor: Callable) -> Callable:
    """A constructor that may be given numbers of NumPy, which Keras refuses."""

    @functools.wraps(constructor)
    def build(**arguments: Any):
        return constructor(
            **{
                name: value.item() if isinstance(value, np.number | np.bool_) else value
                for name, value in arguments.items()
            }
        )

    return build


def identifier(module: ModuleType, **argument: Any) -> Any:
    """What Keras makes of an identifier: `identifier(keras.regularizers, kernel_regularizer="l2")`.

    Raises:
        ArgumentError: if Keras does not know it, or it belongs to another kind of object.
    """
    ((name, value),) = argument.items()
    kind = module.__name__.rpartition(".")[2]
    if value is None and kind == "initializers":
        raise ArgumentError(argument_message(name, "an identifier of keras.initializers", value))
    if kind == "regularizers" and isinstance(value, str) and value == "l1_l2":
        return module.L1L2(0.01, 0.01)  # as strong as "l1" and "l2"; Keras's "l1l2" has strength 0
    if kind == "regularizers" and isinstance(value, str) and value == "spectral_norm":
        return SpectralNorm()
    try:
        found = module.get(value)
    except Exception as error:  # Keras raises whatever the identifier makes it trip over
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind}", value, f"Keras says: {error}")
        ) from error
    if found is not None:
        _smoke_test(kind, found, name, value)
    return found


def _smoke_test(kind: str, found: Any, name: str, value: Any) -> None:
    """Runs what an identifier stands for on 2 by 2 numbers: abstract classes and other callables
    would fail only when the model is built, or called.
    """
    sample = ops.zeros((2, 2))
    try:
        result = found((2, 2), dtype="float32") if kind == "initializers" else found(sample)
        shape = tuple(result.shape)
    except Exception as error:  # whatever a foreign callable trips over
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind}", value, f"It fails: {error!r}")
        ) from error
    expected = () if kind == "regularizers" else (2, 2)
    if shape != expected:
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind} that keeps the shape", value)
        )


def check_name(name: Any) -> str:
    """`name` itself, if a model can be called that.

    Raises:
        ArgumentError: if it is not a non-empty string without a slash, which Keras refuses.
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise ArgumentError(argument_message("name", "a non-empty string without '/'", name))
    return name
