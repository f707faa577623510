"""The recurrent part of a decoder, over all steps of a target at once or step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.export_scope import in_export_scope, scan
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.rnn.recurrent import GRU, LSTM, SimpleRNN
from keras_seqzoo.layers.seq2seq.attention import ATTENTIONS, SourceAttention
from keras_seqzoo.utils.argument_validation import check_bool, check_choice, check_rate, check_size


def _linear(units: int, **options: Any) -> SimpleRNN:
    return SimpleRNN(units, activation=None, **options)


CELLS = {"linear": _linear, "simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}


class Source(NamedTuple):
    """What a decoder looks at, computed once for all steps; Nones without attention.

    Attributes:
        keys: of `SourceAttention.keys`.
        values: the same, multiplied by what contexts are multiplied with.
        shown: the same, by what additive attention's are for the output.
        mask: `(batch, source)`, True for real steps.
    """

    keys: Any
    values: Any
    shown: Any
    mask: Any


class Kernels(NamedTuple):
    """The kernels' parts, cut apart once: a gradient joins them again, and XLA multiplies slowly by
    what is cut out inside a loop.

    Attributes:
        fed: `(width, gates)`, what the lowest layer makes of the input.
        beside: `(width, units)`, what the output makes of it; None unless attention is additive.
        contexts: `(memory, size)`, what contexts are multiplied with, for the output, or, of
            additive attention, for the lowest layer; None without attention. A sum of products is
            the product of the sum, so that steps of the source are, once, in place of contexts at
            each step of the target.
        shown: `(memory, units)`, the same for the output; None unless attention is additive.
        combine: `(units, units)`, what the output makes of the state; None without attention.
        feedback: `(units, gates)`, what the lowest layer makes of the last output, or None.
    """

    fed: Any
    beside: Any
    contexts: Any
    shown: Any
    combine: Any
    feedback: Any


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
        num_layers: int, at least 1, recurrent layers one upon the other.
        attention: None, "additive", "dot", "general" or "multi_head"; see `SourceAttention`.
        num_heads: int, of "multi_head".
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
        num_layers: int = 1,
        attention: str | None = None,
        num_heads: int = 4,
        input_feeding: bool = False,
        dropout: float = 0.0,
        recurrent_regularizer=None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_size(units=units, num_layers=num_layers)
        check_choice("cell", cell, CELLS)
        check_choice("attention", attention, (None, *ATTENTIONS))
        check_bool(input_feeding=input_feeding)
        check_rate(dropout=dropout)
        if input_feeding and attention in (None, "additive"):
            raise ArgumentError(
                "`input_feeding` must be False unless attention looks after each step ('dot', "
                f"'general' or 'multi_head'). Received: attention={attention!r}."
            )
        self.units, self.cell, self.num_layers, self.attention = units, cell, num_layers, attention
        self.num_heads, self.input_feeding, self.dropout = num_heads, input_feeding, dropout
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.seed = seed
        self.seed_generator = (
            keras.random.SeedGenerator(seed) if dropout and num_layers > 1 else None
        )
        self.recurrent = [
            CELLS[cell](
                units,
                return_sequences=True,
                recurrent_regularizer=self.recurrent_regularizer,
                name=f"recurrent_{number}",
            )
            for number in range(1, num_layers + 1)
        ]
        if attention is not None:
            self.look = SourceAttention(attention, units, num_heads=num_heads, name="attention")
            self.combine = keras.layers.Dense(units, "tanh", name="combine")

    @property
    def states(self) -> int:
        """How many initial states it takes."""
        return self.num_layers * (2 if self.cell == "lstm" else 1)

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
        kernels = self.kernels()
        source = self.source(memory, memory_mask, kernels)
        drops = self.drops(inputs, training)
        if self.attention == "additive" or self.input_feeding:
            state = self.begin(initial_state)
            if self._has_own_loop:
                return self._in_own_loop(inputs, target_mask, source, state, kernels, training)
            run = self._looking_after if self.input_feeding else self._looking_before
            return run((self.feed(inputs, kernels), target_mask), source, state, kernels, drops)
        x, states = inputs, list(initial_state)
        each = len(states) // self.num_layers
        for number, layer in enumerate(self.recurrent):
            initial = states[number * each : (number + 1) * each]
            x = layer(x, initial_state=initial, mask=target_mask)
            if drops is not None and number < self.num_layers - 1:
                x = x * drops[number][:, None]
        if self.attention is None:
            return x
        return self._combined(x, self._looked(x, source, kernels)[0], kernels)

    def source(self, memory, memory_mask, kernels: Kernels) -> Source:
        """What follows from the source alone.

        Args:
            memory: `(batch, source, memory)`, or None without attention.
            memory_mask: `(batch, source)`, or None.
            kernels: of `kernels`.
        """
        if self.attention is None:
            return Source(None, None, None, None)
        (keys, values), shown = self.look.keys(memory), None
        if self.attention == "additive":
            shown = ops.matmul(values, kernels.shown)
        if self.attention != "multi_head":
            values = ops.matmul(values, kernels.contexts)
        return Source(keys, values, shown, memory_mask)

    def begin(self, initial_state) -> DecoderState:
        """The state before the first step.

        Args:
            initial_state: list of `states` tensors `(batch, units)`.
        """
        output = ops.zeros_like(initial_state[0]) if self.input_feeding else ()
        return DecoderState(tuple(initial_state), output)

    def feed(self, x, kernels: Kernels):
        """What steps make of their inputs alone, for any number of them; `step_of` takes it.

        Args:
            x: `(..., width)`.
            kernels: of `kernels`.

        Returns:
            `(..., size)`.
        """
        fed = self._fed(x, kernels)
        if self.attention != "additive":
            return fed
        return ops.concatenate([fed, self._beside(x, kernels)], axis=-1)

    def _fed(self, x, kernels: Kernels):
        bias = self.recurrent[0].cell.bias
        bias = bias[0] if self.cell == "gru" else bias
        return ops.matmul(self._cast(x), kernels.fed) + self._cast(bias)

    def _beside(self, x, kernels: Kernels):
        """What additive attention's output makes of the input."""
        return ops.matmul(self._cast(x), kernels.beside) + self._cast(self.combine.bias)

    def step(self, x, state: DecoderState, source: Source, drops=None):
        """One step.

        Args:
            x: `(batch, width)`.
            state: `DecoderState`.
            source: of `source`; of fewer rows, it is that of as many rows each, one after another.
            drops: of training, what units between layers are multiplied by.

        Returns:
            The output `(batch, units)`, the state after, and the weights of attention
            `(batch, source)`, or None without.
        """
        kernels = self.kernels()
        return self.step_of(self.feed(x, kernels), state, source, kernels, drops)

    def kernels(self) -> Kernels:
        """For all that follows from weights."""
        fed = self._cast(self.recurrent[0].cell.kernel)
        beside = contexts = shown = combine = feedback = None
        if self.input_feeding:
            fed, feedback = _cut(fed, -self.units)
        if self.attention is not None:
            contexts, combine = _cut(self._cast(self.combine.kernel), self.look.memory)
        if self.attention == "additive":
            shown, (fed, contexts) = contexts, _cut(fed, -self.look.memory)
            combine, beside = _cut(combine, self.units)
        return Kernels(fed, beside, contexts, shown, combine, feedback)

    def step_of(self, fed, state: DecoderState, source: Source, kernels: Kernels, drops=None):
        """`step`, with `feed(x)` in place of `x`."""
        h, context, recurrent, weights = self._advance(fed, state, source, kernels, drops)
        output = h
        if self.attention is not None:
            if self.attention != "additive":
                context, weights = self._look(h, source, kernels)
            output = self._combined(h, context, kernels)
        return output, DecoderState(recurrent, output if self.input_feeding else ()), weights

    def _advance(self, fed, state: DecoderState, source: Source, kernels: Kernels, drops):
        """The recurrent layers: the last one's output and the states after; and what additive
        attention makes of input and context for the output, and its weights.
        """
        each = len(state.recurrent) // self.num_layers
        projected, context, weights = fed, None, None
        if self.attention == "additive":
            contexts, weights = self._look(state.recurrent[-each], source, kernels)
            given = fed + contexts
            projected, context = given[:, : -self.units], given[:, -self.units :]
        elif self.input_feeding:
            projected = fed + ops.matmul(state.output, kernels.feedback)
        h, after = self._lowest(projected, state.recurrent[:each])
        for number, layer in enumerate(self.recurrent[1:], 1):
            if drops is not None:
                h = h * drops[number - 1]
            h, states = layer.cell(h, list(state.recurrent[number * each : (number + 1) * each]))
            after += states
        return h, context, tuple(after), weights

    def _lowest(self, projected, states):
        """A step of the lowest layer, whose input is multiplied by its kernel already."""
        cell = self.recurrent[0].cell
        inner = ops.matmul(states[0], self._cast(cell.recurrent_kernel))
        if self.cell in ("linear", "simple_rnn"):
            h = cell.activation(projected + inner)
            return h, [h]
        if self.cell == "lstm":
            i, f, g, o = ops.split(projected + inner, 4, axis=-1)
            c = ops.sigmoid(f) * states[1] + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            return h, [h, c]
        inner, units = inner + self._cast(cell.bias)[1], self.units
        z, r = ops.split(ops.sigmoid(projected[:, :-units] + inner[:, :-units]), 2, axis=-1)
        n = ops.tanh(projected[:, -units:] + r * inner[:, -units:])
        h = z * states[0] + (1 - z) * n
        return h, [h]

    def _look(self, query, source: Source, kernels: Kernels):
        """Contexts, multiplied by what contexts are multiplied with, and weights; rows of one
        source look at it together.
        """
        asked = ops.reshape(query, (ops.shape(source.keys)[0], -1, query.shape[-1]))
        contexts, weights = self._looked(asked, source, kernels)
        return tuple(ops.reshape(x, (-1, ops.shape(x)[-1])) for x in (contexts, weights))

    def _looked(self, queries, source: Source, kernels: Kernels):
        contexts, weights = self.look.attend(queries, source.keys, source.values, source.mask)
        if self.attention == "multi_head":
            contexts = ops.matmul(contexts, kernels.contexts)
        if self.attention == "additive":
            contexts = ops.concatenate([contexts, ops.matmul(weights, source.shown)], axis=-1)
        return self._cast(contexts), weights

    def _combined(self, h, context, kernels: Kernels):
        """`tanh(W [context, h])`, of additive attention with the input beside them."""
        x = ops.matmul(h, kernels.combine) + context
        if self.attention != "additive":
            x = x + self._cast(self.combine.bias)
        return ops.tanh(x)

    def _cast(self, x):
        """Steps are run outside of `call` too, where Keras does not cast weights."""
        return ops.cast(x, self.compute_dtype)

    def _looking_after(self, given, source: Source, state: DecoderState, kernels, drops):
        def body(carry, now):
            fed, real = now
            output, state, _ = self.step_of(fed, DecoderState(*carry), source, kernels, drops)
            return kept(real, tuple(state), carry), output

        return over_steps(body, tuple(state), given, self.units, self.compute_dtype)

    def _looking_before(self, given, source: Source, state: DecoderState, kernels, drops):
        def body(carry, now):
            fed, real = now
            state = DecoderState(carry, ())
            h, context, after, _ = self._advance(fed, state, source, kernels, drops)
            return kept(real, after, carry), ops.concatenate([h, context], axis=-1)

        found = over_steps(body, state.recurrent, given, 2 * self.units, self.compute_dtype)
        return self._combined(*ops.split(found, 2, axis=-1), kernels)

    @property
    def _has_own_loop(self) -> bool:
        """Whether there is a loop that has its own gradient."""
        single = self.attention == "additive" and self.num_layers == 1
        return single and keras.backend.backend() == "tensorflow" and not in_export_scope()

    def _in_own_loop(self, inputs, target_mask, source: Source, state, kernels, training):
        """As `_looking_before`."""
        from keras_seqzoo.layers.rnn import attention_rnn

        (layer,), look = self.recurrent, self.look
        own = layer.cell.recurrent_kernel, layer._biases()[1]
        own += look.query_kernel, look.bias, look.score
        h, weights = attention_rnn.run(
            layer.fused_cell(),
            self._fed(inputs, kernels),
            source.keys,
            source.values,
            state.recurrent,
            *(None if weight is None else self._cast(weight) for weight in own),
            source_mask=source.mask,
            mask=target_mask,
            keep_residuals=bool(training),
            jit_compile=layer.jit_compile and bool(training),
        )
        shown = self._beside(inputs, kernels) + ops.matmul(weights, source.shown)
        return self._combined(h, shown, kernels)

    def drops(self, inputs, training):
        """What `step` takes: one mask for each gap between layers, the same at every step.

        Args:
            inputs: `(batch, ...)`.
            training: bool or None; without, there are none.
        """
        if not training or self.seed_generator is None:
            return None
        shape = (self.num_layers - 1, ops.shape(inputs)[0], self.units)
        ones = ops.ones(shape, dtype=inputs.dtype)
        return keras.random.dropout(ones, self.dropout, seed=self.seed_generator)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, inputs_shape, **_):
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        names = (
            "units",
            "cell",
            "num_layers",
            "attention",
            "num_heads",
            "input_feeding",
            "dropout",
            "seed",
        )
        return (
            super().get_config()
            | {name: getattr(self, name) for name in names}
            | {"recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer)}
        )


def _cut(kernel, place: int):
    """Its rows before and after a place."""
    return ops.split(kernel, [place % kernel.shape[0]], axis=0)


def kept(real, after, before):
    """The state after a step where it is real, else that before; a mask of None is all real."""
    if real is None:
        return after
    return tree.map_structure(lambda a, b: ops.where(real[:, None], a, b), after, before)


def over_steps(body, carry, inputs, width: int, dtype: str):
    """Outputs `(batch, time, width)` of a loop over time: `ops.scan` with the batch in front, and
    outputs that need not look like the carry, as TensorFlow's would have to.

    Args:
        body: from a carry and what `inputs` are at a step to the carry after, and an output.
        carry: of the first step.
        inputs: tensors `(batch, time, ...)`, nested; Nones stay Nones.
        width: int, of an output `(batch, width)`.
        dtype: str, of outputs.
    """
    inputs = _of_each(inputs, lambda x: ops.swapaxes(x, 0, 1))
    if keras.backend.backend() != "tensorflow":
        return ops.swapaxes(scan(body, carry, inputs)[1], 0, 1)
    import tensorflow as tf

    first = tree.flatten(inputs)[0]
    length = tf.shape(first)[0]
    like = tf.TensorShape((first.shape[1], width))
    outputs = tf.TensorArray(dtype, length, element_shape=like)
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
        maximum_iterations=None if in_export_scope() else length,
    )
    return ops.swapaxes(outputs.stack(), 0, 1)


def _of_each(nested, function):
    return tree.map_structure(lambda one: None if one is None else function(one), nested)
