"""A scope for tracing models that other runtimes than TensorFlow will run."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from keras import ops, tree

_IN_SCOPE = contextvars.ContextVar("export_scope", default=False)


@contextlib.contextmanager
def export_scope() -> Iterator[None]:
    """Context in which layers trace loops that converters to ONNX and LiteRT support.

    Results are the same. The converter to ONNX supports only loops that write step `t` at index
    `t`. The converter to LiteRT needs the static shape of everything that a loop writes.
    """
    token = _IN_SCOPE.set(True)
    try:
        yield
    finally:
        _IN_SCOPE.reset(token)


def in_export_scope() -> bool:
    """Whether the code runs inside `export_scope`."""
    return _IN_SCOPE.get()


def scan(body, carry, inputs, reverse: bool = False):
    """`ops.scan` over nested inputs that may hold None, which stays None at each step.

    Args:
        body: from a carry and the inputs of a step to the next carry and an output.
        carry: initial carry, nested.
        inputs: tensors `(time, ...)` or None, nested.
        reverse: bool, whether to begin with the last step.
    """
    flat = tree.flatten(inputs)

    def step(state, step_inputs):
        step_inputs = iter(step_inputs)
        restored = [None if tensor is None else next(step_inputs) for tensor in flat]
        return body(state, tree.pack_sequence_as(inputs, restored))

    return ops.scan(step, carry, [x for x in flat if x is not None], reverse=reverse)


def argmax(x):
    """The first index of the maximum along the last axis, int32, from exportable operations.

    `keras.ops.argmax` of floats uses the sign bit, which other formats do not support.
    """
    # `initial` allows empty batches.
    is_max = ops.equal(x, ops.max(x, axis=-1, keepdims=True, initial=-float("inf")))
    return ops.argmax(ops.cast(is_max, "int32"), axis=-1)
