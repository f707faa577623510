"""Attention over the encoder's states: additive, dot, general and multi-head."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.rnn.attention_weights import attention_weights
from keras_seqzoo.utils.argument_validation import check_choice, check_size

ATTENTIONS = ("additive", "dot", "general", "multi_head")


@keras.saving.register_keras_serializable(package=PACKAGE)
class SourceAttention(keras.layers.Layer):
    """Attention from queries to a memory, the encoder's states.

    `keys` projects the memory once; `attend` takes the result for any number of queries, so that a
    decoder does not repeat the projection at each step.

    Shapes: queries `(batch, time, query)`, memory `(batch, source, memory)` -> contexts
        `(batch, time, memory)` and attention weights `(batch, time, source)`, which sum to 1 over
        real steps.
    Masking: `mask` `(batch, source)`, True for real steps. Contexts and weights are 0 for a source
        without real steps.
    State: none.

    Args:
        kind: with query `q` and memory step `m`, the score is "additive", `v tanh(W q + U m)`;
            "dot", `q m`, for queries and memory of one size; "general", `q W m`; "multi_head",
            scaled dots of `num_heads` projections. The contexts of "multi_head" are projected to
            the size of the memory; its weights are the mean over heads.
        units: int, at least 1, size of the projections of "additive" and "multi_head".
        num_heads: int, at least 1, for "multi_head"; divides `units`.

    Raises:
        ArgumentError: if an argument is out of range, or the sizes of queries and memory differ
            for "dot".

    Example:

    >>> from keras_seqzoo.layers import SourceAttention
    >>> contexts, weights = SourceAttention("general", 4)(np.ones((2, 3, 4)), np.ones((2, 5, 6)))
    >>> contexts.shape, weights.shape
    (TensorShape([2, 3, 6]), TensorShape([2, 3, 5]))

    References: [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), appendix A.1.2;
        [Luong et al., 2015](https://doi.org/10.18653/v1/D15-1166), equation 8;
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2
    """

    def __init__(self, kind: str, units: int, *, num_heads: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        check_choice("kind", kind, ATTENTIONS)
        check_size(units=units, num_heads=num_heads)
        if kind == "multi_head" and units % num_heads:
            raise ArgumentError(
                "`units` must be a multiple of `num_heads`. Received: "
                f"units={units}, num_heads={num_heads}."
            )
        self.kind, self.units, self.num_heads = kind, units, num_heads

    def build(self, queries_shape, memory_shape):
        query_size, memory_size = queries_shape[-1], memory_shape[-1]
        self.memory_size = memory_size
        if self.kind == "dot":
            if query_size != memory_size:
                raise ArgumentError(
                    "`kind='dot'` must have queries as wide as the memory. Received: queries of "
                    f"size {query_size}, memory of size {memory_size}. Use 'general'."
                )
            return
        key_size = query_size if self.kind == "general" else self.units
        self.key_kernel = self.add_weight((memory_size, key_size), name="key_kernel")
        if self.kind == "general":
            return
        self.query_kernel = self.add_weight((query_size, self.units), name="query_kernel")
        if self.kind == "additive":
            self.bias = self.add_weight((self.units,), initializer="zeros", name="bias")
            # Created here, so that its seed is drawn from Keras's global generator.
            uniform = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
            self.score = self.add_weight((self.units,), initializer=uniform, name="score")
        else:
            self.value_kernel = self.add_weight((memory_size, self.units), name="value_kernel")
            self.context_kernel = self.add_weight((self.units, memory_size), name="context_kernel")

    def keys(self, memory):
        """Projects the memory to keys and values.

        Args:
            memory: `(batch, source, memory)`.

        Returns:
            Keys and values, `(batch, source, ...)`, or `(batch, heads, source, ...)` each for
            "multi_head".
        """
        if self.kind == "dot":
            return memory, memory
        keys = ops.matmul(memory, self.key_kernel)
        if self.kind != "multi_head":
            return keys, memory
        return self._split_heads(keys), self._split_heads(ops.matmul(memory, self.value_kernel))

    def attend(self, queries, keys, values, mask=None):
        """Computes contexts and attention weights.

        Args:
            queries: `(batch, time, query)`.
            keys: as `keys` returns them.
            values: as `keys` returns them.
            mask: `(batch, source)`, or None.
        """
        if self.kind == "multi_head":
            return self._attend_with_heads(queries, keys, values, mask)
        if self.kind == "additive":
            queries = ops.matmul(queries, self.query_kernel) + self.bias
            hidden = ops.tanh(queries[:, :, None] + keys[:, None])  # (batch, time, source, units)
            scores = ops.sum(hidden * self.score, axis=-1)
        else:
            scores = ops.matmul(queries, ops.swapaxes(keys, 1, 2))
        weights = attention_weights(scores, None if mask is None else mask[:, None])
        return ops.matmul(weights, values), weights

    def call(self, queries, memory, mask=None):
        return self.attend(queries, *self.keys(memory), mask=mask)

    def _attend_with_heads(self, queries, keys, values, mask):
        projected = self._split_heads(ops.matmul(queries, self.query_kernel))
        projected = projected / float(self.units // self.num_heads) ** 0.5
        scores = ops.matmul(projected, ops.swapaxes(keys, 2, 3))  # (batch, heads, time, source)
        weights = attention_weights(scores, None if mask is None else mask[:, None, None])
        contexts = ops.transpose(ops.matmul(weights, values), (0, 2, 1, 3))
        contexts = ops.reshape(contexts, (*ops.shape(queries)[:2], self.units))
        return ops.matmul(contexts, self.context_kernel), ops.mean(weights, axis=1)

    def _split_heads(self, x):
        """`(batch, steps, units)` -> `(batch, num_heads, steps, units / num_heads)`."""
        x = ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, self.units // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def compute_mask(self, queries, previous_mask=None):
        return None

    def compute_output_shape(self, queries_shape, memory_shape):
        batch, time = queries_shape[:2]
        return (batch, time, memory_shape[-1]), (batch, time, memory_shape[1])

    def get_config(self) -> dict[str, Any]:
        config = {"kind": self.kind, "units": self.units, "num_heads": self.num_heads}
        return super().get_config() | config
