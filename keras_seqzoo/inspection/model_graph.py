"""What is inside a Keras model: its layers, those that see an input, and what they make of it."""

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


def every_layer(model: keras.Model) -> list[keras.layers.Layer]:
    """A model and all that is inside, wrapped layers and cells too."""
    return compat.flatten_layers(model)


def seeing(model: keras.Model, tensor: Any) -> list[keras.layers.Layer]:
    """The layers that get an input as it is, those of models inside too."""
    found = []
    for layer in model.layers:
        for node in compat.inbound_nodes(layer):
            if any(one is tensor for one in node.input_tensors):
                at = next(i for i, one in enumerate(node.input_tensors) if one is tensor)
                inside = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
                found += seeing(layer, layer.inputs[at]) if inside else [layer]
    return found


def padding_values(model: Any, tensor: Any) -> set[float]:
    """What fills padded steps, by the layers that look for it at an input of a Keras model.

    Args:
        model: `keras.Model`, or anything else, which has none.
        tensor: the input in question, or None to look at every layer.
    """
    if not isinstance(model, keras.Model):
        return set()
    found = set()
    for layer in every_layer(model) if tensor is None else seeing(model, tensor):
        if isinstance(layer, keras.layers.Masking | StepMask):
            found.add(float(layer.mask_value))
        elif isinstance(layer, TokenMask) or getattr(layer, "mask_zero", False):
            found.add(0.0)
    return found


def known_tokens(model: Any, tensor: Any) -> int | None:
    """How many tokens those layers know that embed an input; None if none does.

    Keras takes a negative token for one of the last, and some backends one too large for padding.

    Args:
        model: `keras.Model`, or anything else, of which it is not known.
        tensor: the input in question.
    """
    if not isinstance(model, keras.Model):
        return None
    sizes = []
    for layer in seeing(model, tensor):
        if isinstance(layer, keras.layers.Embedding):
            sizes.append(layer.input_dim)
        elif isinstance(layer, CharacterCNN | CharacterBiLSTM):
            sizes.append(layer.vocabulary_size)
        elif isinstance(layer, WordDropout):
            sizes.append(known_tokens(model, layer.output))
    return min((size for size in sizes if size is not None), default=None)


def stateful_layers(model: keras.Model) -> list[str]:
    """Names of the layers that keep state between calls, in models inside it, too."""
    found = []
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            found.append(layer.name)
        elif isinstance(layer, keras.Model):
            found += stateful_layers(layer)
    return found


def input_of(model: keras.Model) -> Any:
    """What a model is given, nested as it is; a Sequential one has it before its first call too."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def output_of(model: keras.Model) -> Any:
    """What a model gives, likewise."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def generator_layer(model: keras.Model) -> layers.SequenceGenerator | None:
    """The layer that decodes in a model that `generator_end_to_end` gave; None in others."""
    found = [
        one for one in getattr(model, "layers", ()) if isinstance(one, layers.SequenceGenerator)
    ]
    return found[0] if found else None


def decoder_of(model: keras.Model) -> EncoderDecoderModel | None:
    """The encoder-decoder that a model is, or that answers inside it; None of others.

    Args:
        model: `keras.Model`.
    """
    if isinstance(model, EncoderDecoderModel):
        return model
    answers = generator_layer(model)
    return None if answers is None else answers.network
