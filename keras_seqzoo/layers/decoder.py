"""The recurrent part of a decoder, over all steps of a target at once or step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError, check_bool, check_choice, check_positive, check_rate
from keras_seqzoo.layers.attention import ATTENTIONS, SourceAttention
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.recurrent import GRU, LSTM, SimpleRNN


def _linear(units: int, **options: Any) -> SimpleRNN:
    return SimpleRNN(units, activation=None, **options)


CELLS = {"linear": _linear, "simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}


class Source(NamedTuple):
    """What a decoder looks at, computed once for all steps; Nones without attention.

    Attributes:
        keys: of `SourceAttention.keys`.
        values: the same.
        mask: `(batch, source)`, True for real steps.
    """

    keys: Any
    values: Any
    mask: Any


class DecoderState(NamedTuple):
    """What a decoder carries from step to step.

    Attributes:
        recurrent: tuple of `(batch, units)`, of all layers, the lowest first.
        output: `(batch, units)`, its last output; empty unless it is fed.
    """

    recurrent: tuple
    output: Any


@keras.saving.register_keras_serializable(package=PACKAGE)
class Decoder(keras.layers.Layer):
    """Recurrent layers over a target, which look at a source before or after each step.

    Additive attention looks before a step, with the state so far, and what it sees goes into the
    step (Bahdanau et al.); the other kinds look afterwards, and what they see goes into the output
    `tanh(W [context, state])` (Luong et al.), which `input_feeding` puts into the next step too.
    Only what comes before a step decides it, so that all steps of a known target can be run at
    once: in one pass where nothing is fed back, else in a loop. Either gives what `step` gives.

    Shapes: inputs `(batch, time, width)`, memory `(batch, source, memory)`, initial states
        `(batch, units)` each -> `(batch, time, units)`.
    Masking: `memory_mask` `(batch, source)`. Padding of the target belongs behind it, where it
        changes nothing before it; elsewhere `target_mask` `(batch, time)` tells it, and padded
        steps keep the state.
    State: none kept between calls; `begin` and `step` hand it out and take it back.

    Args:
        units: int, at least 1, of each recurrent layer, and of the output.
        cell: "linear", a SimpleRNN without activation, "simple_rnn", "gru" or "lstm".
        depth: int, at least 1, recurrent layers one upon the other.
        attention: None, "additive", "dot", "general" or "multi_head"; see `SourceAttention`.
        heads: int, of "multi_head".
        input_feeding: bool, whether the output goes into the next step; needs attention that looks
            afterwards.
        dropout: float in [0, 1), share of units between recurrent layers set to 0 in training, the
            same at every step.
        recurrent_regularizer: of the recurrent kernels.
        seed: int or None, of the dropout.

    Example:

    >>> from keras_seqzoo.layers import Decoder
    >>> decoder = Decoder(8, attention="general")
    >>> memory, start = np.zeros((2, 5, 6), "float32"), np.zeros((2, 8), "float32")
    >>> decoder(np.zeros((2, 3, 4), "float32"), memory=memory, initial_state=[start]).shape
    TensorShape([2, 3, 8])

    References: [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), section 3.1;
        [Luong et al., 2015](https://doi.org/10.18653/v1/D15-1166), equations 5 to 8, section 3.3;
        [Gal & Ghahramani, 2016](https://arxiv.org/abs/1512.05287), of the dropout
    """

    def __init__(
        self,
        units: int,
        *,
        cell: str = "gru",
        depth: int = 1,
        attention: str | None = None,
        heads: int = 4,
        input_feeding: bool = False,
        dropout: float = 0.0,
        recurrent_regularizer=None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(units=units, depth=depth)
        check_choice("cell", cell, CELLS)
        check_choice("attention", attention, (None, *ATTENTIONS))
        check_bool(input_feeding=input_feeding)
        check_rate(dropout=dropout)
        if input_feeding and attention in (None, "additive"):
            raise ArgumentError(
                "`input_feeding` must be False unless attention looks after each step ('dot', "
                f"'general' or 'multi_head'). Received: attention={attention!r}."
            )
        self.units, self.cell, self.depth, self.attention = units, cell, depth, attention
        self.heads, self.input_feeding, self.dropout = heads, input_feeding, dropout
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if dropout and depth > 1 else None
        self.recurrent = [
            CELLS[cell](
                units,
                return_sequences=True,
                recurrent_regularizer=self.recurrent_regularizer,
                name=f"recurrent_{number}",
            )
            for number in range(1, depth + 1)
        ]
        if attention is not None:
            self.look = SourceAttention(attention, units, heads=heads, name="attention")
            self.combine = keras.layers.Dense(units, "tanh", name="combine")

    @property
    def states(self) -> int:
        """How many initial states it takes."""
        return self.depth * (2 if self.cell == "lstm" else 1)

    def build(self, inputs_shape, memory_shape=None, **_):
        width = inputs_shape[-1]
        if self.attention is not None:
            if memory_shape is None:
                raise ArgumentError("`memory` must be given to a decoder with attention.")
            self.look.build((None, None, self.units), memory_shape)
            seen = memory_shape[-1] + self.units
            if self.attention == "additive":
                seen, width = seen + width, width + memory_shape[-1]
            self.combine.build((None, None, seen))
            width += self.units * self.input_feeding
        for number, layer in enumerate(self.recurrent):
            layer.build((None, None, self.units if number else width))

    def call(
        self,
        inputs,
        memory=None,
        initial_state=(),
        memory_mask=None,
        target_mask=None,
        training=None,
    ):
        source = self.source(memory, memory_mask)
        drops = self.drops(inputs, training)
        if self.attention == "additive" or self.input_feeding:
            return self._in_a_loop(inputs, target_mask, source, initial_state, drops)
        x, states = inputs, list(initial_state)
        each = len(states) // self.depth
        for number, layer in enumerate(self.recurrent):
            initial = states[number * each : (number + 1) * each]
            x = layer(x, initial_state=initial, mask=target_mask)
            if drops is not None and number < self.depth - 1:
                x = x * drops[number][:, None]
        return x if self.attention is None else self._looked(x, source)[0]

    def source(self, memory, memory_mask=None) -> Source:
        """What follows from the source alone.

        Args:
            memory: `(batch, source, memory)`, or None without attention.
            memory_mask: `(batch, source)`, or None.
        """
        if self.attention is None:
            return Source(None, None, None)
        return Source(*self.look.keys(memory), memory_mask)

    def begin(self, initial_state) -> DecoderState:
        """The state before the first step.

        Args:
            initial_state: list of `states` tensors `(batch, units)`.
        """
        output = ops.zeros_like(initial_state[0]) if self.input_feeding else ()
        return DecoderState(tuple(initial_state), output)

    def step(self, x, state: DecoderState, source: Source, drops=None):
        """One step.

        Args:
            x: `(batch, width)`.
            state: `DecoderState`.
            source: of `source`.
            drops: of training, what units between layers are multiplied by.

        Returns:
            The output `(batch, units)`, the state after, and the weights of attention
            `(batch, source)`, or None without.
        """
        each = len(state.recurrent) // self.depth
        given, weights = [x], None
        if self.attention == "additive":
            context, weights = self._look(state.recurrent[-each], source)
            given.append(context)
        elif self.input_feeding:
            given.append(state.output)
        h = ops.concatenate(given, axis=-1) if len(given) > 1 else x
        after: list[Any] = []
        for number, layer in enumerate(self.recurrent):
            before = list(state.recurrent[number * each : (number + 1) * each])
            h, states = layer.cell(h, before)
            after += states
            if drops is not None and number < self.depth - 1:
                h = h * drops[number]
        if self.attention == "additive":
            output = self.combine(ops.concatenate([context, h, x], axis=-1))
        elif self.attention is not None:
            output, weights = self._looked(h[:, None], source)
            output, weights = output[:, 0], weights[:, 0]
        else:
            output = h
        return output, DecoderState(tuple(after), output if self.input_feeding else ()), weights

    def _look(self, query, source: Source):
        contexts, weights = self.look.attend(query[:, None], *source)
        return contexts[:, 0], weights[:, 0]

    def _looked(self, h, source: Source):
        contexts, weights = self.look.attend(h, *source)
        return self.combine(ops.concatenate([contexts, h], axis=-1)), weights

    def _in_a_loop(self, inputs, target_mask, source: Source, initial_state, drops):
        def body(carry, given):
            output, state, _ = self.step(given[0], DecoderState(*carry), source, drops)
            return kept(given[1], tuple(state), carry), output

        state = self.begin(initial_state)
        first = ops.zeros_like(initial_state[0])
        return over_steps(body, tuple(state), (inputs, target_mask), first)

    def drops(self, inputs, training):
        """What `step` takes: one mask for each gap between layers, the same at every step.

        Args:
            inputs: `(batch, ...)`.
            training: bool or None; without, there are none.
        """
        if not training or self.seed_generator is None:
            return None
        shape = (self.depth - 1, ops.shape(inputs)[0], self.units)
        ones = ops.ones(shape, dtype=inputs.dtype)
        return keras.random.dropout(ones, self.dropout, seed=self.seed_generator)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, inputs_shape, **_):
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        names = ("units", "cell", "depth", "attention", "heads", "input_feeding", "dropout", "seed")
        return (
            super().get_config()
            | {name: getattr(self, name) for name in names}
            | {"recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer)}
        )


def kept(real, after, before):
    """The state after a step where it is real, else that before; a mask of None is all real."""
    if real is None:
        return after
    return tree.map_structure(lambda a, b: ops.where(real[:, None], a, b), after, before)


def over_steps(body, carry, inputs, like):
    """Outputs `(batch, time, ...)` of a loop over time: `ops.scan` with the batch in front.

    Args:
        body: from a carry and what `inputs` are at a step to the carry after, and an output.
        carry: of the first step.
        inputs: tensors `(batch, time, ...)`, nested; Nones stay Nones.
        like: a tensor that looks like an output. TensorFlow's own scan takes outputs to look like
            the carry.
    """
    inputs = _of_each(inputs, lambda x: ops.swapaxes(x, 0, 1))
    if keras.backend.backend() != "tensorflow":
        return ops.swapaxes(ops.scan(body, carry, inputs)[1], 0, 1)
    import tensorflow as tf

    length = tf.shape(tree.flatten(inputs)[0])[0]
    outputs = tf.TensorArray(like.dtype, length, element_shape=like.shape)
    arrays = _of_each(
        inputs, lambda x: tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x)
    )

    def step(count, carry, outputs):
        carry, output = body(carry, _of_each(arrays, lambda array: array.read(count)))
        return count + 1, carry, outputs.write(count, output)

    _, _, outputs = tf.while_loop(
        lambda count, *_: count < length,
        step,
        (0, carry, outputs),
        maximum_iterations=length,
    )
    return ops.swapaxes(outputs.stack(), 0, 1)


def _of_each(nested, function):
    return tree.map_structure(lambda one: None if one is None else function(one), nested)
