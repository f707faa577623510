"""Streaming of causal models: `step(x, state) -> (y, state)`, one time step per call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo import errors
from keras_seqzoo.inspection.model_graph import (
    input_of,
    input_vocabulary_size,
    output_of,
    stateful_layers,
)
from keras_seqzoo.inspection.sample_inputs import has_time_axis, sample_inputs
from keras_seqzoo.streaming.state import CannotStep, leaves
from keras_seqzoo.streaming.stepper import Stepper
from keras_seqzoo.utils.argument_validation import argument_message, check_choice, check_positive
from keras_seqzoo.utils.array_validation import as_array, as_tokens

NAN = ("skip", "propagate", "raise")

State = dict[str, Any]


def stream(model: keras.Model, *, nan: str = "skip") -> Streamer:
    """Makes a causal model computable one time step at a time, with an explicit state.

    Supports every Functional or Sequential model of layers that act on each step alone (`Dense`,
    `Embedding`, normalizations over features, `TimeDistributed`, merges, most of `keras.ops`) or
    that carry a state: `SimpleRNN`, `GRU`, `LSTM`, `RNN` of any cell, causal `Conv1D`, and
    poolings, which are computed over the sequence so far. Before a `Streamer` is returned, its
    outputs are compared with those of the model on whole random sequences, padded on both sides
    where the model masks padding.

    Shapes: a step takes `(batch, features)`, or int `(batch,)` for tokens, and returns the model's
        output at that step, without the time axis. A model with one output per sequence returns
        the output for the sequence so far.
    Masking: as in the model; a padded step leaves the state as it was.
    State: a dict of tensors `(batch, ...)`, one per layer that carries a state. It is passed to a
        step and returned by it, and never stored: each client has its own.

    Args:
        model: a built `keras.Model`, each of whose inputs has a time axis.
        nan: how a reading that is neither finite nor padding affects its row; other rows are never
            affected. "skip": the output of that row is NaN for that step, and its state stays as
            it was. "propagate": the model computes with it; with most models the state of the row
            is then NaN for good. "raise": a `DataError`.

    Returns:
        A `Streamer`, which shares the weights of the model.

    Raises:
        ArgumentError: if an argument has the wrong type or value, or the model is stateful.
        CannotStep: an `ArgumentError`, if the model cannot be computed step by step; the message
            names the layer and the reason.

    Example:

    >>> import keras_seqzoo as zoo
    >>> s = zoo.stream(zoo.get("gru_forecaster", features=3, units=8))
    >>> state = s.initial_state(2)
    >>> for reading in np.zeros((10, 2, 3), "float32"):
    ...     forecast, state = s.step(reading, state)
    >>> forecast.shape, list(state)
    (TensorShape([2, 3]), ['state_recurrent_1'])
    """
    check_choice("nan", nan, NAN)
    streamer = Streamer(model, nan=nan)
    _check_against_whole_sequences(streamer)
    return streamer


class Streamer:
    """A model that is computed one time step at a time; `stream` returns it.

    Attributes:
        model: the `keras.Model`.
        nan: "skip", "propagate" or "raise".
        inputs: list of tuple: name, shape without batch and time axis, and dtype of each input.
        states: dict of arrays by name, the state of one row before the first step.
    """

    def __init__(self, model: keras.Model, *, nan: str = "skip"):
        _check_model(model)
        self.model, self.nan = model, nan
        self.inputs = [
            (tensor.name, tuple(tensor.shape[2:]), tensor.dtype) for tensor in model.inputs
        ]
        self._stepper = Stepper(model)
        self.states = self._stepper.initial

    def initial_state(self, batch: int) -> State:
        """The state before the first step.

        Args:
            batch: int, at least 1, the number of rows.
        """
        check_positive(batch=batch)
        return self.broadcast_initial_state(int(batch))

    def step(self, x, state: Mapping[str, Any]) -> tuple[Any, State]:
        """Computes one time step.

        Args:
            x: array `(batch, features)`, or int `(batch,)` for tokens; a list or dict of arrays
                where the model has several inputs.
            state: the state that `initial_state` or the previous step returned.

        Returns:
            The output of the model at the step, and the state after it.

        Raises:
            DataError: if `x` has another shape, has tokens outside the vocabulary, or, with
                `nan="raise"`, is not finite.
            ArgumentError: if `state` is not a state of this model for as many rows as `x` has.
        """
        inputs = self._read(x)
        self._check_state(state, len(inputs[0]))
        outputs, state, finite_rows = self._compiled(inputs, dict(state))
        if self.nan == "raise" and finite_rows is not None:
            _check_finite(np.asarray(ops.convert_to_numpy(finite_rows)))
        return tree.pack_sequence_as(output_of(self.model), outputs), dict(state)

    @functools.cached_property
    def _vocabulary_sizes(self) -> list[int | None]:
        return [input_vocabulary_size(self.model, tensor) for tensor in self.model.inputs]

    @functools.cached_property
    def _compiled(self) -> Callable:
        return _compile(self)

    def broadcast_initial_state(self, batch: Any) -> State:
        """`initial_state` without checks, for graphs.

        Args:
            batch: int or int tensor, the number of rows.
        """
        return {
            name: ops.broadcast_to(ops.convert_to_tensor(row), (batch, *row.shape[1:]))
            for name, row in self.states.items()
        }

    def step_tensors(
        self, inputs: list, state: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any], Any]:
        """`step` without checks or compilation, for graphs.

        Args:
            inputs: list of tensors `(batch, ...)`.
            state: mapping of name to tensor.

        Returns:
            The list of outputs; the state after the step; and bool `(batch,)`, the rows whose
            readings are finite or padding, or None where that is not checked.
        """
        finite_rows = None if self.nan == "propagate" else self._stepper.finite_rows(inputs)
        outputs, state = self._stepper.step(inputs, state, finite_rows)
        if finite_rows is not None:
            outputs = [_mask_output(finite_rows, output) for output in outputs]
        return outputs, state, finite_rows

    @property
    def timed(self) -> list[bool]:
        """For each output whether it has a time axis."""
        return self._stepper.timed

    def _read(self, x) -> list:
        structure = input_of(self.model)
        names = [name for name, *_ in self.inputs]
        names = sorted(structure) if isinstance(structure, dict) else names
        if isinstance(x, dict):
            if set(x) != set(names):
                raise errors.DataError(f"`x` must have {names}. Received: {list(x)}.")
            values = [x[name] for name in names]
        else:
            values = [x] if len(names) == 1 else leaves(x)
        if len(values) != len(names):
            raise errors.DataError(
                f"`x` must be a step of each of {names}. Received: {len(values)} arrays."
            )
        tensors = []
        for (name, shape, dtype), vocabulary_size, value in zip(
            self.inputs, self._vocabulary_sizes, values, strict=True
        ):
            value = value if ops.is_tensor(value) else _as_numeric(name, value, vocabulary_size)
            fits = len(value.shape) == len(shape) + 1 and all(
                size in (None, received)
                for size, received in zip(shape, value.shape[1:], strict=True)
            )
            # A scalar does not fit, and has no length.
            if not fits or not len(value) or (tensors and len(value) != len(tensors[0])):
                expected = ", ".join("any" if size is None else str(size) for size in shape)
                raise errors.DataError(
                    f"A step's {name!r} must have the shape (batch, {expected}), without a time "
                    "axis, and as many rows as the other inputs. Received: shape "
                    f"{tuple(value.shape)}."
                )
            tensors.append(ops.convert_to_tensor(value, dtype))
        return tensors

    def _check_state(self, state, batch: int) -> None:
        expected = {name: (batch, *row.shape[1:]) for name, row in self.states.items()}
        received = (
            {name: tuple(getattr(tensor, "shape", ())) for name, tensor in state.items()}
            if isinstance(state, Mapping)
            else type(state).__name__
        )
        if received != expected:
            raise errors.ArgumentError(
                "`state` must be what `initial_state` or the previous step returned, for "
                f"{batch} rows: {expected}. Received: {received}."
            )


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise errors.ArgumentError(
            argument_message(
                "model", "a built Functional or Sequential model", type(model).__name__
            )
        )
    stateful = stateful_layers(model)
    if stateful:
        raise errors.ArgumentError(
            f"`model` must not be stateful. Received: {model.name!r} with stateful layers "
            f"{', '.join(stateful)}. Rebuild it with stateful=False and set its weights: while "
            "streaming, the client passes the state to each step."
        )
    for tensor in model.inputs:
        if not has_time_axis(tensor) or tensor.shape[0] is not None:
            raise CannotStep(
                "`model` must take any number of rows, and have the time axis second. Received: "
                f"{model.name!r}, whose input {tensor.name!r} is {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}."
            )


def _as_numeric(name: str, value: Any, vocabulary_size: int | None) -> np.ndarray:
    """An array of numbers; of tokens, ints from 0 to `vocabulary_size - 1`."""
    if vocabulary_size is not None:
        return as_tokens(name, value, vocabulary_size)
    array = as_array(name, value)
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:  # such as bfloat16
        raise errors.DataError(f"A step's {name!r} must be numbers. Received: dtype {array.dtype}.")
    return array


def _mask_output(finite_rows, output):
    """NaN in rows that are not finite; -1, or 0 or False, where the dtype has neither."""
    dtype = keras.backend.standardize_dtype(output.dtype)
    fill = float("nan") if "float" in dtype else 0 if dtype == "bool" or "u" in dtype else -1
    axes = list(range(1, len(output.shape)))
    finite_rows = ops.expand_dims(finite_rows, axes) if axes else finite_rows
    return ops.where(finite_rows, output, fill)


def _check_finite(finite_rows: np.ndarray) -> None:
    if not finite_rows.all():
        rows = np.flatnonzero(~finite_rows)
        raise errors.DataError(
            f"Readings must be finite. Received: NaN or infinity in {len(rows)} rows, the first "
            f"of them {rows[0]}. Leave them out, or stream with nan='skip'."
        )


def _compile(streamer: Streamer) -> Callable:
    """`Streamer.step_tensors`, compiled; it reads the model's weights at each call."""
    compilers = {"tensorflow": _compile_tensorflow, "jax": _compile_jax, "torch": _without_grad}
    compiler = compilers.get(keras.backend.backend())
    return streamer.step_tensors if compiler is None else compiler(streamer)


