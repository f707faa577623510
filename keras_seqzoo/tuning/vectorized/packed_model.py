"""One graph that runs several members side by side.

Members are models of one kind that differ in weights and in units. Packed, a layer has the units of
all members next to one another, its kernels a block for each member, and zeros elsewhere; these
have no gradient, so that no member touches another. Units of any number fit without padding, and
the products are large: on a CPU ten times faster than a batch of small ones.

Tensors inside: where the width of a member does not depend on its units, `(..., members, width)`,
else `(..., units of all members)`; what is twice as wide as a member has units, as two directions
are, is two such parts, one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_seqzoo import layers
from keras_seqzoo.layers.custom_gradient import custom_gradient
from keras_seqzoo.layers.rnn import bptt
from keras_seqzoo.tuning.vectorized import philox
from keras_seqzoo.utils import compat

_RECURRENT = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}
_MATRICES = ("kernel", "recurrent_kernel", "context")  # weights that have rows; others are biases
_SEEDS = 2**31 - 2  # Keras takes seeds modulo this
# Without weights of their members' own, and working on the last axes alone.
_AS_THEY_ARE = (layers.Normalization, layers.StepMask, layers.ApplyMask)
_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


class Pack(NamedTuple):
    """What is packed, as arrays or tensors, one of each for every trainable weight.

    Attributes:
        weights: kernels of blocks, and biases.
        rows: the member that each row belongs to, -1 for none; of biases, empty.
        columns: the same of columns.
    """

    weights: list
    rows: list
    columns: list


class Dropping(NamedTuple):
    """What dropout needs in a step.

    Attributes:
        rates: `(layers, members)`, of `Packed.dropouts`.
        seeds: int32 `(layers, members, 2)`, of the first step.
        step: int, steps done.
        times: int `(members,)`, how long the batch of each is for itself; None where all are as
            long as they are here.
    """

    rates: Any
    seeds: Any
    step: Any
    times: Any = None


@dataclasses.dataclass(frozen=True)
class _Size:
    """An axis of a member's weight: `constant`, or `by_unit` parts of `units` each."""

    constant: int
    by_unit: int

    @classmethod
    def of(cls, sizes: Sequence[int], units: Sequence[int]) -> _Size:
        by_unit = (sizes[1] - sizes[0]) // (units[1] - units[0]) if units[0] != units[1] else 0
        return cls(sizes[0] - by_unit * units[0], by_unit)

    def of_all(self, members: int, units: int) -> int:
        return members * self.constant + units * self.by_unit

    def places(self, sizes: Sequence[int], of_all: int) -> list[np.ndarray]:
        """Where the entries of members of these sizes are, among those of `of_all` units."""
        parts = max(self.by_unit, 1)
        ends = np.cumsum(sizes) // parts
        starts = np.arange(parts)[:, None] * of_all
        return [
            (starts + np.arange(end - size // parts, end)).reshape(-1)
            for size, end in zip(sizes, ends, strict=True)
        ]


class Packed:
    """The graph of `model`, for up to `members` members of `units` units in all.

    Args:
        model: a Functional model of one input and one output, with every regularizer and dropout
            that a member can have; see `obstacle`.
        wider: one that differs in its units, unless all members have the same.
        model_units: of both.
        members: int.
        units: int.
    """

    def __init__(
        self,
        model: keras.Model,
        wider: keras.Model,
        model_units: tuple[int, int],
        *,
        members: int,
        units: int,
    ):
        self.model, self.members, self.units = model, members, units
        self.variables = model.trainable_variables
        self._index = {id(variable): at for at, variable in enumerate(self.variables)}
        self._gates = [1] * len(self.variables)
        for layer in model.layers:
            for variable in layer.trainable_variables:
                self._gates[self._index[id(variable)]] = _RECURRENT.get(type(_one_way(layer)), 1)
        self._regularized = {
            at for at, variable in enumerate(self.variables) if variable.regularizer
        }
        self.dropouts = [layer.name for layer in model.layers if _dropout_of(layer) is not None]
        self._rows: list[_Size | None] = []
        self._columns: list[_Size] = []
        for at, pair in enumerate(zip(self.variables, wider.trainable_variables, strict=True)):
            shapes = [tuple(one.shape) for one in pair]
            gates = self._gates[at]
            self._columns.append(_Size.of([shape[-1] // gates for shape in shapes], model_units))
            rows = None
            if pair[0].name in _MATRICES:
                rows = _Size.of([shape[0] for shape in shapes], model_units)
            self._rows.append(rows)

    @staticmethod
    def obstacle(model: keras.Model, wider: keras.Model) -> str | None:
        """Why models like these cannot be packed, or None."""
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return "it has several inputs or outputs"
        for layer, other in zip(model.layers, wider.layers, strict=True):
            varies = tuple(layer.output.shape) != tuple(other.output.shape)
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if type(layer) in _AS_THEY_ARE:
                if varies:
                    return f"layer {layer.name!r} would need statistics for each unit"
                continue
            if type(_one_way(layer)) in _RECURRENT:
                one = _one_way(layer)
                if one.implementation_path != "fused" or one.stateful:
                    return f"layer {layer.name!r} keeps state, or has no fused kernel"
                call = compat.inbound_nodes(layer)[0].arguments
                if len(call.args) > 1 or call.kwargs.get("initial_state") is not None:
                    return f"layer {layer.name!r} starts from a given state"
                if one.go_backwards:
                    return f"layer {layer.name!r} runs backwards"
                if one is not layer and not _concatenates(layer):
                    return f"layer {layer.name!r} does not put two like directions side by side"
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
        """Of the units in all, how many a member takes."""
        for at, size in enumerate(self._columns):
            if size.by_unit:
                width = model.trainable_variables[at].shape[-1] // self._gates[at]
                return (width - size.constant) // size.by_unit
        return 0

    def covers(self, model: keras.Model) -> bool:
        """Whether a member has no regularizer and no dropout that `model` of all lacks."""
        return all(
            at in self._regularized
            for at, variable in enumerate(model.trainable_variables)
            if variable.regularizer
        ) and {layer.name for layer in model.layers if _dropout_of(layer)} <= {*self.dropouts}

    # Members in and out.

    def pack(self, members: Sequence[Sequence[np.ndarray]]) -> Pack:
        """Puts the trainable weights of members side by side."""
        found = Pack([], [], [])
        for at, gates in enumerate(self._gates):
            blocks = [member[at] for member in members]
            shape = self._shape(at, blocks[0].shape)
            packed = np.zeros((*shape[:-1], gates, shape[-1]), blocks[0].dtype)
            rows = np.full(0 if self._rows[at] is None else shape[0], -1, np.int32)
            columns = np.full((gates, shape[-1]), -1, np.int32)
            for number, (block, place) in enumerate(
                zip(blocks, self._places(at, blocks), strict=True)
            ):
                packed[place] = _by_gate(block, gates)
                columns[:, place[-1].reshape(-1)] = number
                if len(rows):
                    rows[place[0].reshape(-1)] = number
            found.weights.append(packed.reshape(*shape[:-1], -1))
            found.rows.append(rows)
            found.columns.append(columns.reshape(-1))
        return found

    def unpack(
        self, packed: Sequence[np.ndarray], members: Sequence[Sequence[np.ndarray]]
    ) -> list[list[np.ndarray]]:
        """The weights of each member; `members` have the shapes. Undoes `pack`."""
        found: list[list[np.ndarray]] = [[] for _ in members]
        for at, (weight, gates) in enumerate(zip(packed, self._gates, strict=True)):
            blocks = [member[at] for member in members]
            weight = _by_gate(weight, gates)
            for place, block, member in zip(self._places(at, blocks), blocks, found, strict=True):
                member.append(weight[place].reshape(block.shape))
        return found

    def _shape(self, at: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of a packed weight, its last axis of one gate."""
        sizes = (self.members, self.units)
        rows, columns = self._rows[at], self._columns[at]
        front = shape[:-1] if rows is None else (rows.of_all(*sizes),)
        return (*front, columns.of_all(*sizes))

    def _places(self, at: int, blocks: Sequence[np.ndarray]) -> list[tuple]:
        """Where each block is, in a weight whose last axes are gates and columns."""
        places = []
        columns = self._columns[at]
        widths = [block.shape[-1] // self._gates[at] for block in blocks]
        for number, column in enumerate(columns.places(widths, self.units)):
            if self._rows[at] is None:
                places.append((..., column))
                continue
            rows = self._rows[at].places([len(block) for block in blocks], self.units)
            gates = np.arange(self._gates[at])
            places.append(np.ix_(rows[number], gates, column))
        return places

    def strengths(self, model: keras.Model) -> np.ndarray:
        """What `penalty` takes of a member: L1 and L2 of each trainable weight, `(weights, 2)`."""
        found = np.zeros((len(self.variables), 2))
        for at, variable in enumerate(model.trainable_variables):
            if variable.regularizer:
                found[at] = [getattr(variable.regularizer, name, 0.0) for name in ("l1", "l2")]
        return found

    def dropping(self, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
        """Of a member, rates `(layers,)` and seeds `(layers, 2)` of `Dropping`."""
        rates, seeds = np.zeros(len(self.dropouts)), np.zeros((len(self.dropouts), 2), np.int32)
        named = {layer.name: _dropout_of(layer) for layer in model.layers}
        for at, name in enumerate(self.dropouts):
            if named.get(name):
                rates[at], generator = named[name]
                seeds[at] = keras.ops.convert_to_numpy(generator.state) % _SEEDS
        return rates, seeds

    # In the graph.

    def own(self, pack: Pack, dtype) -> list:
        """1 within the members' blocks, 0 elsewhere; of the shape of each weight."""
        found = []
        for rows, columns in zip(pack.rows, pack.columns, strict=True):
            own = columns >= 0
            if rows.shape[0]:
                own = own & (rows[:, None] == columns)
            found.append(tf.cast(own, dtype))
        return found

    def by_member(self, values, columns):
        """Sums over each member's entries of something shaped like a weight -> `(members,)`."""
        if len(values.shape) > 1:
            values = tf.reduce_sum(values, range(len(values.shape) - 1))
        return tf.linalg.matvec(
            tf.one_hot(columns, self.members, axis=0, dtype=values.dtype), values
        )

    @staticmethod
    def by_column(values, columns):
        """Of each column the value of its member, `(members,)` -> `(columns,)`."""
        return tf.gather(values, tf.maximum(columns, 0))

    def penalty(self, weights: Sequence, columns: Sequence, strengths):
        """The regularizers' penalties, `(members,)`; `strengths` are `(weights, members, 2)`."""
        total = tf.zeros((self.members,), weights[0].dtype)
        for at in sorted(self._regularized):
            for kind, values in enumerate((tf.abs(weights[at]), weights[at] ** 2)):
                total += strengths[at, :, kind] * self.by_member(values, columns[at])
        return total

    def __call__(
        self,
        weights: Sequence,
        columns: Sequence,
        x,
        *,
        dropping: Dropping | None = None,
        states: dict[str, Sequence] | None = None,
        record: dict[str, tuple] | None = None,
    ):
        """Runs all members.

        Args:
            weights: of `Pack`.
            columns: of `Pack`.
            x: `(batch, time, members, features)`.
            dropping: what dropout needs, in training; None elsewhere.
            states: by recurrent layer, what to start from, `(batch, units)` each; default zeros.
            record: a dictionary that is filled, by recurrent layer, with all its states before the
                first step and after each, `(time + 1, batch, units)`.

        Returns:
            `(batch, [time,] members, width)`.
        """

        def run(operation) -> Callable:
            def rule(*args, **kwargs):
                if type(operation) is keras.layers.Dense:
                    return self._dense(operation, weights, *args)
                if type(operation) is keras.layers.Dropout:
                    return self._dropped(operation, columns, *args, dropping)
                if type(operation) is layers.Pooling:
                    return self._pooled(operation, weights, columns, *args, kwargs.get("mask"))
                if type(operation) is layers.Bidirectional:
                    return self._both_ways(
                        operation, weights, columns, *args, kwargs.get("mask"), dropping is not None
                    )
                if type(operation) in _RECURRENT:
                    (x,), mask = args, kwargs.get("mask")
                    if dropping is not None and operation.name in self.dropouts:
                        step = tf.ones_like(x[:, 0])
                        x = x * self._dropped(operation, columns, step, dropping)[:, None]
                    return self._recurrent(
                        operation, weights, columns, x, mask, dropping is not None, states, record
                    )
                return operation.call(*args)

            return rule

        return compat.run_through_graph(
            self.model, [x], lambda operation, *args, **kwargs: run(operation)(*args, **kwargs)
        )

    def _at(self, variable) -> int:
        return self._index[id(variable)]

    def _side_by_side(self, x, at: int):
        """Inputs of the weight's rows with all members on one axis."""
        if self._rows[at].by_unit:
            return x
        return tf.reshape(x, (*_sizes(x)[:-2], x.shape[-2] * x.shape[-1]))

    def _apart(self, y, at: int):
        """Outputs of the weight's columns with members on an axis of their own, if they can."""
        size = self._columns[at]
        if size.by_unit:
            return y
        return tf.reshape(y, (*_sizes(y)[:-1], self.members, size.constant))

    def _dense(self, layer, weights, x):
        at = self._at(layer.kernel)
        y = tf.tensordot(self._side_by_side(x, at), weights[at], 1)
        if layer.bias is not None:
            y = y + weights[self._at(layer.bias)]
        return layer.activation(self._apart(_contained(y), at))

    def _dropped(self, layer, columns, x, dropping: Dropping | None):
        """`tf.nn.experimental.stateless_dropout` with the numbers that the member has alone."""
        if dropping is None:
            return x
        at = self.dropouts.index(layer.name)
        owners, widths, local = self._columns_before(layer, columns, x)
        rate = tf.gather(dropping.rates[at], owners)
        seeds = (dropping.seeds[at] + [0, dropping.step]) % _SEEDS
        # Row by row, the place in a tensor of the member's own width, and of its batch's own time.
        sizes, axes = _sizes(x), len(owners.shape)
        front = sizes[:-axes]  # batch, or batch and time
        rows = tf.reshape(tf.range(front[0]), (-1, *[1] * (len(front) - 1 + axes)))
        if len(front) > 1:
            times = front[1] if dropping.times is None else tf.gather(dropping.times, owners)
            rows = rows * times + tf.reshape(tf.range(front[1]), (-1, *[1] * axes))
        index = tf.broadcast_to(rows * widths + local, sizes)
        seeds = [
            tf.broadcast_to(tf.gather(one, owners), sizes) for one in tf.unstack(seeds, axis=-1)
        ]
        kept = philox.uniform(seeds, index, x.dtype) >= rate
        return tf.where(kept, x / (1 - rate), 0)

    def _columns_before(self, layer, columns, x):
        """Of the last axis, or two, of the input: whose each is, how wide that one, and where."""
        before = _producer(layer)
        while not isinstance(before, keras.layers.InputLayer):
            one = _one_way(before)
            if type(one) is keras.layers.Dense or type(one) in _RECURRENT:
                dense = type(one) is keras.layers.Dense
                at = self._at(one.kernel if dense else one.cell.recurrent_kernel)
                owners, by_unit = columns[at], self._columns[at].by_unit
                break
            before = _producer(before)
        else:
            by_unit = 0
        if by_unit:
            whose = owners[: self.units]
            units = tf.reduce_sum(tf.one_hot(whose, self.members, axis=0, dtype=tf.int32), 1)
            whose = tf.maximum(whose, 0)
            local = tf.range(self.units) - tf.gather(tf.cumsum(units, exclusive=True), whose)
            parts = x.shape[-1] // self.units
            widths = tf.gather(units, whose)
            local = tf.concat([part * widths + local for part in range(parts)], 0)
            return tf.tile(whose, (parts,)), tf.tile(parts * widths, (parts,)), local
        owners = tf.tile(tf.range(self.members)[:, None], (1, x.shape[-1]))
        return owners, x.shape[-1], tf.range(x.shape[-1])

    def _weights_of(self, cell, weights) -> tuple:
        """Kernels and biases of a cell, as `bptt.run` takes them."""
        kernel, recurrent_kernel = (
            weights[self._at(one)] for one in (cell.kernel, cell.recurrent_kernel)
        )
        if cell.bias is None:
            return kernel, recurrent_kernel, tf.zeros_like(kernel[0]), None
        bias = weights[self._at(cell.bias)]
        biases = (bias[0], bias[1]) if len(bias.shape) == 2 else (bias, None)
        return kernel, recurrent_kernel, *biases

    def _by_unit(self, mask, cell, weights, columns):
        """A mask of members `(batch, time, members)` -> of units."""
        if mask is None:
            return None
        at = self._at(cell.recurrent_kernel)
        owners = columns[at][: weights[at].shape[0]]
        return tf.gather(mask, tf.maximum(owners, 0), axis=2)

    def _recurrent(self, layer, weights, columns, x, mask, training, states, record):
        cell = layer.cell
        inner = self._at(cell.recurrent_kernel)
        x = self._side_by_side(x, self._at(cell.kernel))
        units = weights[inner].shape[0]
        mask = self._by_unit(mask, cell, weights, columns)
        if states is None:
            zeros = tf.zeros((_sizes(x)[0], units), x.dtype)
            initial = [zeros] * (2 if isinstance(layer, layers.LSTM) else 1)
        else:
            initial = states[layer.name]
        recurrence = dataclasses.replace(layer.fused_cell(), units=units)
        arguments = (recurrence, x, initial, *self._weights_of(cell, weights))
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
            last = [one[-1] for one in histories]
        output, steps, _ = layer._outputs(steps, last, mask)
        return self._apart(steps if layer.return_sequences else output, inner)

    def _both_ways(self, layer, weights, columns, x, mask, training):
        """`layers.Bidirectional` of members that have as many units in either direction."""
        cells = layer.forward_layer.cell, layer.backward_layer.cell
        x = self._side_by_side(x, self._at(cells[0].kernel))
        mask = self._by_unit(mask, cells[0], weights, columns)
        both = zip(*(self._weights_of(cell, weights) for cell in cells), strict=True)
        both = [None if one[0] is None else tf.stack(one) for one in both]
        units = both[1].shape[-2]
        zeros = tf.zeros((2, _sizes(x)[0], units), x.dtype)
        steps, states = bptt.run(
            dataclasses.replace(layer.forward_layer.fused_cell(), units=units),
            x,
            [zeros] * (2 if isinstance(layer.forward_layer, layers.LSTM) else 1),
            *both,
            mask=mask,
            keep_residuals=training,
            return_sequences=layer.return_sequences,
            contain_overflow=True,
        )
        if steps is None:
            found = tf.concat((states[0][0], states[0][1]), -1)
        elif mask is None:
            found = steps
        else:
            found = tf.where(tf.concat((mask, mask), -1), steps, 0)
        if self._columns[self._at(cells[0].recurrent_kernel)].by_unit:
            return found
        found = tf.reshape(found, (*_sizes(found)[:-1], 2, self.members, -1))
        found = tf.stack(tf.unstack(found, axis=-3), axis=-2)
        return tf.reshape(found, (*_sizes(found)[:-2], -1))

    def _pooled(self, layer, weights, columns, x, mask):
        """`layers.Pooling`, each member over its own real steps."""
        unit_wide = len(x.shape) == 3
        if mask is None:
            real = tf.ones_like(x[..., :1], tf.bool)
        elif unit_wide:
            real = self._of_each_column(mask, columns, x)
        else:
            real = mask[..., None]
        if layer.pooling == "max":
            lowest = tf.fill(_sizes(x), tf.constant(-np.inf, x.dtype))
            highest = tf.reduce_max(tf.where(real, x, lowest), 1)
            return tf.where(tf.reduce_any(real, 1), highest, 0)
        share = tf.cast(real, x.dtype)
        if layer.pooling == "attention":
            at, inner = self._at(layer.kernel), self._at(layer.context)
            seen = tf.tensordot(self._side_by_side(x, at), weights[at], 1)
            seen = tf.tanh(_contained(seen) + weights[self._at(layer.bias)])
            scores = tf.tensordot(seen, weights[inner], 1)  # (batch, time, members)
            if mask is not None:
                scores = tf.where(mask, scores, -1e4)
            scores = tf.exp(scores - tf.reduce_max(scores, 1, keepdims=True))
            if unit_wide:
                share = share * self._of_each_column(scores, columns, x)
            else:
                share = share * scores[..., None]
        share = share / tf.maximum(tf.reduce_sum(share, 1, keepdims=True), 1e-7)
        return tf.reduce_sum(share * x, 1)

    def _of_each_column(self, values, columns, x):
        """`(..., members)` -> `(..., columns)` of something as wide as members have units."""
        at = next(at for at, size in enumerate(self._columns) if size.by_unit)
        owners = tf.tile(columns[at][: self.units], (x.shape[-1] // self.units,))
        return tf.gather(values, tf.maximum(owners, 0), axis=-1)


@custom_gradient
def _contained(y):
    """What overflows in one member, there or on the way back, must not reach the others."""

    def back(upstream):
        return bptt.replace_overflow(upstream, bptt.LARGEST_GRADIENT)

    return bptt.replace_overflow(y, bptt.LARGEST_STATE), back


def _producer(layer) -> keras.Layer:
    """The layer whose output is the first input of a layer."""
    return compat.keras_history(compat.inbound_nodes(layer)[0].input_tensors[0]).operation


def _one_way(layer):
    """The first of two directions; a layer itself that has one."""
    return layer.forward_layer if type(layer) is layers.Bidirectional else layer


def _concatenates(layer) -> bool:
    """Whether two directions are alike, and their outputs side by side."""
    inputs_dropped = layer.forward_layer.cell.dropout or layer.backward_layer.cell.dropout
    return layer.merge_mode == "concat" and not inputs_dropped and layer.fuses_directions(True)


def _dropout_of(layer) -> tuple[float, Any] | None:
    """A layer's rate and the generator of its seeds, if it drops anything out."""
    if type(layer) is keras.layers.Dropout and layer.rate:
        return layer.rate, layer.seed_generator
    if type(layer) in _RECURRENT and layer.cell.dropout:
        return layer.cell.dropout, layer.cell.seed_generator
    return None


def _by_gate(weight: np.ndarray, gates: int) -> np.ndarray:
    return weight.reshape(*weight.shape[:-1], gates, weight.shape[-1] // gates)


def _sizes(x) -> list:
    """The static sizes where they are known, else the dynamic ones."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]
