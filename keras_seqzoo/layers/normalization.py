"""Normalization of inputs and outputs with statistics learned from training rows."""

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
    """`keras.layers.Normalization` that reads its statistics from its weights at every call.

    Keras's layer turns mean and variance into constants, so that functions compiled before `adapt`
    and weights set by `set_weights` have no effect. A feature of variance 0 is only shifted here;
    Keras divides it by 1e-7. The layer computes in the dtype of its weights, also under a mixed
    policy, as raw readings of thousands have no decimals in float16. Training a layer that was
    never adapted warns once.

    Shapes: `(..., features)` -> the same. `invert=True` is the inverse, from normalized values to
        readings.
    Masking: the mask is passed on.
    State: `mean`, `variance` and `count`, the number of steps adapted to; not trainable.

    Args:
        **kwargs: those of `keras.layers.Normalization`.

    Example:

    >>> from keras_seqzoo.layers import Normalization
    >>> layer = Normalization()
    >>> layer.adapt(np.array([[1.0], [3.0]]))
    >>> layer(np.array([[3.0]])).numpy().tolist()
    [[1.0]]
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        self.adapted = self.input_mean is not None
        self._warned = False

    def set_statistics(self, mean: np.ndarray, variance: np.ndarray, count: int) -> None:
        """Set mean and variance of each feature, computed from `count` steps."""
        self.adapt_mean.assign(mean)
        self.adapt_variance.assign(variance)
        self.count.assign(min(count, 2**31 - 1))  # the weight is an int32
        self.adapted = True

    def adapt(self, data) -> None:
        super().adapt(data)
        self.count.assign(1)  # the number of steps is unknown: `data` may be a generator
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
    """Whether a model has a `Normalization` layer, which `adapt` needs.

    Args:
        model: `keras.Model`.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.layers.has_scaling(zoo.get("simple_rnn_identity", normalize=False))
    False
    """
    return any(isinstance(layer, Normalization) for layer in model.layers)


TARGET = "target_scale"  # name of the layer that normalizes target inputs


def adapt(model: keras.Model, x, *, target=None, mask=None) -> None:
    """Learn the normalization of a model's inputs and outputs from training rows, in place.

    The normalization layers get mean and variance of each feature of `x`. Padded steps are left
    out: those with the `mask_value` of the model, and those where `mask` is False.

    Args:
        model: a model with `Normalization` layers, as `get(..., normalize=True)` builds it.
        x: array `(batch, time, features)` of raw training rows, never validation or test rows. Data
            that does not fit in memory may come as batches: a `tf.data.Dataset`, a `PyDataset` or
            an iterator of such arrays, or of tuples that begin with one.
        target: the same for the targets of an encoder-decoder of readings, whose target inputs and
            outputs are normalized by it; else None.
        mask: bool array `(batch, time)`, True for real steps of `x`, or None; None with batches.

    Raises:
        ArgumentError: if the model has no normalization layer, if `target` is missing or the model
            has no target inputs, or if `mask` is given with batches.
        DataError: if `x` or `target` has another shape than the model expects, is empty, or is not
            finite.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("simple_rnn_identity", features=3)
    >>> zoo.adapt(model, np.random.default_rng(0).uniform(1, 15, (8, 20, 3)))
    """
    check_instance(keras.Model, model=model)
    layers = [layer for layer in model.layers if isinstance(layer, Normalization)]
    if not layers:
        raise ArgumentError(
            f"`model` must have a normalization layer. Received: {model.name!r} without one. Build "
            "it with normalize=True, or train it without `adapt`."
        )
    has_target = any(layer.name == TARGET for layer in layers)
    if has_target != (target is not None):
        expected = "readings for a model with target inputs, else None"
        raise ArgumentError(argument_message("target", expected, type(target)))
    target_layers = [
        layer for layer in layers if has_target and (layer.invert or layer.name == TARGET)
    ]
    input_layers = [layer for layer in layers if layer not in target_layers]
    if mask is not None and _is_batched(x):
        hint = "Mark padding by the model's mask_value."
        raise ArgumentError(
            argument_message("mask", "None where `x` comes in batches", type(mask), hint)
        )
    if input_layers:
        steps = (_input_steps(model, batch, mask) for batch in _batches("x", x))
        _set_statistics(input_layers, "x", steps)
    if target_layers:
        layer_input: Any = target_layers[0].input
        features = layer_input.shape[-1]
        steps = (_target_steps(batch, features) for batch in _batches("target", target))
        _set_statistics(target_layers, "target", steps)


def _is_batched(x: Any) -> bool:
    """Whether `x` is a stream of arrays rather than one array."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    return isinstance(x, Iterable) and not (isinstance(x, Sequence) or hasattr(x, "__array__"))


