"""The layers of a Keras model, and what the layers behind an input reveal about it."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.layers import (
    CharacterBiLSTM,
    CharacterCNN,
    EncoderDecoderModel,
    StepMask,
    TokenMask,
    WordDropout,
)
from keras_seqzoo.utils import compat


def flatten_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """A model and all nested layers, including wrapped layers and cells."""
    return compat.flatten_layers(model)


def layers_fed_by(model: keras.Model, tensor: Any) -> list[keras.layers.Layer]:
    """The layers that `tensor` is a direct input of, including those of nested models."""
    fed = []
    for layer in model.layers:
        for node in compat.inbound_nodes(layer):
            if any(one is tensor for one in node.input_tensors):
                at = next(i for i, one in enumerate(node.input_tensors) if one is tensor)
                nested = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
                fed += layers_fed_by(layer, layer.inputs[at]) if nested else [layer]
    return fed


def padding_values(model: Any, tensor: Any) -> set[float]:
    """The values that mark padded steps, from the masking layers behind an input of a model.

    Args:
        model: `keras.Model`; for anything else the result is empty.
        tensor: an input of the model, or None for the masking layers anywhere in the model.
    """
    if not isinstance(model, keras.Model):
        return set()
    values = set()
    for layer in flatten_layers(model) if tensor is None else layers_fed_by(model, tensor):
        if isinstance(layer, keras.layers.Masking | StepMask):
            values.add(float(layer.mask_value))
        elif isinstance(layer, TokenMask) or getattr(layer, "mask_zero", False):
            values.add(0.0)
    return values


def input_vocabulary_size(model: Any, tensor: Any) -> int | None:
    """The smallest vocabulary size of the layers that embed an input; None if no layer does.

    Inputs must be checked against it: Keras maps a negative id to one of the last embeddings, and
    some backends map an id that is too large to zeros.

    Args:
        model: `keras.Model`; for anything else the result is None.
        tensor: an input of the model.
    """
    if not isinstance(model, keras.Model):
        return None
    sizes = []
    for layer in layers_fed_by(model, tensor):
        if isinstance(layer, keras.layers.Embedding):
            sizes.append(layer.input_dim)
        elif isinstance(layer, CharacterCNN | CharacterBiLSTM):
            sizes.append(layer.vocabulary_size)
        elif isinstance(layer, WordDropout):
            sizes.append(input_vocabulary_size(model, layer.output))
    return min((size for size in sizes if size is not None), default=None)


def stateful_layers(model: keras.Model) -> list[str]:
    """Names of the layers that keep state between calls, including those of nested models."""
    names = []
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            names.append(layer.name)
        elif isinstance(layer, keras.Model):
            names += stateful_layers(layer)
    return names


def input_of(model: keras.Model) -> Any:
    """The input of a model in its nested structure, also of a Sequential model without a call."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def output_of(model: keras.Model) -> Any:
    """The output of a model in its nested structure; see `input_of`."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def generator_layer(model: keras.Model) -> layers.SequenceGenerator | None:
    """The `SequenceGenerator` of an end-to-end encoder-decoder; None in other models."""
    model_layers = getattr(model, "layers", ())
    generators = [one for one in model_layers if isinstance(one, layers.SequenceGenerator)]
    return generators[0] if generators else None


def decoder_of(model: keras.Model) -> EncoderDecoderModel | None:
    """The encoder-decoder that a model is, or that its `SequenceGenerator` has; None for others.

    Args:
        model: `keras.Model`.
    """
    if isinstance(model, EncoderDecoderModel):
        return model
    generator = generator_layer(model)
    return None if generator is None else generator.model
