"""Packed models: several models of one kind that run as one model.

The models are called members. They may differ in their weights and in their number of units. A
packed layer holds the units of all members next to each other. Its kernel is block-diagonal: one
block per member, and zeros elsewhere that have no gradient, so that members do not affect each
other. Members with different numbers of units need no padding, and the matrix products are large:
on a CPU this is ten times faster than a batch of small products.

Shapes: the output of a layer is `(..., members, width)` if its width does not depend on the number
of units, else `(..., units of all members)`. A bidirectional layer outputs the units of all members
of the forward direction, then those of the backward direction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_seqzoo import layers
from keras_seqzoo.layers.custom_gradient import custom_gradient
from keras_seqzoo.layers.rnn import bptt
from keras_seqzoo.tuning.vectorized import philox
from keras_seqzoo.utils import compat

_NUM_GATES: dict[type, int] = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}
_WEIGHTS_WITH_ROWS = ("kernel", "recurrent_kernel", "context")  # the other weights are biases
_SEED_MODULUS = 2**31 - 2  # Keras reduces seeds by this modulus
# Layers without trainable weights that act on each feature by itself.
_UNCHANGED_LAYERS = (layers.Normalization, layers.StepMask, layers.ApplyMask)
_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


class PackedWeights(NamedTuple):
    """Packed trainable weights, as arrays or tensors; one element per weight.

    Attributes:
        weights: block-diagonal kernels, and concatenated biases.
        rows: int, the member of each row, -1 for none; empty for biases.
        columns: int, the member of each column, -1 for none.
    """

    weights: list
    rows: list
    columns: list


class DropoutInputs(NamedTuple):
    """Rates and seeds of dropout in a training step.

    Attributes:
        rates: `(layers, members)`, for the layers in `PackedModel.dropout_layers`.
        seeds: int32 `(layers, members, 2)`, seeds of the first step.
        step: int, number of earlier steps.
        times: int `(members,)`, number of time steps in each member's own batch; None if all equal
            the number of time steps here.
    """

    rates: Any
    seeds: Any
    step: Any
    times: Any = None


@dataclasses.dataclass(frozen=True)
class _AxisSize:
    """Size of an axis of a member's weight: `constant + per_unit * units`."""

    constant: int
    per_unit: int

    @classmethod
    def infer(cls, sizes: Sequence[int], units: Sequence[int]) -> _AxisSize:
        """Infer it from the sizes in two models with those numbers of units."""
        per_unit = (sizes[1] - sizes[0]) // (units[1] - units[0]) if units[0] != units[1] else 0
        return cls(sizes[0] - per_unit * units[0], per_unit)

    def packed_size(self, members: int, units: int) -> int:
        """Size of the axis for that many members with that many units in all."""
        return members * self.constant + units * self.per_unit

    def positions(self, sizes: Sequence[int], units: int) -> list[np.ndarray]:
        """Indices of each member's entries on the packed axis; `units` are those of all members."""
        parts = max(self.per_unit, 1)
        ends = np.cumsum(sizes) // parts
        starts = np.arange(parts)[:, None] * units
        return [
            (starts + np.arange(end - size // parts, end)).reshape(-1)
            for size, end in zip(sizes, ends, strict=True)
        ]


class PackedModel:
    """Runs up to `members` members, with up to `units` units in all, in the graph of `model`.

    Args:
        model: a Functional model without an `obstacle`, with every regularizer and dropout layer
            that a member can have.
        wider_model: the same model with more units; `model` itself if all members have the same
            number of units.
        model_units: numbers of units of `model` and `wider_model`.
        members: int, largest number of members.
        units: int, largest number of units of all members.
    """

    def __init__(
        self,
        model: keras.Model,
        wider_model: keras.Model,
        model_units: tuple[int, int],
        *,
        members: int,
        units: int,
    ):
        self.model, self.members, self.units = model, members, units
        self.variables = model.trainable_variables
        self._index = {id(variable): index for index, variable in enumerate(self.variables)}
        self._gates = [1] * len(self.variables)
        for layer in model.layers:
            for variable in layer.trainable_variables:
                gates = _NUM_GATES.get(type(_forward_layer(layer)), 1)
                self._gates[self._index[id(variable)]] = gates
        self._regularized = {
            index for index, variable in enumerate(self.variables) if variable.regularizer
        }
        self.dropout_layers = [
            layer.name for layer in model.layers if _dropout_of(layer) is not None
        ]
        self._rows: list[_AxisSize | None] = []
        self._columns: list[_AxisSize] = []
        pairs = zip(self.variables, wider_model.trainable_variables, strict=True)
        for index, pair in enumerate(pairs):
            shapes = [tuple(variable.shape) for variable in pair]
            gates = self._gates[index]
            self._columns.append(
                _AxisSize.infer([shape[-1] // gates for shape in shapes], model_units)
            )
            rows = None
            if pair[0].name in _WEIGHTS_WITH_ROWS:
                rows = _AxisSize.infer([shape[0] for shape in shapes], model_units)
            self._rows.append(rows)

    @staticmethod
    def obstacle(model: keras.Model, wider_model: keras.Model) -> str | None:
        """Why models like these cannot be packed, or None.

        The checks stay in one function, as a list that is read from top to bottom.
        """
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return "it has several inputs or outputs"
        for layer, other in zip(model.layers, wider_model.layers, strict=True):
            varies = tuple(layer.output.shape) != tuple(other.output.shape)
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if type(layer) in _UNCHANGED_LAYERS:
                if varies:
                    return f"layer {layer.name!r} has statistics for each unit"
                continue
            if type(_forward_layer(layer)) in _NUM_GATES:
                forward_layer = _forward_layer(layer)
                if forward_layer.implementation_path != "fused" or forward_layer.stateful:
                    return f"layer {layer.name!r} keeps state, or has no fused kernel"
                call = compat.inbound_nodes(layer)[0].arguments
                if len(call.args) > 1 or call.kwargs.get("initial_state") is not None:
                    return f"layer {layer.name!r} has an initial state"
                if forward_layer.go_backwards:
                    return f"layer {layer.name!r} runs backwards"
                if forward_layer is not layer and not _concatenates(layer):
                    return f"layer {layer.name!r} does not concatenate two equal directions"
            elif type(layer) is layers.Pooling:
                pass
            elif type(layer) is keras.layers.Dropout:
                if layer.noise_shape is not None:
                    return f"layer {layer.name!r} has a noise shape"
            elif type(layer) is not keras.layers.Dense:
                return f"there is no rule for {type(layer).__name__}"
            elif varies and layer.activation is keras.activations.softmax:
                return f"the activation of layer {layer.name!r} mixes units"
            if layer.compute_dtype != layer.variable_dtype:
                return f"layer {layer.name!r} mixes precisions"
            if len(layer.trainable_variables) != len(layer.weights):
                return f"layer {layer.name!r} has weights that are not trained"
            if any(variable.constraint for variable in layer.trainable_variables):
                return f"layer {layer.name!r} has a constraint"
            if getattr(layer, "activity_regularizer", None):
                return f"layer {layer.name!r} regularizes its activity"
        for variable in model.trainable_variables:
            regularizer = variable.regularizer
            if regularizer and type(regularizer) not in _REGULARIZERS:
                return f"there is no rule for {type(regularizer).__name__}"
        return None

    def units_of(self, model: keras.Model) -> int:
        """Number of units of a member."""
        for index, size in enumerate(self._columns):
            if size.per_unit:
                width = model.trainable_variables[index].shape[-1] // self._gates[index]
                return (width - size.constant) // size.per_unit
        return 0

    def covers(self, model: keras.Model) -> bool:
        """Whether `model` has every regularizer and dropout layer of a member."""
        return all(
            index in self._regularized
            for index, variable in enumerate(model.trainable_variables)
            if variable.regularizer
        ) and {layer.name for layer in model.layers if _dropout_of(layer)} <= {*self.dropout_layers}

    # Packing and unpacking.

    def pack(self, members: Sequence[Sequence[np.ndarray]]) -> PackedWeights:
        """Pack the trainable weights of members."""
        pack = PackedWeights([], [], [])
        for index, gates in enumerate(self._gates):
            blocks = [member[index] for member in members]
            shape = self._packed_shape(index, blocks[0].shape)
            packed = np.zeros((*shape[:-1], gates, shape[-1]), blocks[0].dtype)
            rows = np.full(0 if self._rows[index] is None else shape[0], -1, np.int32)
            columns = np.full((gates, shape[-1]), -1, np.int32)
            indices = self._block_indices(index, blocks)
            for member, (block, block_index) in enumerate(zip(blocks, indices, strict=True)):
                packed[block_index] = _split_gates(block, gates)
                columns[:, block_index[-1].reshape(-1)] = member
                if len(rows):
                    rows[block_index[0].reshape(-1)] = member
            pack.weights.append(packed.reshape(*shape[:-1], -1))
            pack.rows.append(rows)
            pack.columns.append(columns.reshape(-1))
        return pack

    def unpack(
        self, packed: Sequence[np.ndarray], members: Sequence[Sequence[np.ndarray]]
    ) -> list[list[np.ndarray]]:
        """Inverse of `pack`: the weights of each member; `members` has the shapes."""
        unpacked: list[list[np.ndarray]] = [[] for _ in members]
        for index, (weight, gates) in enumerate(zip(packed, self._gates, strict=True)):
            blocks = [member[index] for member in members]
            weight = _split_gates(weight, gates)
            indices = self._block_indices(index, blocks)
            for block_index, block, member in zip(indices, blocks, unpacked, strict=True):
                member.append(weight[block_index].reshape(block.shape))
        return unpacked

    def _packed_shape(self, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a packed weight with a last axis of one gate."""
        sizes = (self.members, self.units)
        rows, columns = self._rows[index], self._columns[index]
        front = shape[:-1] if rows is None else (rows.packed_size(*sizes),)
        return (*front, columns.packed_size(*sizes))

    def _block_indices(self, index: int, blocks: Sequence[np.ndarray]) -> list[tuple]:
        """Index of each member's block in a packed weight whose last axes are gates and columns."""
        row_size, gates = self._rows[index], np.arange(self._gates[index])
        widths = [block.shape[-1] // len(gates) for block in blocks]
        columns = self._columns[index].positions(widths, self.units)
        if row_size is None:
            return [(..., column) for column in columns]
        rows = row_size.positions([len(block) for block in blocks], self.units)
        return [np.ix_(row, gates, column) for row, column in zip(rows, columns, strict=True)]

    def regularizer_strengths(self, model: keras.Model) -> np.ndarray:
        """L1 and L2 strength of each trainable weight of a member, `(weights, 2)`."""
        strengths = np.zeros((len(self.variables), 2))
        for index, variable in enumerate(model.trainable_variables):
            if variable.regularizer:
                strengths[index] = [
                    getattr(variable.regularizer, name, 0.0) for name in ("l1", "l2")
                ]
        return strengths

    def dropout_settings(self, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
        """Dropout rates `(layers,)` and seeds `(layers, 2)` of a member."""
        layers_count = len(self.dropout_layers)
        rates, seeds = np.zeros(layers_count), np.zeros((layers_count, 2), np.int32)
        settings = {layer.name: _dropout_of(layer) for layer in model.layers}
        for index, name in enumerate(self.dropout_layers):
            setting = settings.get(name)
            if setting is not None:
                rates[index], generator = setting
                seeds[index] = keras.ops.convert_to_numpy(generator.state) % _SEED_MODULUS
        return rates, seeds

    # In the graph.

    @staticmethod
    def block_masks(rows: Sequence, columns: Sequence, dtype) -> list:
        """For each weight a mask that is 1 inside the blocks of the members and 0 elsewhere."""
        masks = []
        for row_members, column_members in zip(rows, columns, strict=True):
            mask = column_members >= 0
            if row_members.shape[0]:
                mask = mask & (row_members[:, None] == column_members)
            masks.append(tf.cast(mask, dtype))
        return masks

    def sum_by_member(self, values, columns):
        """Sum a tensor with the shape of a weight over each member's columns -> `(members,)`."""
        if len(values.shape) > 1:
            values = tf.reduce_sum(values, range(len(values.shape) - 1))
        return tf.linalg.matvec(
            tf.one_hot(columns, self.members, axis=0, dtype=values.dtype), values
        )

    @staticmethod
    def expand_to_columns(values, columns):
        """Repeat the value of each member for its columns, `(members,)` -> `(columns,)`."""
        return tf.gather(values, tf.maximum(columns, 0))

    def penalty(self, weights: Sequence, columns: Sequence, strengths):
        """Regularization penalty of each member; `strengths` are `(weights, members, 2)`."""
        total = tf.zeros((self.members,), weights[0].dtype)
        for index in sorted(self._regularized):
            for kind, values in enumerate((tf.abs(weights[index]), weights[index] ** 2)):
                total += strengths[index, :, kind] * self.sum_by_member(values, columns[index])
        return total

    def __call__(
        self,
        weights: Sequence,
        columns: Sequence,
        x,
        *,
        dropout: DropoutInputs | None = None,
        states: dict[str, Sequence] | None = None,
        record: dict[str, tuple] | None = None,
    ):
        """Run all members.

        Args:
            weights: `PackedWeights.weights`.
            columns: `PackedWeights.columns`.
            x: `(batch, time, members, features)`.
            dropout: rates and seeds in training; None in inference.
            states: initial states by the name of the recurrent layer, `(batch, units)` each;
                default zeros.
            record: a dict that is filled with the states of each recurrent layer before the first
                step and after each step, `(time + 1, batch, units)`.

        Returns:
            `(batch, [time,] members, width)`.
        """
        training = dropout is not None

        def call(layer, x, *inputs, mask=None, **_):
            if type(layer) is keras.layers.Dense:
                return self._dense(layer, weights, x)
            if type(layer) is keras.layers.Dropout:
                return self._dropout(layer, columns, x, dropout)
            if type(layer) is layers.Pooling:
                return self._pooling(layer, weights, columns, x, mask)
            if type(layer) is layers.Bidirectional:
                return self._bidirectional(layer, weights, columns, x, mask, training)
            if type(layer) in _NUM_GATES:
                if dropout is not None and layer.name in self.dropout_layers:
                    first_step = tf.ones_like(x[:, 0])  # one mask for all steps, as in Keras
                    x = x * self._dropout(layer, columns, first_step, dropout)[:, None]
                return self._recurrent(layer, weights, columns, x, mask, training, states, record)
            return layer.call(x, *inputs)

        return compat.run_through_graph(self.model, [x], call)

    def _weight_index(self, variable) -> int:
        return self._index[id(variable)]

    def _merge_members(self, x, index: int):
        """Inputs of a weight, with the features of all members on one axis."""
        size = self._rows[index]
        if size is None or size.per_unit:
            return x
        return tf.reshape(x, (*_sizes(x)[:-2], x.shape[-2] * x.shape[-1]))

    def _split_members(self, y, index: int):
        """Outputs of a weight, with an axis of members if their width does not depend on units."""
        size = self._columns[index]
        if size.per_unit:
            return y
        return tf.reshape(y, (*_sizes(y)[:-1], self.members, size.constant))

    def _dense(self, layer, weights, x):
        index = self._weight_index(layer.kernel)
        y = tf.tensordot(self._merge_members(x, index), weights[index], 1)
        if layer.bias is not None:
            y = y + weights[self._weight_index(layer.bias)]
        return layer.activation(self._split_members(_replace_overflow(y), index))

    def _dropout(self, layer, columns, x, dropout: DropoutInputs | None):
        """`tf.nn.experimental.stateless_dropout` with the random numbers of each single member."""
        if dropout is None:
            return x
        position = self.dropout_layers.index(layer.name)
        members, widths, features = self._input_layout(layer, columns, x)
        rate = tf.gather(dropout.rates[position], members)
        seeds = (dropout.seeds[position] + [0, dropout.step]) % _SEED_MODULUS
        # Index of each element in the flattened input of the single member, which has the width of
        # that member and the number of time steps of its batch.
        sizes, axes = _sizes(x), len(members.shape)
        front = sizes[:-axes]  # batch, or batch and time
        rows = tf.reshape(tf.range(front[0]), (-1, *[1] * (len(front) - 1 + axes)))
        if len(front) > 1:
            times = front[1] if dropout.times is None else tf.gather(dropout.times, members)
            rows = rows * times + tf.reshape(tf.range(front[1]), (-1, *[1] * axes))
        index = tf.broadcast_to(rows * widths + features, sizes)
        seeds = [
            tf.broadcast_to(tf.gather(seed, members), sizes) for seed in tf.unstack(seeds, axis=-1)
        ]
        kept = philox.uniform(seeds, index, x.dtype) >= rate
        return tf.where(kept, x / (1 - rate), 0)

    def _input_layout(self, layer, columns, x):
        """For each element of the last axis or axes of a layer's input: its member, the width of
        that member, and the index of the feature in that member.
        """
        producer = _producer(layer)
        source = None  # the weight whose columns the input has
        while source is None and not isinstance(producer, keras.layers.InputLayer):
            forward_layer = _forward_layer(producer)
            if type(forward_layer) is keras.layers.Dense:
                source = self._weight_index(forward_layer.kernel)
            elif type(forward_layer) in _NUM_GATES:
                source = self._weight_index(forward_layer.cell.recurrent_kernel)
            else:
                producer = _producer(producer)
        if source is None or not self._columns[source].per_unit:
            members = tf.tile(tf.range(self.members)[:, None], (1, x.shape[-1]))
            return members, x.shape[-1], tf.range(x.shape[-1])
        members = columns[source][: self.units]
        units = tf.reduce_sum(tf.one_hot(members, self.members, axis=0, dtype=tf.int32), 1)
        members = tf.maximum(members, 0)
        features = tf.range(self.units) - tf.gather(tf.cumsum(units, exclusive=True), members)
        directions = x.shape[-1] // self.units
        widths = tf.gather(units, members)
        features = tf.concat([direction * widths + features for direction in range(directions)], 0)
        widths = tf.tile(directions * widths, (directions,))
        return tf.tile(members, (directions,)), widths, features

    def _cell_weights(self, cell, weights) -> tuple:
        """Kernels and biases of a cell, as `bptt.run` expects them."""
        kernel = weights[self._weight_index(cell.kernel)]
        recurrent_kernel = weights[self._weight_index(cell.recurrent_kernel)]
        if cell.bias is None:
            return kernel, recurrent_kernel, tf.zeros_like(kernel[0]), None
        bias = weights[self._weight_index(cell.bias)]
        biases = (bias[0], bias[1]) if len(bias.shape) == 2 else (bias, None)
        return kernel, recurrent_kernel, *biases

    def _expand_mask(self, mask, cell, weights, columns):
        """Repeat a mask for units, `(batch, time, members)` -> `(batch, time, units)`."""
        if mask is None:
            return None
        index = self._weight_index(cell.recurrent_kernel)
        members = columns[index][: weights[index].shape[0]]
        return tf.gather(mask, tf.maximum(members, 0), axis=2)

    def _recurrent(self, layer: Any, weights, columns, x, mask, training, states, record):
        cell = layer.cell
        recurrent_index = self._weight_index(cell.recurrent_kernel)
        x = self._merge_members(x, self._weight_index(cell.kernel))
        units = weights[recurrent_index].shape[0]
        mask = self._expand_mask(mask, cell, weights, columns)
        if states is None:
            zeros = tf.zeros((_sizes(x)[0], units), x.dtype)
            initial = [zeros] * (2 if isinstance(layer, layers.LSTM) else 1)
        else:
            initial = states[layer.name]
        recurrence: Any = layer.fused_cell()
        recurrence = dataclasses.replace(recurrence, units=units)
        arguments = (recurrence, x, initial, *self._cell_weights(cell, weights))
        if record is None:
            steps, last = bptt.run(
                *arguments,
                mask=mask,
                keep_residuals=training,
                return_sequences=layer.return_sequences,
                contain_overflow=True,
            )
        else:
            record[layer.name] = histories = bptt.record_states(*arguments, mask=mask)
            steps = tf.transpose(histories[0][1:], (1, 0, 2)) if layer.return_sequences else None
            last = [history[-1] for history in histories]
        output, steps, _ = layer._outputs(steps, last, mask)
        return self._split_members(steps if layer.return_sequences else output, recurrent_index)

    def _bidirectional(self, layer, weights, columns, x, mask, training):
        """`layers.Bidirectional` of members with as many units in each direction."""
        forward: Any = layer.forward_layer
        cells = forward.cell, layer.backward_layer.cell
        x = self._merge_members(x, self._weight_index(cells[0].kernel))
        mask = self._expand_mask(mask, cells[0], weights, columns)
        directions = zip(*(self._cell_weights(cell, weights) for cell in cells), strict=True)
        stacked = [None if pair[0] is None else tf.stack(pair) for pair in directions]
        units = weights[self._weight_index(cells[0].recurrent_kernel)].shape[0]
        zeros = tf.zeros((2, _sizes(x)[0], units), x.dtype)
        steps, states = bptt.run(
            dataclasses.replace(forward.fused_cell(), units=units),
            x,
            [zeros] * (2 if isinstance(forward, layers.LSTM) else 1),
            *stacked,
            mask=mask,
            keep_residuals=training,
            return_sequences=layer.return_sequences,
            contain_overflow=True,
        )
        if steps is None:
            output = tf.concat((states[0][0], states[0][1]), -1)
        elif mask is None:
            output = steps
        else:
            output = tf.where(tf.concat((mask, mask), -1), steps, 0)
        if self._columns[self._weight_index(cells[0].recurrent_kernel)].per_unit:
            return output
        output = tf.reshape(output, (*_sizes(output)[:-1], 2, self.members, -1))
        output = tf.stack(tf.unstack(output, axis=-3), axis=-2)
        return tf.reshape(output, (*_sizes(output)[:-2], -1))

    def _pooling(self, layer, weights, columns, x, mask):
        """`layers.Pooling`, for each member over its own real steps."""
        has_units = len(x.shape) == 3  # else an axis of members
        if mask is None:
            real = tf.ones_like(x[..., :1], tf.bool)
        elif has_units:
            real = self._expand_to_units(mask, columns, x)
        else:
            real = mask[..., None]
        if layer.pooling == "max":
            lowest = tf.fill(_sizes(x), tf.constant(-np.inf, x.dtype))
            highest = tf.reduce_max(tf.where(real, x, lowest), 1)
            return tf.where(tf.reduce_any(real, 1), highest, 0)
        step_weights = tf.cast(real, x.dtype)
        if layer.pooling == "attention":
            index = self._weight_index(layer.kernel)
            keys = tf.tensordot(self._merge_members(x, index), weights[index], 1)
            keys = tf.tanh(_replace_overflow(keys) + weights[self._weight_index(layer.bias)])
            context = weights[self._weight_index(layer.context)]
            scores = tf.tensordot(keys, context, 1)  # (batch, time, members)
            if mask is not None:
                scores = tf.where(mask, scores, -1e4)
            scores = tf.exp(scores - tf.reduce_max(scores, 1, keepdims=True))
            if has_units:
                step_weights = step_weights * self._expand_to_units(scores, columns, x)
            else:
                step_weights = step_weights * scores[..., None]
        total = tf.maximum(tf.reduce_sum(step_weights, 1, keepdims=True), 1e-7)
        return tf.reduce_sum(step_weights / total * x, 1)

    def _expand_to_units(self, values, columns, x):
        """Repeat values for the units of `x`, `(..., members)` -> `(..., units)`."""
        index = next(index for index, size in enumerate(self._columns) if size.per_unit)
        members = tf.tile(columns[index][: self.units], (x.shape[-1] // self.units,))
        return tf.gather(values, tf.maximum(members, 0), axis=-1)


@custom_gradient
def _replace_overflow(y):
    """Replace overflow in the forward and the backward pass, so that it stays in one member."""

    def backward(upstream):
        return bptt.replace_overflow(upstream, bptt.LARGEST_GRADIENT)

    return bptt.replace_overflow(y, bptt.LARGEST_STATE), backward


def _producer(layer) -> keras.Layer:
    """The layer whose output is the first input of a layer."""
    return compat.keras_history(compat.inbound_nodes(layer)[0].input_tensors[0]).operation


def _forward_layer(layer) -> Any:
    """The forward layer of a bidirectional layer; any other layer itself."""
    return layer.forward_layer if type(layer) is layers.Bidirectional else layer


def _concatenates(layer) -> bool:
    """Whether two directions are equal in all but weights, and their outputs are concatenated."""
    inputs_dropped = layer.forward_layer.cell.dropout or layer.backward_layer.cell.dropout
    return layer.merge_mode == "concat" and not inputs_dropped and layer.fuses_directions(True)


def _dropout_of(layer) -> tuple[float, Any] | None:
    """Dropout rate of a layer and its seed generator; None if the layer has no dropout."""
    if type(layer) is keras.layers.Dropout and layer.rate:
        return layer.rate, layer.seed_generator
    if type(layer) in _NUM_GATES and layer.cell.dropout:
        return layer.cell.dropout, layer.cell.seed_generator
    return None


def _split_gates(weight: np.ndarray, gates: int) -> np.ndarray:
    """Split the last axis of a weight into gates and units."""
    return weight.reshape(*weight.shape[:-1], gates, weight.shape[-1] // gates)


def _sizes(x) -> list:
    """The shape of a tensor, with dynamic sizes where a static one is unknown."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]
