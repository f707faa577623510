"""Streaming rules of recurrent layers and causal convolutions."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import keras
from keras import ops, tree

from keras_seqzoo.streaming.state import CannotStep, LayerStates, Summary, TimeStep, leaves
from keras_seqzoo.utils import compat

# The output of these cells is their first state, so the last output needs no place in the state.
_OUTPUT_IS_STATE = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


def rnn(
    states: LayerStates, layer: Any, /, sequences, initial_state=None, mask=None, training=None
):
    """`keras.layers.RNN`: one call of the cell; a padded step leaves the state as it was."""
    if layer.go_backwards:
        raise CannotStep("reads the sequence from its end (go_backwards=True)")
    if initial_state is not None:
        raise CannotStep("takes its initial state from another layer")
    mask = sequences.mask if mask is None else mask.step
    initial = layer.get_initial_state(1)
    parts = leaves(initial)
    state_count = len(parts)
    output_is_state = isinstance(layer.cell, _OUTPUT_IS_STATE)
    # At a padded step Keras repeats the last output, at first zeros; on JAX the first state.
    stores_output = mask is not None and not output_is_state and keras.backend.backend() != "jax"
    if stores_output:
        parts = [*parts, ops.zeros((1, _output_size(layer)), layer.compute_dtype)]
    if any(len(part.shape) != 2 for part in parts):
        raise CannotStep("has states that are not vectors")
    sizes = [part.shape[-1] for part in parts]

    previous, update = states.of_layer(layer, lambda: _concatenate(parts))
    cell_states = _split(previous, sizes)[:state_count]
    x = ops.cast(sequences.step, layer.compute_dtype)
    compat.set_keras_mask(x, None)  # cells do not support masks, and would warn
    output, cell_states = layer.cell(x, tree.pack_sequence_as(initial, cell_states))
    new_parts = leaves(cell_states) + [output] * stores_output
    stored = _split(update(_concatenate(new_parts), mask), sizes)
    if mask is not None:
        real = ops.expand_dims(mask, -1)
        if stores_output:
            output = stored[-1]
        elif output_is_state:
            output = stored[0]
        else:
            output = ops.where(real, output, stored[0])
        if layer.zero_output_for_mask:
            output = ops.where(real, output, ops.zeros_like(output))
    output_mask = mask if layer.supports_masking else None
    output = TimeStep(output, output_mask) if layer.return_sequences else Summary(output)
    return [output, *map(Summary, stored[:state_count])] if layer.return_state else output


def causal_convolution(states: LayerStates, layer: Any, /, inputs: TimeStep) -> TimeStep:
    """A causal `keras.layers.Conv1D`: the state holds the earlier steps of its receptive field."""
    (size,), (dilation,) = layer.kernel_size, layer.dilation_rate
    earlier = (size - 1) * dilation
    if layer.data_format != "channels_last" or tuple(layer.strides) != (1,):
        raise CannotStep("has strides, or its time axis last (data_format='channels_first')")
    if earlier and layer.padding != "causal":
        raise CannotStep(
            f"has padding={layer.padding!r}, so that its output depends on later steps: use "
            "padding='causal'"
        )
    x: Any = ops.cast(inputs.sequence, layer.compute_dtype)
    shape = (1, earlier, x.shape[-1])
    previous, update = states.of_layer(layer, lambda: ops.zeros(shape, layer.compute_dtype))
    field: Any = ops.concatenate([previous, x], axis=1)
    update(field[:, 1:])
    return TimeStep(layer(field)[:, -1])


def _output_size(layer: Any) -> int:
    """The number of units that a recurrent layer outputs at each step."""
    shape = layer.compute_output_shape((1, 1, 1))
    return (shape[0] if layer.return_state else shape)[-1]


def _concatenate(parts: list) -> Any:
    """One tensor of several vectors: a call with fewer tensors takes less time."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _split(vector: Any, sizes: list[int]) -> list[Any]:
    if len(sizes) == 1:
        return [vector]
    return list(ops.split(vector, list(accumulate(sizes))[:-1], axis=-1) or [])
