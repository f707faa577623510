"""Loops and choices as other formats than TensorFlow's can hold them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from keras import ops

_PORTABLE = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Inside, what is traced is meant for another runtime than TensorFlow.

    The numbers are the same. Converters to ONNX know a loop that writes step `t` at place `t` and
    nothing else; those to LiteRT must know the shape of whatever is written.
    """
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def is_portable() -> bool:
    """Whether this is being traced for another runtime."""
    return _PORTABLE.get()


def argmax(x):
    """The first of the largest along the last axis, int32.

    Keras's own looks at the sign's bit, for which other formats have nothing.
    """
    # `initial` lets batches be empty.
    largest = ops.equal(x, ops.max(x, axis=-1, keepdims=True, initial=-float("inf")))
    return ops.argmax(ops.cast(largest, "int32"), axis=-1)
