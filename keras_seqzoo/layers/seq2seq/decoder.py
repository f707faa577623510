"""Recurrent decoder with attention, over all steps of a target at once or step by step."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.export_scope import in_export_scope, scan
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.rnn.recurrent import GRU, LSTM, SimpleRNN
from keras_seqzoo.layers.seq2seq.attention import ATTENTIONS, SourceAttention
from keras_seqzoo.utils.argument_validation import check_bool, check_choice, check_rate, check_size

CELLS = {
    "linear": functools.partial(SimpleRNN, activation="linear"),
    "simple_rnn": SimpleRNN,
    "gru": GRU,
    "lstm": LSTM,
}


class AttentionMemory(NamedTuple):
    """Projections of the encoder's states, computed once for all steps; Nones without attention.

    A context is a weighted sum of values. Multiplying the values by a kernel here, once, replaces
    multiplying the context by it at every step of the target.

    Attributes:
        keys: of `SourceAttention.keys`.
        values: of `SourceAttention.keys`; multiplied by `Kernels.context_to_gates` for "additive",
            by `Kernels.context_to_output` for "dot" and "general".
        output_values: values multiplied by `Kernels.context_to_output`; None unless "additive".
        mask: `(batch, source)`, True for real steps.
    """

    keys: Any
    values: Any
    output_values: Any
    mask: Any


class Kernels(NamedTuple):
    """Parts of two kernels, that of the first recurrent layer ("gates") and that of `combine`.

    They are split once per call. The gradient of the split is then one concatenation, and XLA is
    slow at multiplying by a slice that is taken inside a loop.

    Attributes:
        input_to_gates: `(input_size, gates)`.
        context_to_gates: `(memory_size, gates)`; None unless attention is "additive".
        output_to_gates: `(units, gates)`; None without input feeding.
        context_to_output: `(memory_size, units)`; None without attention.
        state_to_output: `(units, units)`; None without attention.
        input_to_output: `(input_size, units)`; None unless attention is "additive".
    """

    input_to_gates: Any
    context_to_gates: Any
    output_to_gates: Any
    context_to_output: Any
    state_to_output: Any
    input_to_output: Any


class DecoderState(NamedTuple):
    """What a decoder carries from step to step.

    Attributes:
        recurrent: tuple of `(batch, units)`, states of all layers, the first layer's first.
        output: `(batch, units)`, the last output, with input feeding; otherwise ().
    """

    recurrent: tuple
    output: Any


@keras.saving.register_keras_serializable(package=PACKAGE)
class Decoder(keras.layers.Layer):
    """Recurrent layers over a target, with attention to a source before or after each step.

    Additive attention is computed before a step, from the previous state, and the context is an
    input of the step (Bahdanau et al.). The other kinds are computed after it, and the context goes
    into the output `tanh(W [context, state])` (Luong et al.), which `input_feeding` adds to the
    inputs of the next step. A step depends on earlier steps of the target alone. All steps of a
    known target are therefore run at once: in one pass where no output or context is fed back,
    otherwise in a loop. The outputs are those of `step`.

    Shapes: inputs `(batch, time, input_size)`, memory `(batch, source, memory)`, initial states
        `(batch, units)` each -> `(batch, time, units)`.
    Masking: `memory_mask` `(batch, source)`. Padding at the end of the target needs no mask, as it
        changes no step before it. For padding elsewhere pass `target_mask` `(batch, time)`: padded
        steps keep the state.
    State: none kept between calls; `step` takes and returns a `DecoderState`.

    Args:
        units: int, at least 1, size of each recurrent layer and of the output.
        cell: "linear" (a SimpleRNN without activation), "simple_rnn", "gru" or "lstm".
        num_layers: int, at least 1, stacked recurrent layers.
        attention: None, "additive", "dot", "general" or "multi_head"; see `SourceAttention`.
        num_heads: int, for "multi_head".
        input_feeding: bool, whether the output is an input of the next step; needs attention "dot",
            "general" or "multi_head".
        dropout: float in [0, 1), rate of the dropout between recurrent layers, with one mask for
            all steps.
        recurrent_regularizer: Keras regularizer of the recurrent kernels.
        seed: int or None, of the dropout.

    Raises:
        ArgumentError: if an argument is out of range, or `input_feeding` does not go with
            `attention`.

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
        recurrent_regularizer: Any = None,
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
                "`input_feeding` must be False unless attention is computed after each step "
                f"('dot', 'general' or 'multi_head'). Received: attention={attention!r}."
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
            self.source_attention = SourceAttention(
                attention, units, num_heads=num_heads, name="attention"
            )
            self.combine = keras.layers.Dense(units, "tanh", name="combine")

    @property
    def num_states(self) -> int:
        """Number of initial states that the decoder takes."""
        return self.num_layers * (2 if self.cell == "lstm" else 1)

    def build(self, inputs_shape, memory_shape=None, **_):
        gates_input = inputs_shape[-1]
        if self.attention is not None:
            if memory_shape is None:
                raise ArgumentError("`memory` must be given to a decoder with attention.")
            self.source_attention.build((None, None, self.units), memory_shape)
            combine_input = memory_shape[-1] + self.units
            if self.attention == "additive":
                combine_input += gates_input
                gates_input += memory_shape[-1]
            self.combine.build((None, None, combine_input))
            gates_input += self.units * self.input_feeding
        for number, layer in enumerate(self.recurrent):
            layer.build((None, None, self.units if number else gates_input))

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
        attended = self.project_memory(memory, memory_mask, kernels)
        dropout_masks = self.dropout_masks(inputs, training)
        if self.attention == "additive" or self.input_feeding:
            state = self.first_state(initial_state)
            if self._has_fused_loop:
                return self._fused_loop(inputs, target_mask, state, attended, kernels, training)
            loop = self._input_feeding_loop if self.input_feeding else self._additive_loop
            steps = self.project_inputs(inputs, kernels), target_mask
            return loop(steps, state, attended, kernels, dropout_masks)
        x, states = inputs, list(initial_state)
        per_layer = len(states) // self.num_layers
        for number, layer in enumerate(self.recurrent):
            initial = states[number * per_layer : (number + 1) * per_layer]
            x = layer(x, initial_state=initial, mask=target_mask)
            if dropout_masks is not None and number < self.num_layers - 1:
                x = x * dropout_masks[number][:, None]
        if self.attention is None:
            return x
        return self._combined_output(x, self._attend(x, attended, kernels)[0], kernels)

    def project_memory(self, memory, memory_mask, kernels: Kernels) -> AttentionMemory:
        """Computes what attention needs of the source, once for all steps.

        Args:
            memory: `(batch, source, memory)`, or None without attention.
            memory_mask: `(batch, source)`, or None.
            kernels: of `kernels`.
        """
        if self.attention is None:
            return AttentionMemory(None, None, None, None)
        (keys, values), output_values = self.source_attention.keys(memory), None
        if self.attention == "additive":
            output_values = ops.matmul(values, kernels.context_to_output)
            values = ops.matmul(values, kernels.context_to_gates)
        elif self.attention != "multi_head":
            values = ops.matmul(values, kernels.context_to_output)
        return AttentionMemory(keys, values, output_values, memory_mask)

    def first_state(self, initial_state) -> DecoderState:
        """The state before the first step.

        Args:
            initial_state: list of `num_states` tensors `(batch, units)`.
        """
        output = ops.zeros_like(initial_state[0]) if self.input_feeding else ()
        return DecoderState(tuple(initial_state), output)

    def project_inputs(self, x, kernels: Kernels):
        """Multiplies inputs by the kernels, for any number of steps; `step` takes the result.

        Args:
            x: `(..., input_size)`.
            kernels: of `kernels`.

        Returns:
            `(..., gates)`, or `(..., gates + units)` with additive attention.
        """
        gates = self._input_to_gates(x, kernels)
        if self.attention != "additive":
            return gates
        return ops.concatenate([gates, self._input_to_output(x, kernels)], axis=-1)

    def _input_to_gates(self, x, kernels: Kernels):
        bias = self.recurrent[0].cell.bias
        bias = bias[0] if self.cell == "gru" else bias
        return ops.matmul(self._cast(x), kernels.input_to_gates) + self._cast(bias)

    def _input_to_output(self, x, kernels: Kernels):
        return ops.matmul(self._cast(x), kernels.input_to_output) + self._cast(self.combine.bias)

    def kernels(self) -> Kernels:
        """The parts of the kernels, in the compute dtype."""
        input_to_gates = self._cast(self.recurrent[0].cell.kernel)
        context_to_gates = output_to_gates = None
        context_to_output = state_to_output = input_to_output = None
        if self.input_feeding:
            input_to_gates, output_to_gates = _split_rows(input_to_gates, -self.units)
        if self.attention is not None:
            memory_size, kernel = self.source_attention.memory_size, self._cast(self.combine.kernel)
            context_to_output, state_to_output = _split_rows(kernel, memory_size)
            if self.attention == "additive":
                input_to_gates, context_to_gates = _split_rows(input_to_gates, -memory_size)
                state_to_output, input_to_output = _split_rows(state_to_output, self.units)
        return Kernels(
            input_to_gates, context_to_gates, output_to_gates,
            context_to_output, state_to_output, input_to_output,
        )  # fmt: skip

    def step(self, projected, state: DecoderState, memory, kernels: Kernels, dropout_masks=None):
        """Runs one step.

        Args:
            projected: `(batch, ...)`, the inputs of the step as `project_inputs` returns them.
            state: `DecoderState`.
            memory: `AttentionMemory`. It may have fewer rows than `projected`: each is shared by
                as many adjacent rows.
            kernels: of `kernels`.
            dropout_masks: of `dropout_masks`, in training.

        Returns:
            The output `(batch, units)`, the next state, and attention weights `(batch, source)` or
            None.
        """
        arguments = projected, state, memory, kernels, dropout_masks
        h, context, recurrent, weights = self._run_cells(*arguments)
        output = h
        if self.attention is not None:
            if self.attention != "additive":
                context, weights = self._attend_step(h, memory, kernels)
            output = self._combined_output(h, context, kernels)
        return output, DecoderState(recurrent, output if self.input_feeding else ()), weights

    def _run_cells(self, projected, state: DecoderState, memory, kernels: Kernels, dropout_masks):
        """One step of the recurrent layers.

        Returns:
            The last layer's output; with additive attention, the share of context and input in the
            decoder's output, else None; the next states; and attention weights or None.
        """
        per_layer = len(state.recurrent) // self.num_layers
        gates, context, weights = projected, None, None
        if self.attention == "additive":
            contexts, weights = self._attend_step(state.recurrent[-per_layer], memory, kernels)
            total = projected + contexts
            gates, context = total[:, : -self.units], total[:, -self.units :]
        elif self.input_feeding:
            gates = projected + ops.matmul(state.output, kernels.output_to_gates)
        h, next_states = self._first_cell(gates, state.recurrent[:per_layer])
        for number, layer in enumerate(self.recurrent[1:], 1):
            if dropout_masks is not None:
                h = h * dropout_masks[number - 1]
            states = state.recurrent[number * per_layer : (number + 1) * per_layer]
            h, states = layer.cell(h, list(states))
            next_states += states
        return h, context, tuple(next_states), weights

    def _first_cell(self, gates, states):
        """One step of the first recurrent layer, from inputs already multiplied by its kernel."""
        cell = self.recurrent[0].cell
        recurrent = ops.matmul(states[0], self._cast(cell.recurrent_kernel))
        if self.cell in ("linear", "simple_rnn"):
            h = cell.activation(gates + recurrent)
            return h, [h]
        if self.cell == "lstm":
            i, f, g, o = ops.split(gates + recurrent, 4, axis=-1)
            c = ops.sigmoid(f) * states[1] + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            return h, [h, c]
        recurrent, units = recurrent + self._cast(cell.bias)[1], self.units
        z, r = ops.split(ops.sigmoid(gates[:, :-units] + recurrent[:, :-units]), 2, axis=-1)
        n = ops.tanh(gates[:, -units:] + r * recurrent[:, -units:])
        h = z * states[0] + (1 - z) * n
        return h, [h]

    def _attend_step(self, query, memory: AttentionMemory, kernels: Kernels):
        """`_attend` for one query per row; adjacent rows may share a source."""
        queries = ops.reshape(query, (ops.shape(memory.keys)[0], -1, query.shape[-1]))
        contexts, weights = self._attend(queries, memory, kernels)
        return tuple(ops.reshape(x, (-1, ops.shape(x)[-1])) for x in (contexts, weights))

    def _attend(self, queries, memory: AttentionMemory, kernels: Kernels):
        """Contexts, multiplied by the kernels that take them, and attention weights."""
        keys, values, output_values, mask = memory
        contexts, weights = self.source_attention.attend(queries, keys, values, mask)
        if self.attention == "multi_head":
            contexts = ops.matmul(contexts, kernels.context_to_output)
        if self.attention == "additive":
            contexts = ops.concatenate([contexts, ops.matmul(weights, output_values)], axis=-1)
        return self._cast(contexts), weights

    def _combined_output(self, h, context, kernels: Kernels):
        """`tanh(W [context, h])`; with additive attention, `tanh(W [context, h, input])`.

        Args:
            h: `(..., units)`, output of the last recurrent layer.
            context: `(..., units)`, the context multiplied by its part of `W`; with additive
                attention, plus the input multiplied by its part, and the bias.
            kernels: of `kernels`.
        """
        x = ops.matmul(h, kernels.state_to_output) + context
        if self.attention != "additive":
            x = x + self._cast(self.combine.bias)
        return ops.tanh(x)

    def _cast(self, x):
        """Casts to the compute dtype: `step` runs outside `call`, where Keras casts no weights."""
        return ops.cast(x, self.compute_dtype)

    def _input_feeding_loop(self, steps, state: DecoderState, *arguments):
        """Outputs of all steps, where each output is an input of the next step."""

        def body(carry, now):
            projected, real = now
            output, state, _ = self.step(projected, DecoderState(*carry), *arguments)
            return keep_padded_state(real, tuple(state), carry), output

        return scan_steps(body, tuple(state), steps, self.units, self.compute_dtype)

    def _additive_loop(self, steps, state: DecoderState, memory, kernels: Kernels, dropout_masks):
        """Outputs of all steps, where the context is an input of each; combined after the loop."""

        def body(carry, now):
            projected, real = now
            state = DecoderState(carry, ())
            h, context, new, _ = self._run_cells(projected, state, memory, kernels, dropout_masks)
            return keep_padded_state(real, new, carry), ops.concatenate([h, context], axis=-1)

        outputs = scan_steps(body, state.recurrent, steps, 2 * self.units, self.compute_dtype)
        return self._combined_output(*ops.split(outputs, 2, axis=-1), kernels=kernels)

    @property
    def _has_fused_loop(self) -> bool:
        """Whether `attention_rnn`, a loop with its own gradient, can run this decoder."""
        single = self.attention == "additive" and self.num_layers == 1
        return single and keras.backend.backend() == "tensorflow" and not in_export_scope()

    def _fused_loop(self, inputs, mask, state: DecoderState, memory, kernels: Kernels, training):
        """`_additive_loop` by `attention_rnn`."""
        from keras_seqzoo.layers.rnn import attention_rnn

        (layer,), attention = self.recurrent, self.source_attention
        parameters = layer.cell.recurrent_kernel, layer._biases()[1]
        parameters += attention.query_kernel, attention.bias, attention.score
        h, weights = attention_rnn.run(
            layer.fused_cell(),
            self._input_to_gates(inputs, kernels),
            memory.keys,
            memory.values,
            state.recurrent,
            *(None if weight is None else self._cast(weight) for weight in parameters),
            source_mask=memory.mask,
            mask=mask,
            keep_residuals=bool(training),
            jit_compile=layer.jit_compile and bool(training),
        )
        context = self._input_to_output(inputs, kernels) + ops.matmul(weights, memory.output_values)
        return self._combined_output(h, context, kernels)

    def dropout_masks(self, inputs, training):
        """Draws one mask for each gap between recurrent layers, the same at every step.

        Args:
            inputs: `(batch, ...)`.
            training: bool or None.

        Returns:
            `(num_layers - 1, batch, units)`; None outside training, or without dropout.
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


def _split_rows(kernel, index: int):
    """The rows of a kernel before `index`, and those from it on."""
    return ops.split(kernel, [index % kernel.shape[0]], axis=0)


def keep_padded_state(real, new, old) -> Any:
    """The new state at real steps, the old one at padded steps.

    Args:
        real: bool `(batch,)`, or None if all rows are real.
        new: tensors `(batch, ...)`, nested.
        old: the same.
    """
    if real is None:
        return new
    return tree.map_structure(lambda a, b: ops.where(real[:, None], a, b), new, old)


def scan_steps(body, carry, inputs, output_size: int, dtype: str) -> Any:
    """Runs `ops.scan` over the second axis; returns the outputs `(batch, time, output_size)`.

    Outputs need not have the structure of the carry, as `tf.scan` demands.

    Args:
        body: function from the carry and one step of `inputs` to the next carry and an output
            `(batch, output_size)`.
        carry: of the first step.
        inputs: tensors `(batch, time, ...)`, nested; Nones stay Nones.
        output_size: int.
        dtype: str, of outputs.
    """
    inputs = _map_tensors(lambda x: ops.swapaxes(x, 0, 1), inputs)
    if keras.backend.backend() != "tensorflow":
        return ops.swapaxes(scan(body, carry, inputs)[1], 0, 1)
    import tensorflow as tf

    first = tree.flatten(inputs)[0]
    num_steps = tf.shape(first)[0]
    output_shape = tf.TensorShape((first.shape[1], output_size))
    outputs = tf.TensorArray(dtype, num_steps, element_shape=output_shape)
    arrays = _map_tensors(
        lambda x: tf.TensorArray(x.dtype, num_steps, element_shape=x.shape[1:]).unstack(x), inputs
    )

    def step(index, carry, outputs):
        carry, output = body(carry, _map_tensors(lambda array: array.read(index), arrays))
        return index + 1, carry, outputs.write(index, output)

    _, _, outputs = tf.while_loop(
        lambda index, *_: index < num_steps,
        step,
        (0, carry, outputs),
        maximum_iterations=None if in_export_scope() else num_steps,
    )
    return ops.swapaxes(outputs.stack(), 0, 1)


def _map_tensors(function, nested):
    return tree.map_structure(lambda x: None if x is None else function(x), nested)
