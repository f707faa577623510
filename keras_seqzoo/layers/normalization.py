"""Scaling in front of a network and its inverse behind, learned once from training rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers.masking import PACKAGE, StepMask
from keras_seqzoo.utils.argument_validation import argument_message, check_instance
from keras_seqzoo.utils.array_validation import as_array, as_mask, check_finite


@keras.saving.register_keras_serializable(package=PACKAGE)
class Normalization(keras.layers.Normalization):
    """Keras's `Normalization`, safe to adapt late, to clone and to feed a constant feature.

    Keras's own layer freezes mean and variance into constants: a function compiled before
    `adapt`, or weights set by `set_weights`, go unnoticed. This one reads its weights at every
    call. A feature of variance 0 is only shifted: it would be divided by 1e-7.

    Shapes: `(..., features)` -> the same. `invert=True` undoes the scaling.
    Masking: passed on.
    State: `mean`, `variance` and `count` (steps adapted to), not trainable.

    Precision: computes in the precision of its weights, also under a mixed policy: raw readings of
        thousands have no decimals in float16.

    Training a layer that was never adapted warns, once.
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        self.adapted = self.input_mean is not None
        self._warned = False

    def set_statistics(self, mean: np.ndarray, variance: np.ndarray, count: int) -> None:
        """Takes mean and variance per feature, from `count` steps."""
        self.adapt_mean.assign(mean)
        self.adapt_variance.assign(variance)
        self.count.assign(min(count, 2**31 - 1))  # the weight is an int32
        self.adapted = True

    def adapt(self, data) -> None:
        super().adapt(data)
        self.count.assign(1)  # how many steps is not known here: `data` may be a generator
        self.adapted = True

    def call(self, inputs, training=None):
        if self.input_mean is not None:
            return super().call(inputs)
        if training and not (self.adapted or self.invert or self._warned):
            self._warned = True
            warnings.warn(
                f"The scaling layer {self.name!r} was never adapted: raw values reach the network "
                "unscaled. Call keras_seqzoo.adapt(model, x_train) before fit, or build the model "
                "with normalize=False.",
                stacklevel=2,
            )
        mean = ops.cast(self.adapt_mean, inputs.dtype)
        variance = ops.cast(self.adapt_variance, inputs.dtype)
        deviation = ops.where(variance > 0, ops.sqrt(variance), ops.ones_like(variance))
        if self.invert:
            return inputs * deviation + mean
        return (inputs - mean) / deviation

    def load_own_variables(self, store) -> None:
        super().load_own_variables(store)
        if self.input_mean is None:
            self.adapted = int(ops.convert_to_numpy(self.count)) > 0


def has_scaling(model: keras.Model) -> bool:
    """Whether `adapt` has something to set.

    Args:
        model: `keras.Model`.
    """
    return any(isinstance(layer, Normalization) for layer in model.layers)


TARGET = "target_scale"  # the layer that scales a target that goes in


def adapt(model: keras.Model, x, *, target=None, mask=None) -> None:
    """Sets the scaling in front of and behind a model from training rows, in place.

    Both layers get mean and variance of each feature of `x`. Padded steps are left out: those
    that the model's own `mask_value` marks, and those where `mask` is False. Rows that no memory
    holds may come in batches.

    Args:
        model: a model with `Normalization` layers, as `get(..., normalize=True)` builds them.
        x: array `(batch, time, features)`, raw training rows; never validation or test rows. Or
            many of them one after another, as a `tf.data.Dataset`, a `PyDataset` or an iterator
            gives them; of tuples, such as `(x, y)`, the first.
        target: the same, of an encoder-decoder whose targets are readings; what comes out is
            scaled by it.
        mask: bool array `(batch, time)`, True for real steps of `x`, or None; None with batches.

    Raises:
        ArgumentError: if the model has no scaling layer, or a target is given that it has not, or
            not given that it has; or if a mask is given with batches.
        DataError: if `x` has another shape than the model takes, is empty, or is not finite.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("simple_rnn_identity", features=3)
    >>> zoo.adapt(model, np.random.default_rng(0).uniform(1, 15, (8, 20, 3)))
    """
    check_instance(keras.Model, model=model)
    scalings = [layer for layer in model.layers if isinstance(layer, Normalization)]
    if not scalings:
        raise ArgumentError(
            f"`model` must have a scaling layer. Received: {model.name!r} without one. Build it "
            "with normalize=True, or train it as it is."
        )
    has_target = any(layer.name == TARGET for layer in scalings)
    if has_target != (target is not None):
        expected = "the readings that are to come out" if has_target else "left out of this model"
        raise ArgumentError(argument_message("target", expected, type(target)))
    of_target = [one for one in scalings if has_target and (one.invert or one.name == TARGET)]
    of_x = [layer for layer in scalings if layer not in of_target]
    if mask is not None and _streams(x):
        hint = "Mark padding by the model's mask_value."
        raise ArgumentError(
            argument_message("mask", "None where `x` comes in batches", type(mask), hint)
        )
    if of_x:
        _set_statistics(of_x, "x", (_steps(model, part, mask) for part in _parts("x", x)))
    if of_target:
        features = of_target[0].input.shape[-1]
        steps = (_target_steps(part, features) for part in _parts("target", target))
        _set_statistics(of_target, "target", steps)


