"""Training across processes: what `fit` lacks under `tf.distribute.MultiWorkerMirroredStrategy`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message


def across_workers(model: keras.Model) -> keras.Model:
    """Lets a compiled model `fit` and `evaluate` under `MultiWorkerMirroredStrategy`.

    Keras 3 refuses that strategy: it averages a batch over workers to learn its shapes, and
    metrics over an axis that they lack
    ([keras#20585](https://github.com/keras-team/keras/issues/20585)). Here shapes are those of the
    worker's own part of a batch, and metrics, which the workers keep in common, are read as they
    are. To be called after each `compile`.

    Args:
        model: a compiled `keras.Model`, built in the scope of a strategy. With any other strategy,
            or none, it is left as it is.

    Returns:
        The model.

    Raises:
        ArgumentError: if the model is not compiled.

    Example:

    >>> import keras_seqzoo as zoo
    >>> from keras_seqzoo.training import across_workers
    >>> model = zoo.get("simple_rnn_identity")  # in strategy.scope()
    >>> model.compile("adam", "mse")
    >>> across_workers(model) is model
    True
    """
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ArgumentError(argument_message("model", "a compiled keras.Model", model))
    strategy = _strategy_of(model)
    if strategy is not None:
        model._maybe_symbolic_build = _build(model, strategy)
        model.train_function = _function(model, model.train_step)
        model.test_function = _function(model, model.test_step)
    return model


def _strategy_of(model: keras.Model) -> Any:
    """The strategy of many processes in which a model was built, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    strategy = model.distribute_strategy
    return strategy if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else None


def _build(model: keras.Model, strategy: Any) -> Callable:
    def build(iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
        with strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    return build


def _function(model: keras.Model, step: Callable) -> Callable:
    """One call's steps on the next batches of an iterator, by every worker on its part of them."""
    import tensorflow as tf

    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True, autograph=False)
    def one_step(batch):
        return strategy.run(step, args=(batch,))

    def function(batches: Iterator) -> Any:
        results = one_step(next(batches))
        for batch in itertools.islice(batches, model.steps_per_execution - 1):
            results = one_step(batch)
        return tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], results
        )

    return function
