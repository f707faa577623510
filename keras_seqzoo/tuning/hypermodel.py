"""An entry of the zoo as a KerasTuner `HyperModel`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner

from keras_seqzoo import errors, layers
from keras_seqzoo.losses import NormalizedMeanSquaredError
from keras_seqzoo.registry.search_space import Choice, Dimension, Int, as_dimension
from keras_seqzoo.tasks import Task, task_for
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_instance,
    check_positive,
    is_real,
    unknown_name_message,
)

_OPTIMIZER = ("learning_rate", "global_clipnorm")  # arguments of Adam that may vary
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
        block: int, number of consecutive windows that overlap, for `keras_seqzoo.leakage`.
        **fixed: arguments of the constructor, and dimensions of the space, that do not vary;
            `global_clipnorm` clips gradients, as Keras's optimizers do.

    Returns:
        A `keras_tuner.HyperModel`. Its `objective` is what a tuner should optimize.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: as `get` does.

    Example:

    >>> import keras_tuner, keras_seqzoo as zoo
    >>> hypermodel = zoo.hypermodel("simple_rnn_identity", features=3, space={"units": [2, 8]})
    >>> tuner = keras_tuner.RandomSearch(hypermodel, hypermodel.objective, max_trials=2,
    ...                                  directory=tempfile.mkdtemp())
    """
    check_positive(block=block)
    dimensions, constructor = split_fixed(name, fixed)
    return ZooHyperModel(
        task_for(name, block=block, **constructor), space=space, **dimensions, **constructor
    )


def split_fixed(name: str, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dimensions of the search space, and arguments of the constructor or the task."""
    task = task_for(name)
    of_task = {*task.entry.arguments(), *task.option_defaults}
    dimensions = {key: value for key, value in fixed.items() if key not in of_task}
    return dimensions, {key: value for key, value in fixed.items() if key in of_task}


class ZooHyperModel(keras_tuner.HyperModel):
    """The models of a task, with a search space.

    Args:
        task: `keras_seqzoo.tasks.Task`, bound to data where `fit` is to use that data.
        space: mapping that replaces or adds dimensions, as in `hypermodel`.
        **fixed: arguments of the constructor, and dimensions of the space, that do not vary.
    """

    def __init__(self, task: Task, *, space: Mapping[str, Any] | None = None, **fixed: Any):
        entry = task.entry
        super().__init__(name=entry.name, tunable=True)
        self.task = task
        if space is not None:
            check_instance(Mapping, space=space)
        self.arguments = entry.arguments()
        self.fixed = {key: value for key, value in fixed.items() if key not in task.options}
        replaced = {
            key: as_dimension(key, value, entry.space.get(key))
            for key, value in (space or {}).items()
        }
        dimensions = {**entry.space, **replaced}
        known = [*self.arguments, *(key for key in dimensions if key not in self.arguments)]
        known += [key for key in _OPTIMIZER if key not in known]
        for key in (*self.fixed, *replaced):
            if key not in known or (key in replaced and not self._is_used(key)):
                raise errors.UnknownArgumentError(
                    unknown_name_message(f"argument of {entry.name}:", key, known)
                )
        for key, value in self.fixed.items():
            if key not in self.arguments and not (is_real(value) and value > 0):
                raise errors.ArgumentError(argument_message(key, "a number above 0", value))
        self.dimensions = _without_fixed(dimensions, self.fixed)
        if not self.dimensions:
            warnings.warn(
                f"Nothing varies in the search space of {entry.name!r}: all trials have the same "
                'hyperparameters. Give `space=`, for instance {"units": (4, 64)}.',
                stacklevel=3,
            )

    @property
    def objective(self) -> keras_tuner.Objective:
        """The default objective of the task."""
        return keras_tuner.Objective(*self.task.objective)

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
        model = self.task.build(**_constructor_arguments(values))
        self.task.compile(model, self.task.optimizer(**optimizer))
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
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains one trial on data of the task, or on what `Model.fit` takes.

        Raises:
            ArgumentError: without validation data, where the task measures its metrics on it.
        """
        return self.task.fit_data(
            model,
            x,
            y,
            validation_data=validation_data,
            validation_split=validation_split,
            **kwargs,
        )

    def adapt_like(self, model: keras.Model, adapted: keras.Model) -> None:
        """Adapts a model as one with the same layers was adapted; the data is not read again."""
        for layer in model.layers:
            if isinstance(layer, layers.Normalization) and adapted.get_layer(layer.name).adapted:
                weights = adapted.get_layer(layer.name).weights
                mean, variance, count = map(keras.ops.convert_to_numpy, weights)
                layer.set_statistics(mean, variance, int(count))
        if isinstance(model.loss, NormalizedMeanSquaredError):
            model.loss.variance = adapted.loss.variance

    def _is_used(self, key: str) -> bool:
        """Whether `build` would use a dimension of that name."""
        if key in self.arguments or key in _OPTIMIZER:
            return True
        return key.endswith("_strength") and _regularizer_of(key) in self.arguments


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