def _batches(name: str, x: Any) -> Iterable[Any]:
    """The arrays of a stream, or the array `x`."""
    if not _is_batched(x):
        yield x
        return
    batches = map(x.__getitem__, range(x.num_batches)) if hasattr(x, "num_batches") else x
    empty = True
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple) else batch
        empty = False
    if empty:
        raise DataError(f"`{name}` must give at least one batch. Received: none, from {type(x)}.")


def _set_statistics(layers: list[Normalization], name: str, batches: Iterable[np.ndarray]) -> None:
    """Set mean and variance of all steps, given in batches `(steps, features)`.

    Batches are merged by equation 2.1 of
    [Chan et al., 1983](https://doi.org/10.1080/00031305.1983.10483115), which is numerically
    stable.
    """
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    with np.errstate(over="ignore", invalid="ignore"):
        for steps in batches:
            size, shift = len(steps), steps.mean(axis=0) - mean
            squares = squares + steps.var(axis=0) * size
            squares = squares + shift**2 * (count * size / (count + size))
            mean, count = mean + shift * (size / (count + size)), count + size
        variance = np.asarray(squares / count)
    if not (variance <= np.finfo(np.float32).max).all():
        raise DataError(
            f"`{name}` must have variances in the range of float32. Received: "
            f"{np.format_float_scientific(variance.max(), 1)}. Divide the readings by a constant."
        )
    # The variance of a constant feature is 0, without rounding errors.
    variance[variance <= (np.finfo(np.float32).eps * np.abs(mean)) ** 2] = 0.0
    for layer in layers:
        layer.set_statistics(mean, variance, count)


def _target_steps(target: Any, features: int) -> np.ndarray:
    """The real steps of a target, `(steps, features)` in float64."""
    target = as_array("target", target)
    if target.ndim != 3 or target.shape[-1] != features or target.dtype.kind not in "iuf":
        raise DataError(
            f"`target` must be numeric of shape (batch, time, {features}). Received: shape "
            f"{target.shape}, dtype {target.dtype}."
        )
    steps = target.reshape(-1, features).astype(np.float64)
    steps = steps[~np.isnan(steps).all(axis=-1)]
    if not len(steps) or not np.isfinite(steps).all():
        raise DataError(
            "`target` must have at least one real step, and steps that are finite or all NaN. "
            f"Received: shape {target.shape}, {len(steps)} real steps."
        )
    return steps


def _input_steps(model: keras.Model, x, mask=None) -> np.ndarray:
    """The real steps of an input, `(steps, features)` in float64."""
    x = as_array("x", x)
    features = model.inputs[0].shape[-1]
    if x.ndim != 3 or x.shape[-1] != features or x.dtype.kind not in "iuf":
        raise DataError(
            f"`x` must be numeric of shape (batch, time, {features}) for {model.name!r}. "
            f"Received: shape {x.shape}, dtype {x.dtype}."
        )
    x = x.astype(np.float64)
    real = np.ones(x.shape[:2], bool)
    if mask is not None:
        real &= as_mask(mask, x.shape[:2])
    for layer in model.layers:
        if isinstance(layer, StepMask):
            with np.errstate(over="ignore"):  # values beyond float32 are not padding
                real &= ops.convert_to_numpy(layer(x.astype(np.float32)))
    check_finite(x, real)
    steps = x[real]
    if not len(steps):
        raise DataError(f"`x` must have at least one real step. Received: shape {x.shape}.")
    return steps