def _streams(x: Any) -> bool:
    """Whether it gives arrays one after another, rather than being one."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    return isinstance(x, Iterable) and not (isinstance(x, Sequence) or hasattr(x, "__array__"))


def _parts(name: str, x: Any) -> Iterable[Any]:
    """The arrays that a stream gives, or the one that `x` is."""
    if not _streams(x):
        yield x
        return
    parts = map(x.__getitem__, range(x.num_batches)) if hasattr(x, "num_batches") else x
    empty = True
    for part in parts:
        yield part[0] if isinstance(part, tuple) else part
        empty = False
    if empty:
        raise DataError(f"`{name}` must give at least one batch. Received: none, from {type(x)}.")


def _set_statistics(scalings: list[Normalization], name: str, parts: Iterable[np.ndarray]) -> None:
    """Sets mean and variance of all steps, of which each part has some.

    Parts are merged by [Chan et al., 1983](https://doi.org/10.1080/00031305.1983.10483115),
    equation 2.1, which squares deviations alone.
    """
    count, mean, squares = 0, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for steps in parts:
            here, away = len(steps), steps.mean(axis=0) - mean
            squares = squares + steps.var(axis=0) * here
            squares = squares + away**2 * (count * here / (count + here))
            mean, count = mean + away * (here / (count + here)), count + here
        variance = squares / count
    if not (variance <= np.finfo(np.float32).max).all():
        raise DataError(
            f"`{name}` must have variances that float32 holds. Received: "
            f"{np.format_float_scientific(variance.max(), 1)}. Divide the readings by a constant."
        )
    # Round-off of a constant feature is not variance.
    variance[variance <= (np.finfo(np.float32).eps * np.abs(mean)) ** 2] = 0.0
    for layer in scalings:
        layer.set_statistics(mean, variance, count)


def _target_steps(target: Any, features: int) -> np.ndarray:
    """The steps of a target that are not padding, `(steps, features)` in float64."""
    target = as_array("target", target)
    if target.ndim != 3 or target.shape[-1] != features or target.dtype.kind not in "iuf":
        raise DataError(
            f"`target` must be numeric of shape (batch, time, {features}). Received: shape "
            f"{target.shape}, dtype {target.dtype}."
        )
    steps = target.reshape(-1, features).astype(np.float64)
    steps = steps[~np.isnan(steps).all(axis=-1)]
    if not len(steps) or not np.isfinite(steps).all():
        raise DataError("`target` must have steps, all finite or NaN as a whole.")
    return steps


def _steps(model: keras.Model, x, mask=None) -> np.ndarray:
    """The steps of `x` that are not padding, `(steps, features)` in float64."""
    x = as_array("x", x)
    features = model.inputs[0].shape[-1]
    if x.ndim != 3 or x.shape[-1] != features or x.dtype.kind not in "iuf":
        raise DataError(
            f"`x` must be numeric of shape (batch, time, {features}), as {model.name!r} takes it. "
            f"Received: shape {x.shape}, dtype {x.dtype}."
        )
    x = x.astype(np.float64)
    real = np.ones(x.shape[:2], bool)
    if mask is not None:
        real &= as_mask(mask, x.shape[:2])
    for layer in model.layers:
        if isinstance(layer, StepMask):
            with np.errstate(over="ignore"):  # what float32 cannot hold is no padding
                real &= ops.convert_to_numpy(layer(x.astype(np.float32)))
    check_finite(x, real)
    steps = x[real]
    if not len(steps):
        raise DataError(f"`x` must have at least one real step. Received: shape {x.shape}.")
    return steps
