"""Loops and choices as other formats than TensorFlow's can hold them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import keras
from keras import ops, tree

_PORTABLE = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Inside, what is traced is meant for another runtime than TensorFlow.

    The numbers are the same. Converters to ONNX know a loop that writes step `t` at place `t` and
    nothing else; those to LiteRT must know the shape of whatever is written; PyTorch's unrolls
    loops over as many steps as there happen to be, unless they are its own `scan`.
    """
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def is_portable() -> bool:
    """Whether this is being traced for another runtime."""
    return _PORTABLE.get()


def scan(body, carry, inputs, reverse: bool = False):
    """`ops.scan`, on PyTorch one loop for any number of steps where it is portable.

    Args:
        body: from a carry and what `inputs` are at a step to the carry after, and an output.
        carry: of the first step, nested.
        inputs: tensors `(time, ...)`, nested; Nones stay Nones.
        reverse: bool, whether the last step comes first.
    """
    if not is_portable() or keras.backend.backend() != "torch":
        return ops.scan(body, carry, inputs, reverse=reverse)
    from torch._higher_order_ops.scan import scan as loop

    def apart(x):  # nothing may be a view of what goes in, nor lie otherwise in memory
        return x.contiguous().clone()

    def step(state, now):
        after, output = body(tree.pack_sequence_as(carry, state), _with_nones(inputs, now))
        return [list(map(apart, tree.flatten(one))) for one in (after, said(output))]

    said = _Structure()
    given = [x for x in tree.flatten(inputs) if x is not None]
    first = list(map(apart, tree.flatten(carry)))
    last, outputs = loop(step, first, given, reverse=reverse)
    return tree.pack_sequence_as(carry, last), tree.pack_sequence_as(said.structure, outputs)


class _Structure:
    """Remembers how an output was nested."""

    structure = None

    def __call__(self, output):
        self.structure = output
        return output


def _with_nones(inputs, found):
    found = iter(found)
    flat = [None if one is None else next(found) for one in tree.flatten(inputs)]
    return tree.pack_sequence_as(inputs, flat)


def argmax(x):
    """The first of the largest along the last axis, int32.

    Keras's own looks at the sign's bit, for which other formats have nothing.
    """
    # `initial` lets batches be empty.
    largest = ops.equal(x, ops.max(x, axis=-1, keepdims=True, initial=-float("inf")))
    return ops.argmax(ops.cast(largest, "int32"), axis=-1)
