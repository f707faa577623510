"""Inputs to try a model on: every kind it takes, several batch sizes, lengths and paddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.inspection.model_graph import decoder_of, every_layer, padding_values, seeing
from keras_seqzoo.utils import compat

BATCHES = (1, 3, 16)


LENGTHS = (1, 7, 50)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One input, by the names of an endpoint's inputs, and how it is padded."""

    padding: str  # "none", "left" or "right"
    steps: int
    inputs: dict[str, np.ndarray]
    endpoint: str = "serve"
    over_time: bool = False  # whether the endpoint takes a step at a time, from its initial state

    @property
    def batch(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.inputs.values())))


def inputs_of(model: keras.Model) -> Iterator[Sample]:
    """Random input in the range that the model was adapted to, padded where it knows padding."""
    rng = np.random.default_rng(0)
    strings = any(tensor.dtype == "string" for tensor in model.inputs)
    pads = bool(padding_values(model, None)) and not strings
    for batch in BATCHES:
        for steps in fixed_lengths(model) or LENGTHS:
            paddings = ("none", "left", "right") if pads and steps > 2 else ("none",)
            inputs = [_drawn(model, tensor, (batch, steps), rng) for tensor in model.inputs]
            for padding in paddings:
                padded = {
                    # A target has its padding behind it, if at all.
                    tensor.name: x
                    if tensor.name == "target"
                    else _padded(model, tensor, x, padding)
                    for tensor, x in zip(model.inputs, inputs, strict=True)
                }
                yield Sample(padding, steps, padded)


def fixed_lengths(model: keras.Model) -> set[int]:
    """How many steps its inputs must have; empty if they may have any number."""
    return {tensor.shape[1] for tensor in model.inputs if has_time(tensor)} - {None}


def has_time(tensor: Any) -> bool:
    """Whether its second axis is of steps, and not of a code's numbers."""
    if tensor.dtype == "string" or len(tensor.shape) < 2:
        return False
    return len(tensor.shape) > 2 or tensor.shape[1] is None or "float" not in tensor.dtype


def _padded(model: keras.Model, tensor: Any, x: np.ndarray, padding: str) -> np.ndarray:
    """Every second row padded on one side; with the tokens of a row, all that belongs to them."""
    values = padding_values(model, tensor) if x.dtype.kind == "f" else {0}
    if padding == "none" or len(values) != 1:
        return x
    x = x.copy()
    x[::2, slice(0, x.shape[1] // 3) if padding == "left" else slice(-2, None)] = values.pop()
    return x


def _drawn(model: keras.Model, tensor: Any, shape: tuple[int, int], rng) -> np.ndarray:
    if tensor.dtype == "string":
        return _sentences(model, shape, rng)
    inner = tuple(5 if size is None else size for size in tensor.shape[2:])
    if "int" in tensor.dtype:
        return rng.integers(1, _known(model), (*shape, *inner)).astype(tensor.dtype)
    if tensor.dtype == "bool":  # a mask
        return rng.random((*shape, *inner)) < 0.8
    if not has_time(tensor):
        shape, inner = shape[:1], tensor.shape[1:]
    mean, deviation = _range(model, tensor)
    return (mean + deviation * rng.normal(size=(*shape, *inner))).astype(tensor.dtype)


def _sentences(model: keras.Model, shape: tuple[int, int], rng) -> np.ndarray:
    """Known and unknown tokens, up to as many as there are steps; the last sentence is empty."""
    (words,) = [
        layer.get_vocabulary()[1:]
        for layer in model.layers
        if isinstance(layer, keras.layers.StringLookup) and layer.name == "token_ids"
    ]
    spelled = decoder_of(model) is not None and any(
        isinstance(layer, layers.SplitCharacters) for layer in model.layers
    )
    words = [*words, "ñ", "¿"] if spelled else [*words, "señor-42", "never-seen"]
    sentences = [
        ("" if spelled else " ").join(rng.choice(words, rng.integers(1, shape[1] + 1)))
        for _ in range(shape[0])
    ]
    return np.array([*sentences[:-1], "" if shape[0] > 1 else sentences[-1]])


def _known(model: keras.Model) -> int:
    """A number of tokens that every embedding of the model knows."""
    sizes = [
        size
        for layer in compat.flatten_layers(model)
        for size in (getattr(layer, "input_dim", None), getattr(layer, "vocabulary_size", None))
        if isinstance(size, int)
    ]
    return max(2, min(sizes, default=100))


def _range(model: keras.Model, tensor: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation that an input's own scaling was adapted to, or one as wide inside."""
    for layer in (*seeing(model, tensor), *every_layer(model)):
        if isinstance(layer, layers.Normalization) and not layer.invert:
            mean, variance = layer.get_weights()[:2]
            if mean.shape == tuple(tensor.shape[-1:]):
                return mean, np.sqrt(variance)
    return np.zeros(1), np.ones(1)
