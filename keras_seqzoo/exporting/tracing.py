"""A model as it is traced for an artifact: code that every machine has, outputs that have names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras

from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.layers.export_scope import export_scope
from keras_seqzoo.utils import compat

AFTER = "next_"  # before the name of an output that would else be called as an input is


@contextlib.contextmanager
def without_cudnn(model: keras.Model) -> Iterator[None]:
    """Inside, GRU and LSTM layers run without cuDNN, whose operations no other machine can load.

    Args:
        model: `keras.Model`; layers inside layers are found too.
    """
    layers = [layer for layer in compat.flatten_layers(model) if getattr(layer, "use_cudnn", False)]
    before = [layer.use_cudnn for layer in layers]
    try:
        for layer in layers:
            layer.use_cudnn = False
        yield
    finally:
        for layer, use in zip(layers, before, strict=True):
            layer.use_cudnn = use


@contextlib.contextmanager
def in_full_precision(model: keras.Model) -> Iterator[None]:
    """Inside, layers of a mixed policy compute in the precision of their weights, as runtimes that
    know no products of float16 or bfloat16 must.

    Args:
        model: `keras.Model`; layers inside layers are found too.
    """
    layers = [layer for layer in compat.flatten_layers(model) if is_mixed(layer)]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = layer.variable_dtype
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def is_mixed(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes in another precision than that of its weights."""
    return layer.compute_dtype != layer.variable_dtype


def plain(name: str) -> str:
    """A name that every runtime takes as it is."""
    return re.sub(r"\W", "_", name)


def for_other_runtimes(endpoint: Endpoint, *, rows: int | None = None) -> Endpoint:
    """An endpoint whose loops other runtimes can hold, and whose outputs are a dict.

    Args:
        endpoint: `Endpoint`.
        rows: int, to fix the batch, or None for any.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec(_with_rows(spec.shape, rows), spec.dtype, name=plain(spec.name))
        for spec in endpoint.signature
    ]
    taken = {spec.name for spec in signature}

    def function(*inputs):
        with export_scope():
            outputs = named(endpoint.function(*inputs))
        return {
            AFTER + plain(name) if plain(name) in taken else plain(name): output
            for name, output in outputs.items()
        }

    return Endpoint(function, signature)


def named(outputs: Any) -> dict[str, Any]:
    """Outputs by name; a single one is the "output"."""
    return dict(outputs) if isinstance(outputs, dict) else {"output": outputs}


def _with_rows(shape: Any, rows: int | None) -> list[int | None]:
    shape = list(shape)
    return [rows, *shape[1:]] if shape and shape[0] is None else shape
