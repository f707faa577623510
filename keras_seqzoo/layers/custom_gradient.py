"""Custom gradients that TensorFlow releases together with the graph that uses them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_seqzoo.utils import compat


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient` whose traced graphs can be garbage collected.

    TensorFlow keeps the gradient of each trace in a global registry, and with the gradient its
    graph, so that a process that trains one model after another would grow. Here the graph owns the
    gradient, and the registry holds a weak reference.

    Args:
        function: from tensors to results, and a function from the gradients by the results to the
            gradients by the tensors.
    """
    differentiable = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*tensors):
        results = differentiable(*tensors)
        result: Any = tf.nest.flatten(results)[0]
        if tf.is_symbolic_tensor(result):
            _move_gradient_to_graph(result)
        return results

    return call


def _move_gradient_to_graph(result) -> None:
    """Let the graph of a result own the registered gradient of its trace."""
    name = compat.gradient_name(result)
    gradient = compat.get_gradient(name)
    reference = weakref.ref(gradient)

    def weak_gradient(op, *upstream):
        function = reference()
        if function is None:
            raise RuntimeError(f"The graph of the gradient {name!r} was deleted.")
        return function(op, *upstream)

    compat.replace_gradient(name, weak_gradient)
    graph = result.graph
    graph.keras_seqzoo_gradients = [*getattr(graph, "keras_seqzoo_gradients", ()), gradient]
    weakref.finalize(gradient, compat.remove_gradient, name)
