"""Regularizers that Keras lacks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.utils.argument_validation import check_not_negative


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class SpectralNorm(keras.regularizers.Regularizer):
    """Penalty on a kernel's largest singular value, as far as it is beyond a limit.

    `weight * max(0, sigma_max - limit)^2`. Of the recurrent kernel of a SimpleRNN it is what bounds
    the influence of old inputs: `keras_seqzoo.diagnostics.lipschitz_bound`. Below the limit the kernel is free, whereas
    L1 and L2 shrink all of it. A penalty is no constraint: training may end a little above the
    limit, the less the larger the weight; `lipschitz_bound` says where it ended.

    Shapes: a kernel `(rows, columns)` -> a number. Of GRU and LSTM the kernels of all gates count
        as one matrix; axes before the last are taken as one.
    Masking: none.
    State: none.

    Args:
        weight: float of at least 0.
        limit: float of at least 0; below 1, influence dies out.

    Raises:
        ArgumentError: if an argument is no such number.

    Example:

    >>> import keras_seqzoo as zoo
    >>> round(float(zoo.regularizers.SpectralNorm(weight=1.0, limit=0.5)(2 * np.eye(3, dtype="float32"))), 4)
    2.25
    >>> model = zoo.get("simple_rnn_identity", recurrent_regularizer="spectral_norm")

    Reference: [Yoshida & Miyato, 2017](https://arxiv.org/abs/1705.10941), for the penalty
    """

    def __init__(self, weight: float = 0.1, limit: float = 0.9):
        check_not_negative(weight=weight, limit=limit)
        self.weight, self.limit = float(weight), float(limit)

    def __call__(self, x):
        x = ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")
        largest = ops.max(ops.svd(x, compute_uv=False))
        return self.weight * ops.square(ops.maximum(largest - self.limit, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight, "limit": self.limit}
