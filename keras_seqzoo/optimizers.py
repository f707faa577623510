"""Adam, one pass over each weight."""

from __future__ import annotations

import keras

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.registry.entry import Entry
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message, is_real


@keras.saving.register_keras_serializable(package=PACKAGE)
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with its update as one operation, where TensorFlow has one.

    Keras writes the update as ten operations on arrays as large as the weight, and more to clip; of
    a large embedding each is a walk through memory. Numbers are Keras's, to round-off, for dense
    gradients. That of an embedding comes by rows; where a token occurs twice, Keras 3.15 takes its
    rows one by one, where Adam is defined by their sum.

    Args:
        *args: as of `keras.optimizers.Adam`.
        **kwargs: as of `keras.optimizers.Adam`.

    Example:

    >>> from keras_seqzoo.optimizers import Adam
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(Adam(1e-2, global_clipnorm=5.0), "mse")

    Reference: [Kingma & Ba, 2015](https://arxiv.org/abs/1412.6980), end of section 2
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """TensorFlow's backend alone calls it; and TensorFlow lets go of no graph that sums over
        replicas, be there one.
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
        step, rate = (tf.cast(one, variable.dtype) for one in (self.iterations + 1, learning_rate))
        beta_1, beta_2, epsilon = (
            tf.constant(one, variable.dtype) for one in (self.beta_1, self.beta_2, self.epsilon)
        )
        # As Keras casts, which rounds to float32 in float64 too.
        powers = [tf.cast(one, variable.dtype) ** step for one in (self.beta_1, self.beta_2)]
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
    """What is given, or the default of an entry's search space; Keras's own if it has none.

    Raises:
        ArgumentError: if it is no number above 0.
    """
    if learning_rate is None:
        dimension = entry.space.get("learning_rate")
        return 1e-3 if dimension is None else dimension.default
    if not is_real(learning_rate) or learning_rate <= 0:
        raise ArgumentError(argument_message("learning_rate", "a number above 0", learning_rate))
    return float(learning_rate)
