"""Conversion and validation of constructor arguments that are Keras objects."""

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


def accepts_numpy_scalars(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a constructor so that it takes NumPy scalars, which Keras refuses in a config."""

    @functools.wraps(constructor)
    def build(**arguments: Any):
        return constructor(
            **{
                name: value.item() if isinstance(value, np.number | np.bool_) else value
                for name, value in arguments.items()
            }
        )

    return build


def from_identifier(module: ModuleType, **argument: Any) -> Any:
    """Resolves a Keras identifier: `from_identifier(keras.regularizers, kernel_regularizer="l2")`.

    Args:
        module: `keras.activations`, `keras.initializers` or `keras.regularizers`.
        **argument: one argument of the constructor, its name and value.

    Raises:
        ArgumentError: if Keras does not know the identifier, or it belongs to another module.
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
        resolved = module.get(value)
    except Exception as error:  # Keras may raise any exception here
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind}", value, f"Keras: {error}")
        ) from error
    if resolved is not None:
        _smoke_test(kind, resolved, name, value)
    return resolved


def _smoke_test(kind: str, resolved: Any, name: str, value: Any) -> None:
    """Calls what an identifier resolved to on a `(2, 2)` tensor.

    Abstract classes and unrelated callables would otherwise fail when the model is built or called.
    """
    sample = ops.zeros((2, 2))
    try:
        result = resolved((2, 2), dtype="float32") if kind == "initializers" else resolved(sample)
        shape = tuple(result.shape)
    except Exception as error:  # a foreign callable may raise any exception
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind}", value, f"It fails: {error!r}")
        ) from error
    expected = () if kind == "regularizers" else (2, 2)
    if shape != expected:
        raise ArgumentError(
            argument_message(name, f"an identifier of keras.{kind} that keeps the shape", value)
        )


def check_name(name: Any) -> str:
    """Validates the name of a model and returns it.

    Raises:
        ArgumentError: if it is not a non-empty string, or has a slash, which Keras refuses.
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise ArgumentError(argument_message("name", "a non-empty string without '/'", name))
    return name
