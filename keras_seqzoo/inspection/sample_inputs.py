"""Sample inputs of a model, of several batch sizes, lengths and paddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.inspection.model_graph import flatten_layers, layers_fed_by, padding_values

BATCH_SIZES = (1, 3, 16)
LENGTHS = (1, 7, 50)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample: the inputs of an endpoint by name, and how they are padded."""

    padding: str  # "none", "left" or "right"
    steps: int
    inputs: dict[str, np.ndarray]
    endpoint: str = "serve"
    over_time: bool = False  # whether the endpoint is called step by step from its initial state

    @property
    def batch(self) -> int:
        """The number of rows."""
        return len(next(iter(self.inputs.values())))


def sample_inputs(model: keras.Model) -> Iterator[Sample]:
    """Random inputs in the range of the training data, padded if the model masks padding."""
    rng = np.random.default_rng(0)
    strings = any(tensor.dtype == "string" for tensor in model.inputs)
    pads = bool(padding_values(model, None)) and not strings
    all_layers = flatten_layers(model)
    nearest_layers = [[*layers_fed_by(model, tensor), *all_layers] for tensor in model.inputs]
    padding_of = [padding_values(model, tensor) for tensor in model.inputs]
    for batch in BATCH_SIZES:
        for steps in fixed_lengths(model) or LENGTHS:
            paddings = ("none", "left", "right") if pads and steps > 2 else ("none",)
            inputs = [
                _random_input(tensor, near, (batch, steps), rng)
                for tensor, near in zip(model.inputs, nearest_layers, strict=True)
            ]
            for padding in paddings:
                padded = {
                    # Targets are never padded on the left.
                    tensor.name: x if tensor.name == "target" else _padded(x, values, padding)
                    for tensor, x, values in zip(model.inputs, inputs, padding_of, strict=True)
                }
                yield Sample(padding, steps, padded)


def fixed_lengths(model: keras.Model) -> set[int]:
    """The fixed lengths of its inputs; empty if their lengths are dynamic."""
    return {tensor.shape[1] for tensor in model.inputs if has_time_axis(tensor)} - {None}


def has_time_axis(tensor: Any) -> bool:
    """Whether the second axis is time, not the values of a code vector."""
    if tensor.dtype == "string" or len(tensor.shape) < 2:
        return False
    return len(tensor.shape) > 2 or tensor.shape[1] is None or "float" not in tensor.dtype


def _padded(x: np.ndarray, values: set[float], padding: str) -> np.ndarray:
    """`x` with every second row padded on one side, character ids along with their tokens."""
    values = set(values) if x.dtype.kind == "f" else {0.0}
    if padding == "none" or len(values) != 1:
        return x
    x = x.copy()
    x[::2, slice(0, x.shape[1] // 3) if padding == "left" else slice(-2, None)] = values.pop()
    return x


def _random_input(
    tensor: Any, near: list[keras.layers.Layer], shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """One random input; `near` are the layers of the model, those fed by the input first."""
    if tensor.dtype == "string":
        return _sentences(near, shape, rng)
    inner = tuple(5 if size is None else size for size in tensor.shape[2:])
    if "int" in tensor.dtype:
        high = _smallest_vocabulary_size(near)
        return rng.integers(1, high, (*shape, *inner)).astype(tensor.dtype)
    if tensor.dtype == "bool":  # a mask
        return rng.random((*shape, *inner)) < 0.8
    size = (*shape, *inner) if has_time_axis(tensor) else (shape[0], *tensor.shape[1:])
    mean, deviation = _input_statistics(near, tensor.shape[-1])
    return (mean + deviation * rng.normal(size=size)).astype(tensor.dtype)


def _sentences(
    near: list[keras.layers.Layer], shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Sentences of up to `shape[1]` known and unknown tokens; the last of several is empty."""
    words = next(
        layer.get_vocabulary()[1:]
        for layer in near
        if isinstance(layer, keras.layers.StringLookup) and layer.name == "token_ids"
    )
    characters = not any(isinstance(layer, layers.SplitTokens) for layer in near)
    words = [*words, "ñ", "¿"] if characters else [*words, "señor-42", "never-seen"]
    sentences = [
        ("" if characters else " ").join(rng.choice(words, rng.integers(1, shape[1] + 1)))
        for _ in range(shape[0])
    ]
    return np.array([*sentences[:-1], "" if shape[0] > 1 else sentences[-1]])


def _smallest_vocabulary_size(near: list[keras.layers.Layer]) -> int:
    """The smallest vocabulary size of the embeddings in the model."""
    sizes = [
        size
        for layer in near
        for size in (getattr(layer, "input_dim", None), getattr(layer, "vocabulary_size", None))
        if isinstance(size, int)
    ]
    return max(2, min(sizes, default=100))


def _input_statistics(
    near: list[keras.layers.Layer], features: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the nearest `Normalization` of as many features."""
    for layer in near:
        if isinstance(layer, layers.Normalization) and not layer.invert:
            mean, variance = layer.get_weights()[:2]
            if mean.shape == (features,):
                return mean, np.sqrt(variance)
    return np.zeros(1), np.ones(1)
