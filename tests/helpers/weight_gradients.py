"""Gradients by weights on every Keras backend."""

from __future__ import annotations

import keras
import numpy as np


def weight_gradients(loss, weights) -> list[np.ndarray | None]:
    """Return the gradients of `loss()` by Keras variables, None for unconnected variables.

    JAX does not distinguish an unconnected variable from a zero gradient, and returns zeros.
    """
    gradients = _BACKENDS[keras.backend.backend()](loss, weights)
    return [None if grad is None else keras.ops.convert_to_numpy(grad) for grad in gradients]


def _by_tensorflow(loss, weights):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [weight.value for weight in weights])
    # The gradient by an embedding is `tf.IndexedSlices`.
    return [None if grad is None else tf.convert_to_tensor(grad) for grad in gradients]


def _by_jax(loss, weights):
    import jax

    def loss_of(values):
        with keras.StatelessScope(list(zip(weights, values, strict=True))):
            return loss()

    return jax.grad(loss_of)([weight.value for weight in weights])


def _by_torch(loss, weights):
    import torch

    return torch.autograd.grad(loss(), [weight.value for weight in weights], allow_unused=True)


_BACKENDS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
