"""Decoder of an autoencoder: from one code to a sequence."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.decoder import (
    Decoder,
    DecoderState,
    keep_padded_state,
    scan_steps,
)
from keras_seqzoo.utils.argument_validation import check_choice, check_size

MODES = ("repeat", "reversed", "free_running", "teacher_forced")


@keras.saving.register_keras_serializable(package=PACKAGE)
class CodeDecoder(keras.layers.Layer):
    """Decodes a sequence from a code, which gives the initial states and is an input of every step.

    `mode` is the other input of a step: "repeat" and "reversed" have none, and "reversed" decodes
    the last step first; "free_running" has the output of the step before; "teacher_forced" has the
    true step before, taken from `targets`. Without `targets`, "teacher_forced" runs as
    "free_running".

    Shapes: code `(batch, code)` -> `(batch, time, output_dim)`, with the time axis of
        `target_mask`; without `target_mask` one step, `(batch, output_dim)`.
    Masking: `target_mask` `(batch, time)`, True for real steps, also of the memory. Padded steps
        keep the state; their outputs have no meaning.
    State: none kept between calls.

    Args:
        output_dim: int, at least 1, features or tokens of the output.
        units: int, at least 1, size of each recurrent layer.
        mode: "repeat", "reversed", "free_running" or "teacher_forced".
        activation: of the output: None, or "softmax" for tokens.
        cell: "linear", "simple_rnn", "gru" or "lstm".
        num_layers: int, at least 1, stacked recurrent layers.
        attention: None, or a kind of attention of `Decoder`, which needs `memory`
            `(batch, time, memory)` in the call.
        num_heads: int, for "multi_head".
        dropout: float in [0, 1), rate of the dropout between recurrent layers.
        recurrent_regularizer: Keras regularizer of the recurrent kernels.
        seed: int or None, of the dropout.

    Raises:
        ArgumentError: if an argument is out of range.

    Example:

    >>> from keras_seqzoo.layers import CodeDecoder
    >>> code, mask = np.zeros((2, 4), "float32"), np.ones((2, 5), bool)
    >>> CodeDecoder(3, 8)(code, target_mask=mask).shape
    TensorShape([2, 5, 3])

    References: [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179), the code in every step;
        [Srivastava et al., 2015](https://arxiv.org/abs/1502.04681), "reversed";
        [Williams & Zipser, 1989](https://doi.org/10.1162/neco.1989.1.2.270), teacher forcing
    """

    def __init__(
        self,
        output_dim: int,
        units: int,
        *,
        mode: str = "repeat",
        activation: Any = None,
        cell: str = "lstm",
        num_layers: int = 1,
        attention: str | None = None,
        num_heads: int = 4,
        dropout: float = 0.0,
        recurrent_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_size(output_dim=output_dim)
        check_choice("mode", mode, MODES)
        self.output_dim, self.mode, self.num_heads = output_dim, mode, num_heads
        self.decoder = Decoder(
            units,
            cell=cell,
            num_layers=num_layers,
            attention=attention,
            num_heads=num_heads,
            dropout=dropout,
            recurrent_regularizer=recurrent_regularizer,
            seed=seed,
            name="decoder",
        )
        activation_of_state = None if cell == "linear" else "tanh"
        self.initial_state_layers = [
            keras.layers.Dense(units, activation_of_state, name=f"initial_{number}")
            for number in range(1, self.decoder.num_states + 1)
        ]
        self.readout = keras.layers.Dense(output_dim, activation, name="readout")

    @property
    def has_attention(self) -> bool:
        """Whether the decoder has attention, and takes `memory`."""
        return self.decoder.attention is not None

    def build(self, code_shape, memory_shape=None, **_):
        code_size = code_shape[-1]
        for layer in self.initial_state_layers:
            layer.build((None, code_size))
        fed_back = self.output_dim if self.mode in ("free_running", "teacher_forced") else 0
        self.decoder.build((None, None, code_size + fed_back), memory_shape)
        self.readout.build((None, None, self.decoder.units))

    def call(self, code, target_mask=None, memory=None, targets=None, training=None) -> Any:
        if target_mask is None:
            one_step = ops.ones_like(code[:, :1], "bool")
            return self.call(code, one_step, training=training)[:, 0]
        initial_state = [layer(code) for layer in self.initial_state_layers]
        if self.mode == "free_running" or (self.mode == "teacher_forced" and targets is None):
            return self._free_running(code, target_mask, memory, initial_state, training)
        is_reversed = self.mode == "reversed"
        x = code[:, None] * ops.cast(ops.ones_like(target_mask), code.dtype)[..., None]
        if self.mode == "teacher_forced":
            before = previous_real_step(self._as_outputs(targets), target_mask)
            x = ops.concatenate([x, before], axis=-1)
        x = self.decoder(
            x,
            memory=memory,
            initial_state=initial_state,
            memory_mask=target_mask if self.has_attention else None,
            target_mask=ops.flip(target_mask, 1) if is_reversed else target_mask,
            training=training,
        )  # (batch, time, units)
        outputs = self.readout(x)
        return ops.flip(outputs, 1) if is_reversed else outputs

    def _free_running(self, code, target_mask, memory, initial_state, training):
        """Outputs of all steps, where each output is an input of the next step."""
        decoder = self.decoder
        kernels = decoder.kernels()
        attention_memory = decoder.project_memory(memory, target_mask, kernels)
        dropout_masks = decoder.dropout_masks(code, training)

        def body(carry, real):
            state, output = carry
            x = decoder.project_inputs(ops.concatenate([code, output], axis=-1), kernels)
            h, next_state, _ = decoder.step(
                x, DecoderState(*state), attention_memory, kernels, dropout_masks
            )
            carry = keep_padded_state(real, (tuple(next_state), self.readout(h)), carry)
            return carry, carry[1]

        zeros = ops.zeros((ops.shape(code)[0], self.output_dim), code.dtype)
        carry = tuple(decoder.first_state(initial_state)), zeros
        return scan_steps(body, carry, target_mask, self.output_dim, self.compute_dtype)

    def _as_outputs(self, targets):
        """Targets in the form of outputs: readings, or one-hot vectors of tokens."""
        if len(targets.shape) == 3:
            return targets
        return ops.one_hot(targets, self.output_dim, dtype=self.compute_dtype)

    def compute_mask(self, code, previous_mask=None):
        return None

    def compute_output_shape(self, code_shape, target_mask_shape=None, **_):
        leading = code_shape[:1] if target_mask_shape is None else target_mask_shape
        return (*leading, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        names = ("units", "cell", "num_layers", "attention", "num_heads", "dropout", "seed")
        decoder = self.decoder.get_config()
        return (
            super().get_config()
            | {name: decoder[name] for name in (*names, "recurrent_regularizer")}
            | {"output_dim": self.output_dim, "mode": self.mode}
            | {"activation": keras.activations.serialize(self.readout.activation)}
        )


def previous_real_step(x, mask):
    """For each step, the last real step before it; zeros where there is none.

    Args:
        x: `(batch, time, features)`.
        mask: bool `(batch, time)`, True for real steps.
    """
    num_steps = ops.shape(x)[1]
    # `order` lists the real steps first, so that the one before the n-th of them is `order[n - 1]`.
    order = ops.argsort(ops.arange(num_steps) + ops.where(mask, 0, num_steps), axis=1)
    rank = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 2
    index = ops.take_along_axis(order, ops.maximum(rank, 0), axis=1)
    previous = ops.take_along_axis(x, index[..., None], axis=1)
    return ops.where(rank[..., None] >= 0, previous, ops.zeros_like(previous))
