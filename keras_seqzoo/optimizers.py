"""Adam as one fused operation per weight, and an entry's default learning rate."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.registry.entry import Entry
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message, is_real

__all__ = ["Adam"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with a fused update on TensorFlow.

    Keras computes the update in ten operations on arrays of the size of the weight, and more for
    clipping; for a large embedding, each of them is limited by memory bandwidth. For dense
    gradients, results equal Keras's up to round-off. The gradient of an embedding is sparse: if a
    token occurs twice, Keras 3.15 applies its two rows one after the other, whereas this optimizer
    applies their sum, as Adam is defined.

    Args:
        *args: of `keras.optimizers.Adam`.
        **kwargs: of `keras.optimizers.Adam`.

    Example:

    >>> from keras_seqzoo.optimizers import Adam
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(Adam(1e-2, global_clipnorm=5.0), "mse")

    Reference: [Kingma & Ba, 2015](https://arxiv.org/abs/1412.6980), end of section 2
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Sum gradients over replicas, if there are several.

        Only Keras's TensorFlow backend calls this. TensorFlow never releases a graph with a sum
        over replicas, even of a single one.
        """
        import tensorflow as tf

        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super()._all_reduce_sum_gradients(grads_and_vars)
        return grads_and_vars

    def _clip_gradients(self, grads):
        if keras.backend.backend() != "tensorflow" or not self.global_clipnorm:
            return super()._clip_gradients(grads)
        import tensorflow as tf

        dense = [tf.convert_to_tensor(gradient) for gradient in grads]
        return tf.clip_by_global_norm(dense, self.global_clipnorm)[0]

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        momentum, velocity = compat.adam_moments(self, variable)
        iterations: Any = self.iterations
        step: Any = tf.cast(iterations + 1, variable.dtype)
        rate = tf.cast(learning_rate, variable.dtype)
        beta_1, beta_2, epsilon = (
            tf.constant(value, variable.dtype) for value in (self.beta_1, self.beta_2, self.epsilon)
        )
        # `tf.cast` as in Keras, which rounds the betas to float32 for float64 variables, too.
        powers = [tf.cast(beta, variable.dtype) ** step for beta in (self.beta_1, self.beta_2)]
        tf.raw_ops.ResourceApplyAdam(
            var=compat.variable_handle(variable),
            m=compat.variable_handle(momentum),
            v=compat.variable_handle(velocity),
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=tf.convert_to_tensor(gradient),
        )


def learning_rate_of(entry: Entry, learning_rate: float | None) -> float:
    """`learning_rate`, or the default of the entry's search space, or that of Keras.

    Raises:
        ArgumentError: if `learning_rate` is not a number above 0.
    """
    if learning_rate is None:
        dimension = entry.space.get("learning_rate")
        default = None if dimension is None else dimension.default
        return 1e-3 if default is None else default
    if not is_real(learning_rate) or learning_rate <= 0:
        raise ArgumentError(argument_message("learning_rate", "a number above 0", learning_rate))
    return float(learning_rate)
