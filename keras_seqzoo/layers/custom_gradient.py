"""TensorFlow functions with gradients of their own."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

import tensorflow as tf

from keras_seqzoo.utils import compat


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient`, in graphs that are let go of with their last user.

    TensorFlow keeps the gradient of each trace in a registry for good, and by it the graph: a
    process that trains model after model would grow with each. Here the graph keeps the gradient,
    and the registry only knows where it is.

    Args:
        function: from tensors to results, and a function from the results' gradients to those of
            the tensors.
    """
    differentiable = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*tensors):
        results = differentiable(*tensors)
        result = tf.nest.flatten(results)[0]
        if tf.is_symbolic_tensor(result):
            _let_go(result)
        return results

    return call


def _let_go(result) -> None:
    """Of a trace's gradient, by one of its results."""
    name = compat.gradient_name(result)
    gradient = compat.get_gradient(name)
    found = weakref.ref(gradient)
    compat.replace_gradient(name, lambda op, *upstream: found()(op, *upstream))
    graph = result.graph
    graph.keras_seqzoo_gradients = [*getattr(graph, "keras_seqzoo_gradients", ()), gradient]
    weakref.finalize(gradient, compat.remove_gradient, name)
