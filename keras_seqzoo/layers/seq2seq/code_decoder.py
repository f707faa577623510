"""From one code to a sequence: the saying half of an autoencoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.decoder import Decoder, DecoderState, kept, over_steps
from keras_seqzoo.utils.argument_validation import check_choice, check_size

MODES = ("repeat", "reversed", "free_running", "teacher_forced")


@keras.saving.register_keras_serializable(package=PACKAGE)
class CodeDecoder(keras.layers.Layer):
    """Says a sequence from a code, which gives the first states and goes into every step.

    How long the sequence is, its mask tells. Beside the code, a step is given nothing ("repeat";
    "reversed", from the last step to the first), what was said of the step before
    ("free_running"), or what that step truly was ("teacher_forced"), for which `given` holds the
    truth; without it, a decoder that was trained so runs freely.

    Shapes: code `(batch, code)` -> `(batch, time, outputs)`; `(batch, outputs)`, one step, without
        `real`.
    Masking: `real` `(batch, time)`, True for real steps: padded ones keep the state and say
        nothing of meaning; the memory has the same.
    State: none kept between calls.

    Args:
        outputs: int, at least 1, features or tokens that are said.
        units: int, at least 1, of each recurrent layer.
        mode: "repeat", "reversed", "free_running" or "teacher_forced".
        activation: of what is said: None, or "softmax" for tokens.
        cell: "linear", "simple_rnn", "gru" or "lstm".
        num_layers: int, at least 1, recurrent layers one upon the other.
        attention: None, or the kind of `Decoder`'s, which then needs `memory`
            `(batch, time, memory)`.
        num_heads: int, of "multi_head".
        dropout: float in [0, 1), share of units between recurrent layers set to 0 in training.
        recurrent_regularizer: of the recurrent kernels.
        seed: int or None, of the dropout.

    Example:

    >>> from keras_seqzoo.layers import CodeDecoder
    >>> code, real = np.zeros((2, 4), "float32"), np.ones((2, 5), bool)
    >>> CodeDecoder(3, 8)(code, real=real).shape
    TensorShape([2, 5, 3])

    References: [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179), of the code in every step;
        [Srivastava et al., 2015](https://arxiv.org/abs/1502.04681), of saying the last step first;
        [Williams & Zipser, 1989](https://doi.org/10.1162/neco.1989.1.2.270), of teacher forcing
    """

    def __init__(
        self,
        outputs: int,
        units: int,
        *,
        mode: str = "repeat",
        activation=None,
        cell: str = "lstm",
        num_layers: int = 1,
        attention: str | None = None,
        num_heads: int = 4,
        dropout: float = 0.0,
        recurrent_regularizer=None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_size(outputs=outputs)
        check_choice("mode", mode, MODES)
        self.outputs, self.mode, self.num_heads = outputs, mode, num_heads
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
        bounded = None if cell == "linear" else "tanh"
        self.initial = [
            keras.layers.Dense(units, bounded, name=f"initial_{number}")
            for number in range(1, self.decoder.states + 1)
        ]
        self.readout = keras.layers.Dense(outputs, activation, name="readout")

    @property
    def looks(self) -> bool:
        """Whether it has attention, and takes `memory`."""
        return self.decoder.attention is not None

    def build(self, code_shape, memory_shape=None, **_):
        width = code_shape[-1]
        for layer in self.initial:
            layer.build((None, width))
        fed = self.outputs if self.mode in ("free_running", "teacher_forced") else 0
        self.decoder.build((None, None, width + fed), memory_shape)
        self.readout.build((None, None, self.decoder.units))

    def call(self, code, real=None, memory=None, given=None, training=None):
        if real is None:
            return self.call(code, ops.ones_like(code[:, :1], "bool"), training=training)[:, 0]
        initial = [layer(code) for layer in self.initial]
        if self.mode == "free_running" or (self.mode == "teacher_forced" and given is None):
            return self._by_itself(code, real, memory, initial, training)
        turned = ops.flip(real, 1) if self.mode == "reversed" else real
        x = code[:, None] * ops.cast(ops.ones_like(real), code.dtype)[..., None]
        if self.mode == "teacher_forced":
            x = ops.concatenate([x, step_before(self._as_said(given), real)], axis=-1)
        states = self.decoder(
            x,
            memory=memory,
            initial_state=initial,
            memory_mask=real if self.looks else None,
            target_mask=turned,
            training=training,
        )  # (batch, time, units)
        y = self.readout(states)
        return ops.flip(y, 1) if self.mode == "reversed" else y

    def _by_itself(self, code, real, memory, initial, training):
        decoder = self.decoder
        kernels = decoder.kernels()
        source, drops = decoder.source(memory, real, kernels), decoder.drops(code, training)

        def body(carry, real):
            state, said = carry
            fed = decoder.feed(ops.concatenate([code, said], axis=-1), kernels)
            output, after, _ = decoder.step_of(fed, DecoderState(*state), source, kernels, drops)
            carry = kept(real, (tuple(after), self.readout(output)), carry)
            return carry, carry[1]

        nothing = ops.zeros((ops.shape(code)[0], self.outputs), code.dtype)
        carry = tuple(decoder.begin(initial)), nothing
        return over_steps(body, carry, real, self.outputs, self.compute_dtype)

    def _as_said(self, given):
        """The truth as it would be said: readings, or a probability of 1 for each token."""
        if len(given.shape) == 3:
            return given
        return ops.one_hot(given, self.outputs, dtype=self.compute_dtype)

    def compute_mask(self, code, previous_mask=None):
        return None

    def compute_output_shape(self, code_shape, real_shape=None, **_):
        return (*(code_shape[:1] if real_shape is None else real_shape), self.outputs)

    def get_config(self) -> dict[str, Any]:
        names = ("units", "cell", "num_layers", "attention", "num_heads", "dropout", "seed")
        inner = self.decoder.get_config()
        return (
            super().get_config()
            | {name: inner[name] for name in (*names, "recurrent_regularizer")}
            | {"outputs": self.outputs, "mode": self.mode}
            | {"activation": keras.activations.serialize(self.readout.activation)}
        )


def step_before(x, real):
    """Of each step the real one before it; zeros where there is none.

    Args:
        x: `(batch, time, features)`.
        real: bool `(batch, time)`.
    """
    steps = ops.shape(x)[1]
    # Real steps first, in their order: the one before the n-th of them is number n - 1.
    places = ops.arange(steps) + ops.where(real, 0, steps)
    order = ops.argsort(places, axis=1)
    number = ops.cumsum(ops.cast(real, "int32"), axis=1) - 2
    before = ops.take_along_axis(order, ops.maximum(number, 0), axis=1)
    found = ops.take_along_axis(x, before[..., None], axis=1)
    return ops.where(number[..., None] >= 0, found, ops.zeros_like(found))
