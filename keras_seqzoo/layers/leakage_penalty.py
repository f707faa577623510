"""State leakage as a penalty that training presses down."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE, input_mask
from keras_seqzoo.utils.argument_validation import argument_message, check_not_negative

_LEAST = 1e-7  # share of the mean square below which an output counts as constant


@keras.saving.register_keras_serializable(package=PACKAGE)
class LeakagePenalty(keras.Model):
    """A model whose training loss has its own state leakage added, `weight` times.

    It has the inputs, layers and weights of `network`, so that what is trained here is trained
    there, and is compiled, fitted, saved and loaded as any Keras model. In each training step every
    row draws a cut at random, takes another row's past up to it, and what its output at the cut
    changes by, over twice the variance, is the leakage of the batch: the definition of
    `keras_seqzoo.leakage`, with one cut a row. Gradients go through both answers. That costs one
    pass more, over twice the rows, without dropout.

    A recurrent regularizer presses on weights, whether they leak or not; this presses on what
    leaks. `fit` shows it as `leakage`, and on validation rows as `val_leakage`, where it is not
    part of the loss.

    Shapes: those of `network`: one input `(batch, time, ...)`, one output with the same steps, or
        `(batch, outputs)` for the last step alone.
    Masking: rows that the network masks are swapped between equal pasts only, as in `leakage`.
    State: a random generator.

    Args:
        network: a Functional or Sequential Keras model that is trained by Keras's own loop.
        weight: float of at least 0.
        seed: int or None.
        name: str; default that of `network`.

    Raises:
        ArgumentError: if the network has several inputs or outputs, other steps in its output than
            in its input, a loss of its own, or keeps state between calls.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(64, 20, 1)).astype("float32")
    >>> network = zoo.get("simple_rnn_identity", normalize=False)
    >>> model = zoo.layers.LeakagePenalty(network, weight=0.1)
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, x, verbose=0)
    >>> sorted(history.history)
    ['leakage', 'loss']
    """

    def __init__(
        self, network: keras.Model, weight: float = 0.1, seed: int | None = None, name: Any = None
    ):
        check_not_negative(weight=weight)
        _check(network)
        super().__init__(network.inputs[0], network.outputs[0], name=name or network.name)
        self.weight, self.seed = float(weight), seed
        self.last = len(network.outputs[0].shape) == 2 and network.outputs[0].shape[1] is not None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.leakage_tracker = keras.metrics.Mean(name="leakage")

    @property
    def network(self) -> keras.Model:
        """The model alone, with the same layers and weights."""
        return keras.Model(self.inputs[0], self.outputs[0], name=self.name)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        leakage = self.batch_leakage(x)
        self.leakage_tracker.update_state(leakage)
        return loss + ops.cast(self.weight * leakage, loss.dtype) if training else loss

    def batch_leakage(self, x):
        """The leakage of a batch, each row at one cut, as a number that can be differentiated.

        Args:
            x: `(batch, time, ...)`.
        """
        x = ops.convert_to_tensor(x)
        real = input_mask(self, x)
        real = ops.ones(ops.shape(x)[:2], "bool") if real is None else real
        cut, present = self._cuts(real)
        changed, swapped = _with_another_past(x, real, cut)
        answers = ops.cast(self(ops.concatenate([x, changed]), training=False), "float32")
        steps = 1 if self.last else ops.shape(x)[1]
        answers = ops.reshape(answers, (2 * ops.shape(x)[0], steps, -1))
        y, other = ops.split(answers, 2)
        if self.last:
            present, counted = ops.ones_like(real[:, :1]), ops.any(real, axis=1, keepdims=True)
        else:
            counted = real
        moved = ops.sum(_as(present, y) * ops.square(y - other), axis=1)  # (batch, outputs)
        taken = ops.cast(swapped, "float32")[:, None]
        moved = ops.sum(moved * taken, axis=0) / ops.maximum(ops.sum(taken), 1.0)
        return ops.mean(moved / (2 * _variance(y, _as(counted, y))))

    def _cuts(self, real):
        """A first step to keep for each row, `(batch,)`, and where that is, `(batch, time)`."""
        both = ops.logical_and(real[:, 1:], real[:, :-1])
        drawn = keras.random.uniform(ops.shape(both), 0.5, 1.0, seed=self.seed_generator)
        if self.last:  # its own last real step
            drawn = ops.cast(ops.cumsum(ops.cast(both, "int32"), axis=1), "float32")
        cut = 1 + ops.argmax(ops.where(both, drawn, ops.zeros_like(drawn)), axis=1)
        steps = ops.arange(ops.shape(real)[1], dtype=cut.dtype)
        return cut, steps[None] == cut[:, None]

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {"network": network, "weight": self.weight, "seed": self.seed, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**config | {"network": network})


def _with_another_past(x, real, cut):
    """Rows with the steps before `cut` of the row before them, and which rows were changed.

    Those whose steps on both sides of the cut are real, and padded where the other row's are.
    """
    before = ops.arange(ops.shape(real)[1], dtype=cut.dtype)[None] < cut[:, None]
    same = ops.logical_or(real == ops.roll(real, 1, axis=0), ops.logical_not(before))
    kept = ops.take_along_axis(real, cut[:, None], axis=1)[:, 0]
    edge = ops.take_along_axis(real, cut[:, None] - 1, axis=1)[:, 0]
    swapped = ops.logical_and(ops.all(same, axis=1), ops.logical_and(kept, edge))
    taken = ops.logical_and(before, swapped[:, None])
    for _ in x.shape[2:]:
        taken = ops.expand_dims(taken, -1)
    return ops.where(taken, ops.roll(x, 1, axis=0), x), swapped


def _variance(y, counted):
    """Of each output over real steps; of a constant one a little, so that 0 is not divided by."""
    total = ops.maximum(ops.sum(counted, axis=(0, 1)), 1.0)
    mean = ops.sum(y * counted, axis=(0, 1)) / total
    variance = ops.sum(ops.square(y - mean) * counted, axis=(0, 1)) / total
    return variance + _LEAST * (variance + ops.square(mean)) + 1e-12


def _as(mask, y):
    """`(batch, steps)` as numbers to multiply `(batch, steps, outputs)` with."""
    return ops.cast(ops.expand_dims(mask, -1), y.dtype)


def _check(network: Any) -> None:
    if not isinstance(network, keras.Model) or not getattr(network, "inputs", None):
        expected = "a Functional or Sequential Keras model"
        raise ArgumentError(argument_message("network", expected, type(network)))
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        counts = f"{len(network.inputs)} and {len(network.outputs)}"
        raise ArgumentError(
            argument_message("network", "a model of one input and one output", counts)
        )
    if type(network).compute_loss is not keras.Model.compute_loss:
        hint = "It has a loss of its own; use a recurrent_regularizer there."
        expected = "a model that is trained by the loss it is compiled with"
        raise ArgumentError(argument_message("network", expected, type(network), hint))
    stateful = [layer.name for layer in network.layers if getattr(layer, "stateful", False)]
    if stateful:
        raise ArgumentError(argument_message("network", "without stateful layers", stateful))
    given, said = network.inputs[0].shape, network.outputs[0].shape
    if len(given) < 2 or len(said) < 2 or (len(said) > 2 and said[1] != given[1]):
        expected = "a model with as many steps in its output as in its input, or one answer"
        raise ArgumentError(argument_message("network", expected, f"{given} to {said}"))