def _compile_tensorflow(streamer: Streamer) -> Callable:
    import tensorflow as tf

    names, input_count = list(streamer.states), len(streamer.inputs)
    specs = [tf.TensorSpec((None, *shape), dtype) for _, shape, dtype in streamer.inputs]
    specs += [tf.TensorSpec((None, *row.shape[1:]), row.dtype) for row in streamer.states.values()]

    @tf.function(input_signature=specs, autograph=False)
    def step(*tensors):
        state = dict(zip(names, tensors[input_count:], strict=True))
        return streamer.step_tensors(list(tensors[:input_count]), state)

    concrete = step.get_concrete_function()  # called with flat tensors it takes half the time
    return lambda inputs, state: concrete(*inputs, *(state[name] for name in names))


def _compile_jax(streamer: Streamer) -> Callable:
    import jax  # pyright: ignore[reportMissingImports]  # an optional backend

    variables = streamer.model.variables

    @jax.jit
    def step(values, inputs, state):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return streamer.step_tensors(inputs, state)

    return lambda inputs, state: step([variable.value for variable in variables], inputs, state)


def _without_grad(streamer: Streamer) -> Callable:
    import torch  # pyright: ignore[reportMissingImports]  # an optional backend

    return torch.no_grad()(streamer.step_tensors)


