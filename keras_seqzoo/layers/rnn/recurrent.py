"""SimpleRNN, GRU and LSTM: Keras's layers, with kernels that train and run faster on a CPU."""

from __future__ import annotations

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import check_bool, check_instance


class _Fused:
    """What the three layers share: when the fused kernel runs, and how it is called."""

    # Whether Keras has a cuDNN kernel for it.
    _gated = False
    # Whether the fused kernel is compiled by itself; see `compile_recurrences`.
    jit_compile = False

    @property
    def implementation_path(self) -> str:
        """Which code runs this layer.

        - "fused": this package's kernel.
        - "keras": Keras's own loop: on another backend than TensorFlow, and for `unroll=True`,
          `recurrent_dropout`, `dropout` with `implementation=1`, and activations that no kernel
          knows.
        - "cudnn": Keras's own layer, which takes cuDNN where that can do it: gated layers on a
          machine with a GPU, unless `use_cudnn=False`.
        """
        if keras.backend.backend() != "tensorflow" or self.unroll or self.cell.recurrent_dropout:
            return "keras"
        if self.cell.dropout and getattr(self.cell, "dropout_mask_count", None):
            return "keras"
        if self._gated and self.use_cudnn and (self.use_cudnn is True or _on_gpu()):
            return "cudnn"
        return "fused" if self._recurrence() else "keras"

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if self.implementation_path != "fused":
            return super().inner_loop(sequences, initial_state, mask, training=training)
        cell = self.cell
        dropped = cell.get_dropout_mask(sequences[:, 0, :]) if training else None
        if dropped is not None:
            sequences = sequences * ops.expand_dims(dropped, 1)
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
            self._recurrence(),
            sequences,
            initial_state,
            cell.kernel,
            cell.recurrent_kernel,
            bias,
            recurrent_bias,
            mask=mask,
            keep=bool(training),
            return_sequences=self.return_sequences,
            jit_compile=self.jit_compile and bool(training),
        )
        return self._outputs(steps, states, mask)

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        # Keras draws a mask in inference too, so that evaluation changes how training goes on.
        if self.implementation_path != "fused":
            super()._maybe_config_dropout_masks(cell, input_sequence, input_state)

    def _biases(self):
        bias = self.cell.bias
        if bias is None:
            bias = ops.zeros(self.cell.kernel.shape[-1:], self.cell.compute_dtype)
        return bias, None

    def _outputs(self, steps, states, mask):
        """Keras's outputs: before the first real step zeros, though the state is the initial one;
        at later padded steps the last output again, or zeros with `zero_output_for_mask`.
        """
        last = states[0]
        if mask is not None:
            mask = mask if len(mask.shape) == 3 else mask[..., None]
            shown = ops.cumsum(ops.cast(mask, "int32"), 1) > 0
            if self.zero_output_for_mask:
                shown = mask
            last = ops.where(shown[:, -1], last, ops.zeros_like(last))
            if steps is not None:
                steps = ops.where(shown, steps, ops.zeros_like(steps))
        if steps is None:
            steps = ops.expand_dims(last, 1)
        return last, steps, list(states)


