"""SimpleRNN, GRU, LSTM and Bidirectional: the layers of Keras with fused kernels for CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import check_bool, check_instance

if TYPE_CHECKING:
    from keras_seqzoo.layers.rnn.cells import Cell


class _FusedRNN(keras.layers.RNN):
    """Base of SimpleRNN, GRU and LSTM: when the fused kernel runs, and how it is called."""

    cell: Any
    use_cudnn: Any
    # Whether Keras has a cuDNN kernel for the layer.
    _has_cudnn_kernel = False
    # Whether the fused kernel is compiled by itself; see `compile_recurrences`.
    jit_compile = False

    @property
    def implementation_path(self) -> str:
        """The implementation that runs this layer.

        - "fused": the kernel of this package.
        - "keras": the loop of Keras. It runs on other backends than TensorFlow, and for
          `unroll=True`, `recurrent_dropout`, `dropout` with `implementation=1`, and activations
          that the fused kernel does not support.
        - "cudnn": the layer of Keras, which uses cuDNN where cuDNN supports the layer: GRU and LSTM
          on a machine with a GPU, unless `use_cudnn=False`.
        """
        if keras.backend.backend() != "tensorflow" or self.unroll or self.cell.recurrent_dropout:
            return "keras"
        if self.cell.dropout and getattr(self.cell, "dropout_mask_count", None):
            return "keras"
        if self._has_cudnn_kernel and self.use_cudnn and (self.use_cudnn is True or _on_gpu()):
            return "cudnn"
        return "fused" if self.fused_cell() else "keras"

    def fused_cell(self) -> Cell | None:
        """The cell that the fused kernel runs, or None where the kernel does not support it."""
        raise NotImplementedError

    def inner_loop(self, sequences, initial_state, mask, training=False):
        fused_cell = self.fused_cell() if self.implementation_path == "fused" else None
        if fused_cell is None:
            return super().inner_loop(sequences, initial_state, mask, training=training)
        cell = self.cell
        dropout_mask = cell.get_dropout_mask(sequences[:, 0, :]) if training else None
        if dropout_mask is not None:
            sequences = sequences * ops.expand_dims(dropout_mask, 1)
        if mask is not None:
            mask = ops.cast(mask[0] if isinstance(mask, list | tuple) else mask, "bool")
            mask = mask[..., 0] if len(mask.shape) == 3 else mask
        if self.go_backwards:
            sequences = ops.flip(sequences, 1)
            mask = None if mask is None else ops.flip(mask, 1)
        if not isinstance(initial_state, list | tuple):
            initial_state = [initial_state]
        bias, recurrent_bias = self._biases()
        steps, states = _bptt().run(
            fused_cell,
            sequences,
            initial_state,
            cell.kernel,
            cell.recurrent_kernel,
            bias,
            recurrent_bias,
            mask=mask,
            keep_residuals=bool(training),
            return_sequences=self.return_sequences,
            jit_compile=self.jit_compile and bool(training),
        )
        return self._outputs(steps, states, mask)

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        # Keras draws a mask in inference too, so that evaluation changes later training.
        if self.implementation_path != "fused":
            super()._maybe_config_dropout_masks(cell, input_sequence, input_state)

    def _biases(self):
        bias = self.cell.bias
        if bias is None:
            bias = ops.zeros(self.cell.kernel.shape[-1:], self.cell.compute_dtype)
        return bias, None

    def _outputs(self, steps, states, mask):
        """The outputs of Keras: the last one, those of all steps, and the last states.

        The output of a padded step is zero before the first real step, although the state is the
        initial one. Later it is the previous output, or zero with `zero_output_for_mask`.
        """
        last = states[0]
        if mask is not None:
            mask = mask if len(mask.shape) == 3 else mask[..., None]
            nonzero = ops.cumsum(ops.cast(mask, "int32"), 1) > 0
            if self.zero_output_for_mask:
                nonzero = mask
            last = ops.where(nonzero[:, -1], last, ops.zeros_like(last))
            if steps is not None:
                steps = ops.where(nonzero, steps, ops.zeros_like(steps))
        if steps is None:
            steps = ops.expand_dims(last, 1)
        return last, steps, list(states)


@keras.saving.register_keras_serializable(package=PACKAGE)
class SimpleRNN(_FusedRNN, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with a fused kernel, which is faster on a CPU.

    Arguments, weights, config and results are those of Keras, so that weights and checkpoints are
    interchangeable. `implementation_path` names the implementation that runs. The fused kernel
    supports the activations "tanh", "relu", "sigmoid" and "linear".

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: as in Keras, a padded step keeps the state and repeats the last output.
    State: zeros at the start, or `initial_state=[h]`. `return_state=True` also returns the last
        state. With `stateful=True` the state is kept between calls.

    Args:
        *args: those of `keras.layers.SimpleRNN`, `units` first.
        **kwargs: those of `keras.layers.SimpleRNN`.

    Raises:
        ValueError: as `keras.layers.SimpleRNN` does.

    Example:

    >>> from keras_seqzoo import layers
    >>> layer = layers.SimpleRNN(8, return_sequences=True)
    >>> layer(np.zeros((2, 50, 3))).shape, layer.implementation_path
    (TensorShape([2, 50, 8]), 'fused')

    Reference: [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def fused_cell(self) -> Cell | None:
        activation = _activation_name(self.cell.activation)
        return _cells().SimpleRNN(self.cell.units, activation) if activation else None


@keras.saving.register_keras_serializable(package=PACKAGE)
class GRU(_FusedRNN, keras.layers.GRU):
    """`keras.layers.GRU` with a fused kernel, which is faster on a CPU.

    Arguments, weights, config and results are those of Keras, so that weights and checkpoints are
    interchangeable. `implementation_path` names the implementation that runs. The fused kernel
    supports the default activations, with `reset_after=True` and `reset_after=False`.

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: as in Keras, a padded step keeps the state and repeats the last output.
    State: zeros at the start, or `initial_state=[h]`. `return_state=True` also returns the last
        state. With `stateful=True` the state is kept between calls.

    Args:
        *args: those of `keras.layers.GRU`, `units` first.
        **kwargs: those of `keras.layers.GRU`.

    Raises:
        ValueError: as `keras.layers.GRU` does.

    Example:

    >>> from keras_seqzoo import layers
    >>> layers.GRU(8, reset_after=False)(np.zeros((2, 50, 3))).shape
    TensorShape([2, 8])

    Reference: [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179)
    """

    _has_cudnn_kernel = True

    def fused_cell(self) -> Cell | None:
        if not _has_default_activations(self.cell):
            return None
        cells = _cells()
        return (cells.GRU if self.cell.reset_after else cells.GRUResetBefore)(self.cell.units)

    def _biases(self):
        if self.cell.bias is None or not self.cell.reset_after:
            return super()._biases()
        bias = ops.convert_to_tensor(self.cell.bias)
        return bias[0], bias[1]


@keras.saving.register_keras_serializable(package=PACKAGE)
class LSTM(_FusedRNN, keras.layers.LSTM):
    """`keras.layers.LSTM` with a fused kernel, which is faster on a CPU.

    Arguments, weights, config and results are those of Keras, so that weights and checkpoints are
    interchangeable. `implementation_path` names the implementation that runs. The fused kernel
    supports the default activations.

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: as in Keras, a padded step keeps both states and repeats the last output.
    State: zeros at the start, or `initial_state=[h, c]`. `return_state=True` also returns the last
        states. With `stateful=True` the states are kept between calls.

    Args:
        *args: those of `keras.layers.LSTM`, `units` first.
        **kwargs: those of `keras.layers.LSTM`.

    Raises:
        ValueError: as `keras.layers.LSTM` does.

    Example:

    >>> from keras_seqzoo import layers
    >>> output, h, c = layers.LSTM(8, return_state=True)(np.zeros((2, 50, 3)))
    >>> output.shape, c.shape
    (TensorShape([2, 8]), TensorShape([2, 8]))

    Reference: [Hochreiter & Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
    """

    _has_cudnn_kernel = True

    def fused_cell(self) -> Cell | None:
        return _cells().LSTM(self.cell.units) if _has_default_activations(self.cell) else None


@keras.saving.register_keras_serializable(package=PACKAGE)
class Bidirectional(keras.layers.Bidirectional):
    """`keras.layers.Bidirectional` that runs both directions in one loop.

    Arguments, weights, config and results are those of Keras, so that weights and checkpoints are
    interchangeable. The loops of Keras run for layers from outside this package, for layers that
    keep or return states, with `initial_state=`, and in training for layers with `dropout`.

    Shapes: `(batch, time, features)` -> `(batch, 2 * units)`, or `(batch, time, 2 * units)` if the
        layer has `return_sequences=True`. With `merge_mode` "sum", "mul" or "ave" the last axis is
        `units`, and with None there are two outputs.
    Masking: as in Keras, a padded step keeps the states and its output is zero.
    State: zeros at the start of both directions, or `initial_state=`.

    Args:
        *args: those of `keras.layers.Bidirectional`, the forward layer first.
        **kwargs: those of `keras.layers.Bidirectional`.

    Raises:
        ValueError: as `keras.layers.Bidirectional` does.

    Example:

    >>> from keras_seqzoo import layers
    >>> layer = layers.Bidirectional(layers.LSTM(8, return_sequences=True))
    >>> layer(np.zeros((2, 50, 3))).shape
    TensorShape([2, 50, 16])

    Reference: [Schuster & Paliwal, 1997](https://doi.org/10.1109/78.650093)
    """

    def call(self, sequences, initial_state=None, mask=None, training=None):
        if initial_state is not None or not self.fuses_directions(training):
            return super().call(sequences, initial_state, mask, training)
        directions: Any = (self.forward_layer, self.backward_layer)
        cell = directions[0].fused_cell()
        weights = [
            (layer.cell.kernel, layer.cell.recurrent_kernel, *layer._biases())
            for layer in directions
        ]
        zeros = ops.zeros((2, ops.shape(sequences)[0], cell.units), self.compute_dtype)
        steps, states = _bptt().run(
            cell,
            sequences,
            [zeros] * (2 if isinstance(directions[0], LSTM) else 1),
            *map(_stack, *weights),
            mask=mask,
            keep_residuals=bool(training),
            return_sequences=self.return_sequences,
        )
        if steps is None:
            return self._merge(states[0][0], states[0][1])
        if mask is not None:
            steps = ops.where(mask[..., None], steps, ops.zeros_like(steps))
        return steps if self.merge_mode == "concat" else self._merge(*ops.split(steps, 2, -1))

    def fuses_directions(self, training) -> bool:
        """Whether one fused loop can run both layers."""
        first, second = self.forward_layer, self.backward_layer
        if type(first) is not type(second):
            return False
        if not isinstance(first, _FusedRNN) or not isinstance(second, _FusedRNN):
            return False
        if first.go_backwards or first.return_state or first.stateful:
            return False
        # XLA runs the two loops in parallel if each is compiled by itself, and one loop serially.
        if training and first.jit_compile:
            return False
        if training and (first.cell.dropout or second.cell.dropout):
            return False
        alike = first.fused_cell() == second.fused_cell()
        alike = alike and first.cell.use_bias == second.cell.use_bias
        return alike and first.implementation_path == second.implementation_path == "fused"

    def _merge(self, first, second):
        if self.merge_mode == "concat":
            return ops.concatenate((first, second), -1)
        if self.merge_mode is None:
            return first, second
        if self.merge_mode == "mul":
            return first * second
        return (first + second) / (2 if self.merge_mode == "ave" else 1)


def compile_recurrences(model: keras.Model, jit_compile: bool = True) -> None:
    """Let XLA compile the recurrent layers of a model in training, each by itself.

    This is for models that `compile(jit_compile=True)` makes slower on a CPU, such as models that
    train a large embedding. XLA compiles once for each shape, so batches should have few different
    shapes. The setting is not saved with the model.

    Args:
        model: `keras.Model`. The setting applies to its recurrent layers of this package, nested
            ones included.
        jit_compile: bool.

    Raises:
        ArgumentError: if `model` is no `keras.Model` or `jit_compile` no bool.

    Example:

    >>> from keras_seqzoo import layers
    >>> model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(8)])
    >>> layers.compile_recurrences(model)
    >>> model.layers[0].jit_compile
    True
    """
    check_instance(keras.Model, model=model)
    check_bool(jit_compile=jit_compile)
    for layer in compat.flatten_layers(model):
        if isinstance(layer, _FusedRNN):
            layer.jit_compile = jit_compile


def _stack(*weights):
    """A weight of both directions as one array, or None where the layers do not have it."""
    if weights[0] is None:
        return None
    return ops.concatenate([weight[None] for weight in weights])


def _bptt():
    """The fused loop, imported only where TensorFlow is the backend."""
    from keras_seqzoo.layers.rnn import bptt

    return bptt


def _on_gpu() -> bool:
    from keras_seqzoo.layers.rnn import batch_splitting

    return batch_splitting.on_gpu()


def _cells():
    """The cells of the fused loop, imported only where TensorFlow is the backend."""
    from keras_seqzoo.layers.rnn import cells

    return cells


def _activation_name(activation) -> str | None:
    """The name of an activation of Keras that the fused kernel supports, or None."""
    names = ("linear", "relu", "sigmoid", "tanh")
    return next((name for name in names if activation is getattr(keras.activations, name)), None)


def _has_default_activations(cell) -> bool:
    names = _activation_name(cell.activation), _activation_name(cell.recurrent_activation)
    return names == ("tanh", "sigmoid")
