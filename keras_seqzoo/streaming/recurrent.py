"""What carries something from one step to the next: recurrent layers and causal convolutions."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import keras
from keras import ops, tree

from keras_seqzoo.streaming.state import CannotStep, Memory, Timed, Whole
from keras_seqzoo.utils import compat

# Their output is their first state, so that what was said last need not be kept beside it.
_SAY_THEIR_STATE = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


def recurrent(memory: Memory, layer, /, sequences, initial_state=None, mask=None, training=None):
    """The cell takes a step from the state, which a padded step leaves as it was."""
    if layer.go_backwards:
        raise CannotStep("reads the sequence from its end")
    if initial_state is not None:
        raise CannotStep("is given its first state by another layer")
    mask = sequences.mask if mask is None else mask.step
    begin = layer.get_initial_state(1)
    parts = tree.flatten(begin)
    says_state = isinstance(layer.cell, _SAY_THEIR_STATE)
    # On JAX Keras takes the first state for what any cell said last.
    beside = mask is not None and not says_state and keras.backend.backend() != "jax"
    if beside:  # a padded step says again what was said last, at first zeros
        parts = [*parts, ops.zeros((1, _width(layer)), layer.compute_dtype)]
    if any(len(part.shape) != 2 for part in parts):
        raise CannotStep("has states that are not vectors")
    sizes = [part.shape[-1] for part in parts]

    before, keep = memory.recall(layer, lambda: _joined(parts))
    states = _apart(before, sizes)[: len(tree.flatten(begin))]
    x = ops.cast(sequences.step, layer.compute_dtype)
    compat.set_keras_mask(x, None)  # cells know none, and would warn
    said, after = layer.cell(x, tree.pack_sequence_as(begin, states))
    after = tree.flatten(after)
    kept = _apart(keep(_joined([*after, said] if beside else after), mask), sizes)
    if mask is not None:
        real = ops.expand_dims(mask, -1)
        if beside:
            said = kept[-1]
        elif says_state:
            said = kept[0]
        else:
            said = ops.where(real, said, kept[0])
        if layer.zero_output_for_mask:
            said = ops.where(real, said, ops.zeros_like(said))
    if layer.return_sequences:
        said = Timed(said, mask if layer.supports_masking else None)
    else:
        said = Whole(said)
    return [said, *map(Whole, kept[: len(after)])] if layer.return_state else said


def convolution(memory: Memory, layer, /, inputs):
    """A causal convolution is given the steps that it sees, of which it keeps all but the first."""
    (size,), (dilation,) = layer.kernel_size, layer.dilation_rate
    earlier = (size - 1) * dilation
    if layer.data_format != "channels_last" or tuple(layer.strides) != (1,):
        raise CannotStep("leaves out steps, or has time along its last axis")
    if earlier and layer.padding != "causal":
        raise CannotStep(f"has padding={layer.padding!r} where only 'causal' sees no later steps")
    x = ops.cast(inputs.sequence, layer.compute_dtype)
    shape = (1, earlier, x.shape[-1])
    before, keep = memory.recall(layer, lambda: ops.zeros(shape, layer.compute_dtype))
    seen = ops.concatenate([before, x], axis=1)
    keep(seen[:, 1:])
    return Timed(layer(seen)[:, -1])


def _width(layer) -> int:
    """How many numbers a recurrent layer says at a step."""
    shape = layer.compute_output_shape((1, 1, 1))
    return (shape[0] if layer.return_state else shape)[-1]


def _joined(parts: list) -> Any:
    """Vectors side by side: fewer tensors make a shorter call."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _apart(joined: Any, sizes: list[int]) -> list:
    if len(sizes) == 1:
        return [joined]
    return ops.split(joined, list(accumulate(sizes))[:-1], axis=-1)
