"""KerasTuner `HyperModel`s of registered models."""

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

_OPTIMIZER = ("learning_rate", "global_clipnorm")  # arguments of Adam in a search space
_REGULARIZERS = {
    "l1": lambda strength: keras.regularizers.L1(strength),
    "l2": lambda strength: keras.regularizers.L2(strength),
    "l1_l2": lambda strength: keras.regularizers.L1L2(strength, strength),
}


def hypermodel(
    name: str, *, space: Mapping[str, Any] | None = None, block: int = 1, **fixed: Any
) -> ZooHyperModel:
    """A KerasTuner hypermodel of an entry with its search space, for any KerasTuner tuner.

    Args:
        name: str, one of `list_models()`.
        space: mapping that replaces or adds dimensions of the search space: a list of choices, or
            a range `(low, high)`, for instance `{"units": (4, 64)}`.
        block: int, number of consecutive windows that overlap, as in `keras_seqzoo.leakage`.
        **fixed: fixed arguments of the constructor and fixed dimensions of the search space;
            `global_clipnorm` clips gradients, as in Keras's optimizers.

    Returns:
        A `keras_tuner.HyperModel`. Its `objective` is the default objective of its task.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: as `get`.

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
    """Split arguments into dimensions of the search space, and arguments of constructor or task."""
    task = task_for(name)
    task_arguments = {*task.entry.arguments(), *task.option_defaults}
    dimensions = {key: value for key, value in fixed.items() if key not in task_arguments}
    return dimensions, {key: value for key, value in fixed.items() if key in task_arguments}


class ZooHyperModel(keras_tuner.HyperModel):
    """KerasTuner hypermodel of a task.

    Args:
        task: `keras_seqzoo.tasks.Task`. `Search` needs a task that is bound to data.
        space: mapping that replaces or adds dimensions, as in `hypermodel`.
        **fixed: fixed arguments of the constructor and fixed dimensions of the search space.

    Raises:
        UnknownArgumentError, ArgumentError: as `hypermodel`.
    """

    def __init__(self, task: Task, *, space: Mapping[str, Any] | None = None, **fixed: Any):
        check_instance(Task, task=task)
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
        accepted = [*self.arguments, *(key for key in dimensions if key not in self.arguments)]
        accepted += [key for key in _OPTIMIZER if key not in accepted]
        for key in (*self.fixed, *replaced):
            if key not in accepted or (key in replaced and not self._is_used(key)):
                raise errors.UnknownArgumentError(
                    unknown_name_message(f"argument of {entry.name}:", key, accepted)
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
        """Declare every dimension, conditional ones under their conditions."""
        self.sample(hp)

    def sample(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Values of the active dimensions in a trial."""
        values = {key: _declare(hp, key, value) for key, value in self.dimensions.items()}
        return {key: value for key, value in values.items() if value is not None}

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of this trial."""
        values = {**self.sample(hp), **{key: _fresh(value) for key, value in self.fixed.items()}}
        optimizer: dict[str, Any] = {"learning_rate": 1e-3}
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
        """Train the model of a trial on data of the task, or on data for `Model.fit`.

        Raises:
            ArgumentError: without validation data, if the metrics of the task need it.
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
        """Copy adapted statistics from a model with the same layers, without reading the data."""
        for layer in model.layers:
            if isinstance(layer, layers.Normalization) and adapted.get_layer(layer.name).adapted:
                weights = adapted.get_layer(layer.name).weights
                mean, variance, count = map(keras.ops.convert_to_numpy, weights)
                layer.set_statistics(mean, variance, int(count))
        if isinstance(model.loss, NormalizedMeanSquaredError):
            model.loss.variance = adapted.loss.variance

    def _is_used(self, key: str) -> bool:
        """Whether `build` uses a dimension of that name."""
        if key in self.arguments or key in _OPTIMIZER:
            return True
        return key.endswith("_strength") and _regularizer_of(key) in self.arguments


def _without_fixed(
    dimensions: Mapping[str, Dimension], fixed: Mapping[str, Any]
) -> dict[str, Dimension]:
    """The dimensions that vary. A fixed parent decides whether its dependents are active."""
    varying = {}
    for key, value in dimensions.items():
        fixed_parents = [parent for parent in value.when if parent in fixed]
        if key in fixed or any(fixed[parent] not in value.when[parent] for parent in fixed_parents):
            continue
        when = {name: values for name, values in value.when.items() if name not in fixed}
        varying[key] = dataclasses.replace(value, when=when)
    return varying


def _fresh(value: Any) -> Any:
    """A copy of an initializer, which draws from the seed of the trial."""
    if isinstance(value, keras.initializers.Initializer):
        return type(value).from_config(value.get_config())
    return value


def _declare(hp: keras_tuner.HyperParameters, name: str, dimension: Dimension) -> Any:
    if dimension.when:
        (parent, values), *others = dimension.when.items()
        with hp.conditional_scope(parent, list(values)):
            return _declare(hp, name, dataclasses.replace(dimension, when=dict(others)))
    if isinstance(dimension, Choice):
        return hp.Choice(name, list(dimension.values), default=dimension.default, ordered=False)
    kind = hp.Int if isinstance(dimension, Int) else hp.Float
    sampling = "log" if dimension.log else "linear"
    return kind(name, dimension.low, dimension.high, sampling=sampling, default=dimension.default)


def _constructor_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Combine kind and strength of a regularizer: `("l1", 0.1)` becomes `L1(0.1)`."""
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
    """Name of the regularizer argument that a strength belongs to."""
    return strength.removesuffix("_strength") + "_regularizer"
