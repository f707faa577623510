"""Gradients of functions of tensors, by whichever backend runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError


def differentiable(model: Any) -> Callable:
    """`model` as a function of tensors, without training."""
    if isinstance(model, keras.Model):
        return lambda x: model(x, training=False)
    return model.serve if hasattr(model, "serve") else model


def gradient_of(function: Callable) -> Callable:
    """`f(x, *indices)`, both arrays: the gradient by `x` of the sum of what `function` gives.

    Args:
        function: of tensors; where an index is None it is given None.

    Returns:
        A function that returns an array shaped as `x`, or None if there is no gradient.

    Raises:
        ArgumentError: on a backend without gradients.
    """
    backend = keras.backend.backend()
    if backend not in _GRADIENTS:
        raise ArgumentError(
            "Gradients must be taken on the TensorFlow, JAX or PyTorch backend. Received: "
            f"{backend}. Set KERAS_BACKEND, or use method='swap', which needs no gradients."
        )
    gradient = _GRADIENTS[backend](function)

    def found(x: np.ndarray, *indices: np.ndarray | None) -> np.ndarray | None:
        tensors = [
            None if one is None else ops.convert_to_tensor(one, _known(one.dtype))
            for one in (x, *indices)
        ]
        result = gradient(*tensors)
        return None if result is None else np.asarray(ops.convert_to_numpy(result))

    return found


def _known(dtype: np.dtype) -> str:
    """As the backend has it: JAX knows 64 bits only where it was told to."""
    if keras.backend.backend() != "jax":
        return str(dtype)
    import jax

    return str(jax.dtypes.canonicalize_dtype(dtype))


def _by_tensorflow(function: Callable) -> Callable:
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def gradient(x, *indices):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, *indices)
        return tape.gradient(y, x)

    return gradient


def _by_jax(function: Callable) -> Callable:
    import jax

    return jax.jit(jax.grad(lambda *tensors: ops.sum(function(*tensors))))


def _by_torch(function: Callable) -> Callable:
    import torch

    def gradient(x, *indices):
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            total = ops.sum(function(x, *indices))
            if not total.requires_grad:
                return None
            return torch.autograd.grad(total, x, allow_unused=True)[0]

    return gradient


_GRADIENTS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
