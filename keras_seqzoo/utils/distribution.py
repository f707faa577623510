"""Training in several processes with `tf.distribute.MultiWorkerMirroredStrategy`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def across_workers(model: keras.Model) -> keras.Model:
    """Enable `fit` and `evaluate` under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3 fails under that strategy: it averages a batch over workers to infer its shapes, and
    metrics over an axis that they lack
    ([keras#20585](https://github.com/keras-team/keras/issues/20585)). After this call shapes are
    inferred from the worker's own part of a batch, and metrics, whose variables the workers share,
    are read without averaging. Call it after each `compile`.

    Args:
        model: a compiled `keras.Model`, built in the scope of a strategy. With any other strategy,
            or none, the model is not changed.

    Returns:
        The model.

    Raises:
        ArgumentError: if the model is not compiled.

    Example:

    >>> import keras_seqzoo as zoo
    >>> from keras_seqzoo.utils.distribution import across_workers
    >>> model = zoo.get("simple_rnn_identity")  # in strategy.scope()
    >>> model.compile("adam", "mse")
    >>> across_workers(model) is model
    True
    """
    import keras

    if not isinstance(model, keras.Model) or not model.compiled:
        raise ArgumentError(argument_message("model", "a compiled keras.Model", model))
    strategy = _multi_worker_strategy(model)
    if strategy is not None:
        compat.replace_symbolic_build(model, _make_build(model, strategy))
        model.train_function = _make_step_function(model, model.train_step, strategy)
        model.test_function = _make_step_function(model, model.test_step, strategy)
    return model


def _multi_worker_strategy(
    model: keras.Model,
) -> tf.distribute.MultiWorkerMirroredStrategy | None:
    """The `MultiWorkerMirroredStrategy` in whose scope a model was built, or None."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    strategy = model.distribute_strategy
    return strategy if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else None


def _make_build(
    model: keras.Model, strategy: tf.distribute.MultiWorkerMirroredStrategy
) -> Callable[..., None]:
    """A function that builds a model from this worker's part of a batch."""
    from keras import tree

    def build(iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
        with strategy.scope():
            compat.symbolic_build(model, data_batch)

    return build


def _make_step_function(
    model: keras.Model,
    step: Callable[[Any], Any],
    strategy: tf.distribute.MultiWorkerMirroredStrategy,
) -> Any:
    """A function that runs `model.steps_per_execution` steps, each on a distributed batch."""
    import tensorflow as tf
    from keras import tree

    @tf.function(reduce_retracing=True, autograph=False)
    def one_step(batch):
        return strategy.run(step, args=(batch,))

    def run_steps(batches: Iterator[Any]) -> Any:
        results = one_step(next(batches))
        for batch in itertools.islice(batches, model.steps_per_execution - 1):
            results = one_step(batch)
        return tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], results
        )

    return run_steps
