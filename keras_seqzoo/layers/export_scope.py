"""Loops and choices as other formats than TensorFlow's can hold them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from keras import ops, tree

_PORTABLE = contextvars.ContextVar("export_scope", default=False)


@contextlib.contextmanager
def export_scope() -> Iterator[None]:
    """Inside, what is traced is meant for another runtime than TensorFlow.

    The numbers are the same. Converters to ONNX know a loop that writes step `t` at place `t` and
    nothing else; those to LiteRT must know the shape of whatever is written.
    """
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def in_export_scope() -> bool:
    """Whether this is being traced for another runtime."""
    return _PORTABLE.get()


def scan(body, carry, inputs, reverse: bool = False):
    """`ops.scan` with inputs that may be None, which stay None at each step.

    Args:
        body: from a carry and what `inputs` are at a step to the carry after, and an output.
        carry: of the first step, nested.
        inputs: tensors `(time, ...)` or None, nested.
        reverse: bool, whether the last step comes first.
    """
    flat = tree.flatten(inputs)

    def step(state, now):
        now = iter(now)
        both = [None if one is None else next(now) for one in flat]
        return body(state, tree.pack_sequence_as(inputs, both))

    return ops.scan(step, carry, [one for one in flat if one is not None], reverse=reverse)


def argmax(x):
    """The first of the largest along the last axis, int32.

    Keras's own looks at the sign's bit, for which other formats have nothing.
    """
    # `initial` lets batches be empty.
    largest = ops.equal(x, ops.max(x, axis=-1, keepdims=True, initial=-float("inf")))
    return ops.argmax(ops.cast(largest, "int32"), axis=-1)
