"""An entry of the zoo as a KerasTuner `HyperModel`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_seqzoo import errors, layers, registry
from keras_seqzoo.callbacks import StateLeakage
from keras_seqzoo.inspection import model_function
from keras_seqzoo.losses import NormalizedMeanSquaredError
from keras_seqzoo.registry.search_space import Choice, Dimension, Int, as_dimension
from keras_seqzoo.tuning.rows import Rows, split_rows, targets
from keras_seqzoo.tuning.vectorized.measures import IdentityMeasures, Measures
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_instance,
    check_positive,
    is_real,
    unknown_name_message,
)

OBJECTIVES = ("val_identity_cost", "val_identity_error", "val_state_leakage")
_OPTIMIZER = ("learning_rate", "global_clipnorm")  # Adam's arguments that may vary
_REGULARIZERS = {
    "l1": lambda strength: keras.regularizers.L1(strength),
    "l2": lambda strength: keras.regularizers.L2(strength),
    "l1_l2": lambda strength: keras.regularizers.L1L2(strength, strength),
}


def hypermodel(
    name: str, *, space: Mapping[str, Any] | None = None, block: int = 1, **fixed: Any
) -> ZooHyperModel:
    """An entry with its own search space, for any of KerasTuner's tuners.

    Args:
        name: str, one of `list_models()`.
        space: mapping that replaces or adds dimensions: a list gives choices, a tuple
            `(low, high)` a range, for instance `{"units": (4, 64)}`.
        block: int, windows that overlap one another, for `keras_seqzoo.leakage`.
        **fixed: arguments of the constructor, and dimensions of the space, that do not vary;
            `global_clipnorm` clips gradients, as Keras's optimizers do.

    Returns:
        A `keras_tuner.HyperModel`. Its `objective` is what a tuner should minimize.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: as `get` does.

    Example:

    >>> import keras_tuner, keras_seqzoo as zoo
    >>> hypermodel = zoo.hypermodel("simple_rnn_identity", features=3, space={"units": [2, 8]})
    >>> tuner = keras_tuner.RandomSearch(hypermodel, hypermodel.objective, max_trials=2,
    ...                                  directory=tempfile.mkdtemp())
    """
    if registry.get_entry(name).target is not None:
        from keras_seqzoo.tuning.sequences import SequenceHyperModel

        return SequenceHyperModel(name, space=space, block=block, **fixed)
    if registry.get_entry(name).task == "seq2seq":
        from keras_seqzoo.tuning.pairs import PairHyperModel

        return PairHyperModel(name, space=space, block=block, **fixed)
    return ZooHyperModel(name, space=space, block=block, **fixed)


class ZooHyperModel(keras_tuner.HyperModel):
    """What `hypermodel` returns; its arguments are those of `hypermodel`.

    `fit` adapts the scaling to the training rows, divides the loss by their variance, and puts
    `StateLeakage` in front of the other callbacks, so that every epoch's logs hold the objectives.
    """

    measures: type[Measures] = IdentityMeasures  # what a `Population` measures its members by

    def __init__(
        self, name: str, *, space: Mapping[str, Any] | None = None, block: int = 1, **fixed: Any
    ):
        super().__init__(name=name, tunable=True)
        check_positive(block=block)
        self.block = block
        if space is not None:
            check_instance(Mapping, space=space)
        entry = registry.get_entry(name)
        self.arguments = entry.arguments()
        self.fixed = fixed
        given = {
            key: as_dimension(key, value, entry.space.get(key))
            for key, value in (space or {}).items()
        }
        dimensions = {**entry.space, **given}
        known = [*self.arguments, *(key for key in dimensions if key not in self.arguments)]
        known += [key for key in _OPTIMIZER if key not in known]
        for key in (*fixed, *given):
            if key not in known or (key in given and not self._means_something(key)):
                raise errors.UnknownArgumentError(
                    unknown_name_message(f"argument of {name}:", key, known)
                )
        for key, value in fixed.items():
            if key not in self.arguments and not (is_real(value) and value > 0):
                raise errors.ArgumentError(argument_message(key, "a number above 0", value))
        self.dimensions = _without_fixed(dimensions, fixed)

    @property
    def objective(self) -> keras_tuner.Objective:
        """The identity cost, to be minimized; of what is to remember, the error alone."""
        remembers = registry.get_entry(self.name).task in ("forecasting", "reconstruction")
        return keras_tuner.Objective(OBJECTIVES[1 if remembers else 0], "min")

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Registers every dimension, conditional ones under their conditions."""
        self.sample(hp)

    def sample(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """The values of this trial, by dimension; those that are not active are left out."""
        values = {key: _declare(hp, key, value) for key, value in self.dimensions.items()}
        return {key: value for key, value in values.items() if value is not None}

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of this trial."""
        values = {**self.sample(hp), **{key: _fresh(value) for key, value in self.fixed.items()}}
        optimizer = {"learning_rate": 1e-3}
        optimizer |= {name: values.pop(name) for name in _OPTIMIZER if name in values}
        return self.compiled(_constructor_arguments(values), optimizer)

    def compiled(self, arguments: dict[str, Any], optimizer: dict[str, Any]) -> keras.Model:
        """The model with these arguments, and Adam with those."""
        model = registry.get(self.name, **arguments)
        model.compile(keras.optimizers.Adam(**optimizer), NormalizedMeanSquaredError())
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float = 0.0,
        callbacks: list | tuple = (),
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains one trial; the target defaults to the input.

        Raises:
            ArgumentError: without validation rows, which the objectives are measured on.
        """
        if not isinstance(x, Rows):
            x = split_rows(x, y, validation_data, validation_split)
        return self.fit_rows(model, x, callbacks=callbacks, **kwargs)

    def fit_rows(
        self,
        model: keras.Model,
        rows: Rows,
        *,
        seed=None,
        batch_size=None,
        callbacks=(),
        **kwargs,
    ):
        """`fit`, on rows that are split already.

        The order in which each epoch takes the rows follows from `seed`; without it Keras shuffles
        them.
        """
        x, y, x_val, y_val = rows
        self.prepare(model, rows)
        measured = StateLeakage(x_val, y_val, block=self.block)
        y, y_val = targets(model, x, y), targets(model, x_val, y_val)
        given = {"x": x, "y": y, "batch_size": batch_size}
        if seed is not None:
            orders = itertools.islice(rows.orders(seed, batch_size), kwargs["epochs"])
            given = _batches(x, y, orders)
        return model.fit(
            **given,
            validation_data=(x_val, y_val),
            validation_batch_size=batch_size,
            callbacks=[measured, *callbacks],
            **kwargs,
        )

    def prepare(self, model: keras.Model, rows: Rows) -> None:
        """Gives model and loss what they learn from the training rows before training starts."""
        if layers.has_scaling(model):
            layers.adapt(model, rows.x)
        if isinstance(model.loss, NormalizedMeanSquaredError) and model.loss.variance is None:
            y = targets(model, rows.x, rows.y)
            model.loss.adapt(y, model_function.resolve_mask(model, rows.x))

    def prepare_like(self, model: keras.Model, prepared: keras.Model) -> None:
        """`prepare`, from a model with these layers; the rows are not read again."""
        for layer in model.layers:
            if isinstance(layer, layers.Normalization) and prepared.get_layer(layer.name).adapted:
                weights = prepared.get_layer(layer.name).weights
                mean, variance, count = map(keras.ops.convert_to_numpy, weights)
                layer.set_statistics(mean, variance, int(count))
        if isinstance(model.loss, NormalizedMeanSquaredError):
            model.loss.variance = prepared.loss.variance

    def smoke_test(self, model: keras.Model, rows: Rows) -> None:
        """Measures the objectives of the untrained model once."""
        measured = StateLeakage(rows.x_val, rows.y_val, block=self.block)
        measured.set_model(model)
        measured.measure()

    def finished(self, model: keras.Model) -> keras.Model:
        """The trained model as it is given out and saved."""
        return model

    def _means_something(self, key: str) -> bool:
        """Whether `build` would use a dimension of that name."""
        if key in self.arguments or key in _OPTIMIZER:
            return True
        return key.endswith("_strength") and _regularizer_of(key) in self.arguments


def _batches(x: np.ndarray, y: np.ndarray, orders: Iterable[np.ndarray]) -> dict[str, Any]:
    """What `fit` takes for the rows of these batches."""
    import tensorflow as tf

    x, y, orders = tf.constant(x), tf.constant(y), np.stack(list(orders))
    batches = tf.data.Dataset.from_tensor_slices(orders.reshape(-1, orders.shape[-1]))

    def batch(rows):
        rows = rows[rows >= 0]
        return tf.gather(x, rows), tf.gather(y, rows)

    return {
        "x": batches.map(batch).prefetch(2),
        "steps_per_epoch": orders.shape[1],
        "shuffle": False,
    }


def _without_fixed(
    dimensions: Mapping[str, Dimension], fixed: Mapping[str, Any]
) -> dict[str, Dimension]:
    """What still varies: a fixed parent settles whether its dependents are there at all."""
    left = {}
    for key, value in dimensions.items():
        settled = [parent for parent in value.when if parent in fixed]
        if key in fixed or any(fixed[parent] not in value.when[parent] for parent in settled):
            continue
        when = {name: values for name, values in value.when.items() if name not in fixed}
        left[key] = dataclasses.replace(value, when=when)
    return left


def _fresh(value: Any) -> Any:
    """An initializer without a seed draws once; every trial needs its own, from its own seed."""
    if isinstance(value, keras.initializers.Initializer):
        return type(value).from_config(value.get_config())
    return value


def _declare(hp: keras_tuner.HyperParameters, name: str, what: Dimension) -> Any:
    if what.when:
        (parent, values), *others = what.when.items()
        with hp.conditional_scope(parent, list(values)):
            return _declare(hp, name, dataclasses.replace(what, when=dict(others)))
    if isinstance(what, Choice):
        return hp.Choice(name, list(what.values), default=what.default, ordered=False)
    kind = hp.Int if isinstance(what, Int) else hp.Float
    sampling = "log" if what.log else "linear"
    return kind(name, what.low, what.high, sampling=sampling, default=what.default)


def _constructor_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Puts kind and strength of a regularizer together: `("l1", 0.1)` becomes `L1(0.1)`."""
    arguments = {key: value for key, value in values.items() if not key.endswith("_strength")}
    for key, value in values.items():
        regularizer = _regularizer_of(key)
        if key.endswith("_strength") and arguments.get(regularizer) in _REGULARIZERS:
            arguments[regularizer] = _REGULARIZERS[arguments[regularizer]](value)
    return {
        key: None if key.endswith("_regularizer") and value == "none" else value
        for key, value in arguments.items()
    }


def _regularizer_of(strength: str) -> str:
    return strength.removesuffix("_strength") + "_regularizer"