# As a share of the largest output: round-off may grow from step to step, errors are far larger.
_TOLERANCE, _HALF_PRECISION_TOLERANCE = 1e-3, 0.1
_ROWS, _STEPS = 3, 7


def _check_against_whole_sequences(streamer: Streamer) -> None:
    """Raises `CannotStep` unless steps give the model's outputs for whole sequences."""
    x = _random_sequences(streamer.model)
    total = x[0].shape[1]
    steps, state = [], streamer.broadcast_initial_state(_ROWS)
    # For a single check compilation takes longer, except on JAX, which compiles each operation.
    step = streamer._compiled if keras.backend.backend() == "jax" else streamer.step_tensors
    for t in range(total):
        outputs, state, _ = step([tensor[:, t] for tensor in x], state)
        steps.append([np.asarray(ops.convert_to_numpy(output)) for output in outputs])
    fixed = any(tensor.shape[1] is not None for tensor in streamer.model.inputs)
    for length in {total, total if fixed or all(streamer.timed) else total // 2 + 1}:
        _compare(streamer, [tensor[:, :length] for tensor in x], steps[:length])


def _random_sequences(model: keras.Model) -> list:
    """Three random sequences, the first two padded left, the third right, if padding is masked."""
    samples = [sample for sample in sample_inputs(model) if sample.batch == _ROWS]
    steps = _STEPS if any(sample.steps == _STEPS for sample in samples) else samples[0].steps
    by_padding = {sample.padding: sample.inputs for sample in samples if sample.steps == steps}
    left, right = (by_padding.get(side, by_padding["none"]) for side in ("left", "right"))
    return [
        ops.convert_to_tensor(np.concatenate([left[name][:2], right[name][2:]])) for name in left
    ]


def _compare(streamer: Streamer, x: list, steps: list[list[np.ndarray]]) -> None:
    model = streamer.model
    outputs = leaves(model(tree.pack_sequence_as(input_of(model), x), training=False))
    half_precision = any("16" in str(layer.compute_dtype) for layer in model.layers)
    for index, output in enumerate(outputs):
        expected = np.asarray(ops.convert_to_numpy(output), np.float64)
        stepped = [step_outputs[index] for step_outputs in steps]
        received = np.asarray(
            np.stack(stepped, 1) if streamer.timed[index] else stepped[-1], np.float64
        )
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
        allowed = (_HALF_PRECISION_TOLERANCE if half_precision else _TOLERANCE) * largest
        if not np.allclose(received, expected, rtol=0, atol=allowed, equal_nan=True):
            raise CannotStep(
                "`model` must give the same output step by step as for the whole sequence. "
                f"Received: {model.name!r}, whose output differs by "
                f"{np.abs(received - expected).max():.1e} where the largest is {largest:.1e}. "
                "Does a layer use other steps, or random numbers?"
            )
