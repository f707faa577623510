"""State leakage as a penalty in the training loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE, input_mask
from keras_seqzoo.utils.argument_validation import argument_message, check_not_negative

_VARIANCE_FLOOR = 1e-7  # fraction of the mean square below which an output counts as constant


@keras.saving.register_keras_serializable(package=PACKAGE)
class LeakagePenalty(keras.Model):
    """Adds the state leakage of a model, times `weight`, to its training loss.

    State leakage is the history dependence of the output, as `keras_seqzoo.leakage` defines it,
    here with one random cut for each row and training step: the steps before the cut are replaced
    by those of another row, and the squared change of the output at the cut, divided by twice its
    variance, is the leakage. Gradients flow through both outputs. The cost is one more forward and
    backward pass over twice the rows, without dropout.

    The penalty acts on the leakage itself, whereas a recurrent regularizer acts on all recurrent
    weights. `fit` reports the metric `leakage`, and `val_leakage` for validation rows, where the
    loss does not include it.

    The model shares inputs, layers and weights with `network`, so that training it trains
    `network`. It is compiled, fitted, saved and loaded as any Keras model.

    Shapes: those of `network`: one input `(batch, time, ...)`, one output with the same steps, or
        `(batch, outputs)` of the last step only.
    Masking: pasts are swapped only between rows with equal masks before the cut, as in
        `keras_seqzoo.leakage`.
    State: a random generator.

    Args:
        network: a Functional or Sequential Keras model that uses the training loop of Keras.
        weight: float of at least 0.
        seed: int or None.
        name: str; the default is the name of `network`.

    Raises:
        ArgumentError: if the network has several inputs or outputs, an output with other steps than
            the input, a loss of its own, or keeps state between calls.

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
        _check_network(network)
        super().__init__(network.inputs[0], network.outputs[0], name=name or network.name)
        self.weight, self.seed = float(weight), seed
        output_shape = network.outputs[0].shape
        self.last_step_only = len(output_shape) == 2 and output_shape[1] is not None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.leakage_tracker = keras.metrics.Mean(name="leakage")

    @property
    def network(self) -> keras.Model:
        """The model without the penalty, with the same layers and weights."""
        return keras.Model(self.inputs[0], self.outputs[0], name=self.name)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        leakage = self.batch_leakage(x)
        self.leakage_tracker.update_state(leakage)
        return loss + ops.cast(self.weight * leakage, loss.dtype) if training else loss

    def batch_leakage(self, x):
        """Estimate the leakage of a batch, each row at one random cut, as a differentiable scalar.

        Args:
            x: `(batch, time, ...)`, inputs of the network.
        """
        x = ops.convert_to_tensor(x)
        real = input_mask(self, x)
        real = ops.ones(ops.shape(x)[:2], "bool") if real is None else real
        cut, at_cut = self._draw_cuts(real)
        swapped_x, swapped = _swap_pasts(x, real, cut)
        outputs = ops.cast(self(ops.concatenate([x, swapped_x]), training=False), "float32")
        steps = 1 if self.last_step_only else ops.shape(x)[1]
        outputs = ops.reshape(outputs, (2 * ops.shape(x)[0], steps, -1))
        y, swapped_y = ops.split(outputs, 2)
        if self.last_step_only:
            at_cut, real = ops.ones_like(real[:, :1]), ops.any(real, axis=1, keepdims=True)
        change = ops.sum(_as_factor(at_cut, y) * ops.square(y - swapped_y), 1)  # (batch, outputs)
        swapped = ops.cast(swapped, "float32")[:, None]
        change = ops.sum(change * swapped, axis=0) / ops.maximum(ops.sum(swapped), 1.0)
        return ops.mean(change / (2 * _variance(y, _as_factor(real, y))))

    def _draw_cuts(self, real):
        """The cut of each row, the first step to keep, as index and as mask `(batch, time)`."""
        possible = ops.logical_and(real[:, 1:], real[:, :-1])
        priority = keras.random.uniform(ops.shape(possible), 0.5, 1.0, seed=self.seed_generator)
        if self.last_step_only:  # the last real step of the row
            priority = ops.cast(ops.cumsum(ops.cast(possible, "int32"), axis=1), "float32")
        cut = 1 + ops.argmax(ops.where(possible, priority, ops.zeros_like(priority)), axis=1)
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


def _swap_pasts(x, real, cut):
    """Rows with the past of the previous row in the batch, and which rows were swapped.

    A row is swapped if its steps on both sides of the cut are real and its past has the mask of the
    other row's past.
    """
    is_past = ops.arange(ops.shape(real)[1], dtype=cut.dtype)[None] < cut[:, None]
    same_mask = ops.logical_or(real == ops.roll(real, 1, axis=0), ops.logical_not(is_past))
    real_at_cut = ops.take_along_axis(real, cut[:, None], axis=1)[:, 0]
    real_before_cut = ops.take_along_axis(real, cut[:, None] - 1, axis=1)[:, 0]
    real_around_cut = ops.logical_and(real_at_cut, real_before_cut)
    swapped = ops.logical_and(ops.all(same_mask, axis=1), real_around_cut)
    replaced = ops.logical_and(is_past, swapped[:, None])
    for _ in x.shape[2:]:
        replaced = ops.expand_dims(replaced, -1)
    return ops.where(replaced, ops.roll(x, 1, axis=0), x), swapped


def _variance(y, real):
    """The variance of each output over real steps, plus a small value that avoids division by 0."""
    count = ops.maximum(ops.sum(real, axis=(0, 1)), 1.0)
    mean = ops.sum(y * real, axis=(0, 1)) / count
    variance = ops.sum(ops.square(y - mean) * real, axis=(0, 1)) / count
    return variance + _VARIANCE_FLOOR * (variance + ops.square(mean)) + 1e-12


def _as_factor(mask, y):
    """A mask `(batch, steps)` as zeros and ones that multiply `y` `(batch, steps, outputs)`."""
    return ops.cast(ops.expand_dims(mask, -1), y.dtype)


def _check_network(network: Any) -> None:
    if not isinstance(network, keras.Model) or not getattr(network, "inputs", None):
        expected = "a Functional or Sequential Keras model"
        raise ArgumentError(argument_message("network", expected, type(network)))
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        counts = f"{len(network.inputs)} and {len(network.outputs)}"
        raise ArgumentError(
            argument_message("network", "a model of one input and one output", counts)
        )
    if type(network).compute_loss is not keras.Model.compute_loss:
        hint = "It has a loss of its own. Use a recurrent_regularizer instead."
        expected = "a model that is trained by the loss of `compile`"
        raise ArgumentError(argument_message("network", expected, type(network), hint))
    stateful = [layer.name for layer in network.layers if getattr(layer, "stateful", False)]
    if stateful:
        raise ArgumentError(argument_message("network", "without stateful layers", stateful))
    inputs, outputs = network.inputs[0].shape, network.outputs[0].shape
    if len(inputs) < 2 or len(outputs) < 2 or (len(outputs) > 2 and outputs[1] != inputs[1]):
        expected = "a model with as many steps in its output as in its input, or only the last"
        raise ArgumentError(argument_message("network", expected, f"{inputs} -> {outputs}"))
