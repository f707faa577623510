"""Regularizers: a penalty on the spectral norm of a kernel."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.utils.argument_validation import check_not_negative

__all__ = ["SpectralNorm"]


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class SpectralNorm(keras.regularizers.Regularizer):
    """Penalty on a kernel's largest singular value where it exceeds a limit.

    The penalty is `weight * max(0, sigma_max - limit)^2`. The spectral norm of a SimpleRNN's
    recurrent kernel bounds the influence of old inputs: `keras_seqzoo.diagnostics.lipschitz_bound`.
    A kernel below the limit is not penalized, whereas L1 and L2 shrink every weight. A penalty is
    not a constraint: training may end slightly above the limit, and closer to it with a larger
    weight. `lipschitz_bound` computes the resulting bound.

    Shapes: a kernel `(rows, columns)` -> a scalar. The gates of a GRU or LSTM kernel are one
        matrix; axes before the last are flattened.
    Masking: none.
    State: none.

    Args:
        weight: float of at least 0.
        limit: float of at least 0; below 1, the influence of old inputs decays to 0.

    Raises:
        ArgumentError: if an argument is not such a number.

    Example:

    >>> import keras_seqzoo as zoo
    >>> penalty = zoo.regularizers.SpectralNorm(weight=1.0, limit=0.5)
    >>> round(float(penalty(2 * np.eye(3, dtype="float32"))), 4)
    2.25
    >>> model = zoo.get("simple_rnn_identity", recurrent_regularizer="spectral_norm")

    Reference: [Yoshida & Miyato, 2017](https://arxiv.org/abs/1705.10941), for the penalty
    """

    def __init__(self, weight: float = 0.1, limit: float = 0.9):
        check_not_negative(weight=weight, limit=limit)
        self.weight, self.limit = float(weight), float(limit)

    def __call__(self, x):
        x = ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")
        largest: Any = ops.max(ops.svd(x, compute_uv=False))
        squared_excess: Any = ops.square(ops.maximum(largest - self.limit, 0.0))
        return self.weight * squared_excess

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight, "limit": self.limit}
