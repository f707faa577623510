"""Gradients of tensor functions on the TensorFlow, JAX and PyTorch backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError


def tensor_function(model: Any) -> Callable:
    """`model` as a function of tensors, in inference mode."""
    if isinstance(model, keras.Model):
        return lambda x: model(x, training=False)
    return model.serve if hasattr(model, "serve") else model


def gradient_of(function: Callable) -> Callable:
    """The gradient with respect to `x` of the sum of `function(x, *indices)`.

    Args:
        function: function of tensors; an index that is None is passed on as None.

    Returns:
        A function of the arrays `(x, *indices)` that returns an array of the shape of `x`, or None
        if there is no gradient.

    Raises:
        ArgumentError: on a backend without gradients.
    """
    backend = keras.backend.backend()
    if backend not in _BACKENDS:
        raise ArgumentError(
            "The Keras backend must be TensorFlow, JAX or PyTorch to compute gradients. Received: "
            f"{backend}. Set KERAS_BACKEND, or use method='swap', which needs no gradients."
        )
    gradient_function = _BACKENDS[backend](function)

    def gradient(x: np.ndarray, *indices: np.ndarray | None) -> np.ndarray | None:
        tensors = [
            None if array is None else ops.convert_to_tensor(array, _backend_dtype(array.dtype))
            for array in (x, *indices)
        ]
        result = gradient_function(*tensors)
        return None if result is None else np.asarray(ops.convert_to_numpy(result))

    return gradient


def _backend_dtype(dtype: np.dtype) -> str:
    """The dtype on the backend: JAX has 64-bit types only if they are enabled."""
    if keras.backend.backend() != "jax":
        return str(dtype)
    import jax  # pyright: ignore[reportMissingImports]  # optional backend

    return str(jax.dtypes.canonicalize_dtype(dtype))


def _tensorflow_gradient(function: Callable) -> Callable:
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def gradient(x, *indices):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, *indices)
        return tape.gradient(y, x)

    return gradient


def _jax_gradient(function: Callable) -> Callable:
    import jax  # pyright: ignore[reportMissingImports]  # optional backend

    return jax.jit(jax.grad(lambda *tensors: ops.sum(function(*tensors))))


def _torch_gradient(function: Callable) -> Callable:
    import torch  # pyright: ignore[reportMissingImports]  # optional backend

    def gradient(x, *indices):
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            total: Any = ops.sum(function(x, *indices))
            if not total.requires_grad:
                return None
            return torch.autograd.grad(total, x, allow_unused=True)[0]

    return gradient


_BACKENDS = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}
