"""Gradients by weights, on whichever backend runs."""

from __future__ import annotations

import keras
import numpy as np


def weight_gradients(loss, weights) -> list[np.ndarray | None]:
    """The gradient of `loss()` by each of these Keras variables; None where there is none.

    On JAX, where that cannot be told from a gradient of zero, it is zero.
    """
    found = _FOUND[keras.backend.backend()](loss, weights)
    return [None if one is None else keras.ops.convert_to_numpy(one) for one in found]


def _by_tensorflow(loss, weights):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    found = tape.gradient(value, [weight.value for weight in weights])
    # That of an embedding is of some rows.
    return [None if one is None else tf.convert_to_tensor(one) for one in found]


def _by_jax(loss, weights):
    import jax

    def given(values):
        with keras.StatelessScope(list(zip(weights, values, strict=True))):
            return loss()

    return jax.grad(given)([weight.value for weight in weights])


def _by_torch(loss, weights):
    import torch

    return torch.autograd.grad(loss(), [weight.value for weight in weights], allow_unused=True)


_FOUND = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