@keras.saving.register_keras_serializable(package=PACKAGE)
class SimpleRNN(_Fused, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN`, faster on a CPU: same arguments, weights, config and numbers.

    Weights and checkpoints move both ways. `implementation_path` says which code runs; the fused
    kernel knows the activations "tanh", "relu", "sigmoid" and "linear".

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: Keras's semantics: a padded step keeps the state and repeats the last output.
    State: zeros, or `initial_state=[h]`; `return_state=True` returns the last one.

    Args:
        *args: as of `keras.layers.SimpleRNN`.
        **kwargs: as of `keras.layers.SimpleRNN`.

    Example:

    >>> from keras_seqzoo import layers
    >>> layer = layers.SimpleRNN(8, return_sequences=True)
    >>> layer(np.zeros((2, 50, 3))).shape, layer.implementation_path
    (TensorShape([2, 50, 8]), 'fused')

    Reference: [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def _recurrence(self):
        activation = _known(self.cell.activation)
        return activation and _cells().SimpleRNN(self.cell.units, activation)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GRU(_Fused, keras.layers.GRU):
    """`keras.layers.GRU`, faster on a CPU: same arguments, weights, config and numbers.

    Weights and checkpoints move both ways. `implementation_path` says which code runs; the fused
    kernel knows the default activations, and `reset_after` both ways.

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: Keras's semantics: a padded step keeps the state and repeats the last output.
    State: zeros, or `initial_state=[h]`; `return_state=True` returns the last one.

    Args:
        *args: as of `keras.layers.GRU`.
        **kwargs: as of `keras.layers.GRU`.

    Example:

    >>> from keras_seqzoo import layers
    >>> layers.GRU(8, reset_after=False)(np.zeros((2, 50, 3))).shape
    TensorShape([2, 8])

    Reference: [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179)
    """

    _gated = True

    def _recurrence(self):
        if not _default_gates(self.cell):
            return None
        cells = _cells()
        return (cells.GRU if self.cell.reset_after else cells.GRUResetBefore)(self.cell.units)

    def _biases(self):
        if self.cell.bias is None or not self.cell.reset_after:
            return super()._biases()
        bias = ops.convert_to_tensor(self.cell.bias)
        return bias[0], bias[1]


@keras.saving.register_keras_serializable(package=PACKAGE)
class LSTM(_Fused, keras.layers.LSTM):
    """`keras.layers.LSTM`, faster on a CPU: same arguments, weights, config and numbers.

    Weights and checkpoints move both ways. `implementation_path` says which code runs; the fused
    kernel knows the default activations.

    Shapes: `(batch, time, features)` -> `(batch, units)`, or `(batch, time, units)` with
        `return_sequences=True`.
    Masking: Keras's semantics: a padded step keeps both states and repeats the last output.
    State: zeros, or `initial_state=[h, c]`; `return_state=True` returns the last ones.

    Args:
        *args: as of `keras.layers.LSTM`.
        **kwargs: as of `keras.layers.LSTM`.

    Example:

    >>> from keras_seqzoo import layers
    >>> output, h, c = layers.LSTM(8, return_state=True)(np.zeros((2, 50, 3)))
    >>> output.shape, c.shape
    (TensorShape([2, 8]), TensorShape([2, 8]))

    Reference: [Hochreiter & Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
    """

    _gated = True

    def _recurrence(self):
        return _cells().LSTM(self.cell.units) if _default_gates(self.cell) else None


@keras.saving.register_keras_serializable(package=PACKAGE)
class Bidirectional(keras.layers.Bidirectional):
    """`keras.layers.Bidirectional`, both directions in one loop: same arguments, weights, numbers.

    Weights, config and checkpoints move both ways. Other layers than this package's, those that
    keep or return state, and inputs dropped inside the layers run as in Keras.

    Shapes: `(batch, time, features)` -> `(batch, 2 * units)`, or `(batch, time, 2 * units)` where
        the layer has `return_sequences=True`.
    Masking: Keras's semantics: a padded step keeps the states and gives zeros.
    State: zeros at either end.

    Args:
        *args: as of `keras.layers.Bidirectional`.
        **kwargs: as of `keras.layers.Bidirectional`.

    Example:

    >>> from keras_seqzoo import layers
    >>> layer = layers.Bidirectional(layers.LSTM(8, return_sequences=True))
    >>> layer(np.zeros((2, 50, 3))).shape
    TensorShape([2, 50, 16])

    Reference: [Schuster & Paliwal, 1997](https://doi.org/10.1109/78.650093)
    """

    def call(self, sequences, initial_state=None, mask=None, training=None):
        if initial_state is not None or not self._runs_together(training):
            return super().call(sequences, initial_state, mask, training)
        both = self.forward_layer, self.backward_layer
        recurrence = both[0]._recurrence()
        weights = [(one.cell.kernel, one.cell.recurrent_kernel, *one._biases()) for one in both]
        zeros = ops.zeros((2, ops.shape(sequences)[0], recurrence.units), self.compute_dtype)
        steps, states = _bptt().run(
            recurrence,
            sequences,
            [zeros] * (2 if isinstance(both[0], LSTM) else 1),
            *map(_stacked, *weights),
            mask=mask,
            keep=bool(training),
            return_sequences=self.return_sequences,
        )
        if steps is None:
            return self._merged(states[0][0], states[0][1])
        if mask is not None:
            steps = ops.where(mask[..., None], steps, ops.zeros_like(steps))
        return steps if self.merge_mode == "concat" else self._merged(*ops.split(steps, 2, -1))

    def _runs_together(self, training) -> bool:
        """Whether both layers are alike, fused, and read from either end."""
        first, second = self.forward_layer, self.backward_layer
        if type(first) is not type(second) or not isinstance(first, _Fused):
            return False
        if first.go_backwards or first.return_state or first.stateful:
            return False
        if training and first.jit_compile:  # two programs run beside each other, one would not
            return False
        if training and (first.cell.dropout or second.cell.dropout):
            return False
        alike = first._recurrence() == second._recurrence()
        alike = alike and first.cell.use_bias == second.cell.use_bias
        return alike and first.implementation_path == second.implementation_path == "fused"

    def _merged(self, first, second):
        if self.merge_mode == "concat":
            return ops.concatenate((first, second), -1)
        if self.merge_mode is None:
            return first, second
        if self.merge_mode == "mul":
            return first * second
        return (first + second) / (2 if self.merge_mode == "ave" else 1)


def compile_recurrences(model: keras.Model, jit_compile: bool = True) -> None:
    """Lets XLA compile the recurrent layers of a model alone for training, once for each shape.

    For models that `compile(jit_compile=True)` makes slower on a CPU, as it does where a large
    embedding is trained, if batches have few different shapes. Not saved with the model.

    Args:
        model: `keras.Model`; its layers of this package are set, those inside others too.
        jit_compile: bool.

    Raises:
        ArgumentError: if an argument is neither.
    """
    check_instance(keras.Model, model=model)
    check_bool(jit_compile=jit_compile)
    for layer in compat.flatten_layers(model):
        if isinstance(layer, _Fused):
            layer.jit_compile = jit_compile


def _stacked(*weights):
    """The same weight of both directions as one, if there is one."""
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


def _known(activation) -> str | None:
    """Its name, if it is one of Keras's own that a kernel knows."""
    names = ("linear", "relu", "sigmoid", "tanh")
    return next((name for name in names if activation is getattr(keras.activations, name)), None)


def _default_gates(cell) -> bool:
    return (_known(cell.activation), _known(cell.recurrent_activation)) == ("tanh", "sigmoid")
