"""Tracing of endpoints for an artifact: portable operations, and a name for every output."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.layers.export_scope import export_scope
from keras_seqzoo.utils import compat

NEXT = "next_"  # prefix of an output that would otherwise have the name of an input


@contextlib.contextmanager
def without_cudnn(model: keras.Model) -> Iterator[None]:
    """Context in which GRU and LSTM layers do not use cuDNN, whose operations need a GPU.

    Args:
        model: `keras.Model`; inner layers are included.
    """
    layers = [layer for layer in compat.flatten_layers(model) if getattr(layer, "use_cudnn", False)]
    settings = [layer.use_cudnn for layer in layers]
    try:
        for layer in layers:
            layer.use_cudnn = False
        yield
    finally:
        for layer, use_cudnn in zip(layers, settings, strict=True):
            layer.use_cudnn = use_cudnn


@contextlib.contextmanager
def in_full_precision(plan: ExportPlan) -> Iterator[ExportPlan]:
    """Context in which layers with a mixed dtype policy compute in the dtype of their weights.

    Needed for runtimes without operations on float16 and bfloat16.

    Args:
        plan: `ExportPlan`; inner layers of its model are included.

    Yields:
        The plan, with the dtypes of states that apply inside the context.
    """
    layers = [layer for layer in compat.flatten_layers(plan.model) if is_mixed(layer)]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = layer.variable_dtype
        yield plan.in_present_precision() if layers else plan
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def is_mixed(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes in another dtype than that of its weights."""
    return layer.compute_dtype != layer.variable_dtype


def portable_name(name: str) -> str:
    """A name that every runtime accepts: letters, digits and underscores."""
    return re.sub(r"\W", "_", name)


def for_other_runtimes(endpoint: Endpoint, *, batch: int | None = None) -> Endpoint:
    """An endpoint that other runtimes than TensorFlow support; its outputs are a dict.

    Args:
        endpoint: `Endpoint`.
        batch: int, a fixed batch size, or None for any.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec(with_batch_size(spec.shape, batch), spec.dtype, name=portable_name(spec.name))
        for spec in endpoint.signature
    ]
    input_names = {spec.name for spec in signature}

    def function(*inputs):
        with export_scope():
            outputs = named_outputs(endpoint.function(*inputs))
        outputs = {portable_name(name): output for name, output in outputs.items()}
        return {
            NEXT + name if name in input_names else name: output for name, output in outputs.items()
        }

    return Endpoint(function, signature)


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Outputs by name; a single one has the name "output"."""
    return dict(outputs) if isinstance(outputs, dict) else {"output": outputs}


def with_batch_size(shape: Iterable[int | None], batch: int | None) -> list[int | None]:
    """A shape whose first axis, if it is free, has the size `batch`."""
    sizes = list(shape)
    return [batch, *sizes[1:]] if sizes and sizes[0] is None else sizes
