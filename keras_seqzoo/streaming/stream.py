"""A model that goes step by step, its state in the hands of the client."""

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
from keras_seqzoo.streaming.stepper import Stepper
from keras_seqzoo.utils.argument_validation import argument_message, check_choice, check_positive
from keras_seqzoo.utils.array_validation import as_array, as_tokens

NAN = ("skip", "propagate", "raise")

State = dict[str, Any]


def stream(model: keras.Model, *, nan: str = "skip") -> Streamer:
    """A causal model, for readings or tokens that come one by one.

    Works with any Functional or Sequential model of layers that act on each step alone (`Dense`,
    `Embedding`, normalizations over features, `TimeDistributed`, merges, most of `keras.ops`) or
    carry something from step to step: `SimpleRNN`, `GRU`, `LSTM`, `RNN` of any cell, causal
    `Conv1D`, running poolings. That stepping gives what the model gives for the whole sequence is
    tried on random input, padded on either side where the model knows padding, before anything is
    returned.

    Shapes: a step takes `(batch, features)`, or int `(batch,)` for tokens, and gives the model's
        output at that step, without the axis of time; of a model with one answer for a sequence,
        that for the sequence so far.
    Masking: as of the model: a padded step leaves the state as it was.
    State: a dict of tensors, one per layer that has something to carry, `(batch, ...)`. It is
        given and returned, never kept: each client has its own.

    Args:
        model: a built `keras.Model`, each of whose inputs has an axis of time.
        nan: what a reading that is not finite, and no padding, does to its row, and to no other.
            "skip": the row's output is NaN for that step, and its state stays as it was, as if the
            step had not been. "propagate": what the model makes of it; the row's state is then NaN
            for ever, with most models. "raise": a `DataError`.

    Returns:
        A `Streamer`, whose weights are the model's own.

    Raises:
        ArgumentError: if the model cannot go step by step; the message names the layer and says
            why.

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
    _check_against_whole(streamer)
    return streamer


class Streamer:
    """What `stream` gives.

    Attributes:
        model: the `keras.Model`.
        nan: "skip", "propagate" or "raise".
        inputs: list of tuple: name, shape without the batch, and dtype of what a step is given.
        states: dict of arrays by name, the state of one row before the first step.
    """

    def __init__(self, model: keras.Model, *, nan: str = "skip"):
        _check(model)
        self.model, self.nan = model, nan
        self._stepper = Stepper(model)
        self.states = self._stepper.initial
        self.inputs = [(one.name, tuple(one.shape[2:]), one.dtype) for one in model.inputs]
        self._tokens = [input_vocabulary_size(model, one) for one in model.inputs]

    def initial_state(self, batch: int) -> State:
        """The state before the first step.

        Args:
            batch: int, at least 1, how many rows there are.
        """
        check_positive(batch=batch)
        return self.begin(int(batch))

    def step(self, x, state: Mapping[str, Any]) -> tuple[Any, State]:
        """One step: what the model says at it, and the state after it.

        Args:
            x: array `(batch, features)`, or int `(batch,)` for tokens; a list or dict of several
                where the model has several inputs.
            state: what `initial_state` or the step before gave.

        Raises:
            DataError: if `x` has another shape, tokens that the model does not know, or, with
                `nan="raise"`, is not finite.
            ArgumentError: if `state` is not of this model.
        """
        inputs = self._read(x)
        self._check_state(state, len(inputs[0]))
        outputs, after, usable = self._compiled(inputs, dict(state))
        if self.nan == "raise" and usable is not None:
            _check_usable(ops.convert_to_numpy(usable))
        return tree.pack_sequence_as(output_of(self.model), outputs), dict(after)

    @functools.cached_property
    def _compiled(self) -> Callable:
        return _compile(self)

    def begin(self, batch: Any) -> State:
        """`initial_state` unchecked, for a tensor `batch` too."""
        return {
            name: ops.broadcast_to(ops.convert_to_tensor(row), (batch, *row.shape[1:]))
            for name, row in self.states.items()
        }

    def compute(self, inputs: list, state: Mapping[str, Any]):
        """`step` of tensors, not compiled: flat outputs, the state, and which rows were of use."""
        usable = None if self.nan == "propagate" else self._stepper.usable(inputs)
        outputs, after = self._stepper.step(inputs, state, usable)
        if usable is not None:
            outputs = [_where(usable, output) for output in outputs]
        return outputs, after, usable

    @property
    def timed(self) -> list[bool]:
        """For each output whether the model gives it for every step."""
        return self._stepper.timed

    def _read(self, x) -> list:
        known = input_of(self.model)
        names = sorted(known) if isinstance(known, dict) else [name for name, *_ in self.inputs]
        if isinstance(x, dict):
            if set(x) != set(names):
                raise errors.DataError(f"`x` must have {names}. Received: {list(x)}.")
            given = [x[name] for name in names]
        else:
            given = [x] if len(names) == 1 else tree.flatten(x)
        if len(given) != len(names):
            raise errors.DataError(
                f"`x` must be a step of each of {names}. Received: {len(given)} arrays."
            )
        found = []
        for (name, shape, dtype), known, one in zip(self.inputs, self._tokens, given, strict=True):
            one = one if ops.is_tensor(one) else _as_numbers(name, one, known)
            fits = len(one.shape) == len(shape) + 1 and all(
                size in (None, has) for size, has in zip(shape, one.shape[1:], strict=True)
            )
            if not fits or len(one) != len(found[0] if found else one) or not len(one):
                expected = ", ".join("any" if size is None else str(size) for size in shape)
                raise errors.DataError(
                    f"A step's {name!r} must have the shape (batch, {expected}), without an axis "
                    f"of time, and as many rows as the others. Received: shape {tuple(one.shape)}."
                )
            found.append(ops.convert_to_tensor(one, dtype))
        return found

    def _check_state(self, state, batch: int) -> None:
        expected = {name: (batch, *row.shape[1:]) for name, row in self.states.items()}
        received = (
            {name: tuple(getattr(one, "shape", ())) for name, one in state.items()}
            if isinstance(state, Mapping)
            else type(state).__name__
        )
        if received != expected:
            raise errors.ArgumentError(
                f"`state` must be what `initial_state` or the step before gave, for {batch} rows: "
                f"{expected}. Received: {received}."
            )


def streamer_of(model: keras.Model) -> Streamer | None:
    """What `stream` gives, or None of a model that cannot go step by step.

    Args:
        model: `keras.Model`.
    """
    try:
        return stream(model)
    except errors.ArgumentError:
        return None


def _check(model: Any) -> None:
    # Samples know what endpoints there are, and endpoints what can be streamed.
    from keras_seqzoo.inspection.sample_inputs import has_time_axis

    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise errors.ArgumentError(
            argument_message(
                "model", "a built Functional or Sequential model", type(model).__name__
            )
        )
    stateful = stateful_layers(model)
    if stateful:
        raise errors.ArgumentError(
            f"`model` must not keep state itself. Received: {model.name!r} with stateful layers "
            f"{', '.join(stateful)}. Rebuild it with stateful=False and set its weights: a stream "
            "has its state in the hands of the client."
        )
    for tensor in model.inputs:
        if not has_time_axis(tensor) or tensor.shape[0] is not None:
            raise errors.ArgumentError(
                "`model` must take any number of rows, and steps along the second axis. Received: "
                f"{model.name!r}, whose input {tensor.name!r} is {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}."
            )


def _as_numbers(name: str, given: Any, tokens: int | None) -> np.ndarray:
    """What is not a tensor yet as an array, of tokens from 0 to `tokens - 1` if they are."""
    if tokens is not None:
        return as_tokens(name, given, tokens)
    array = as_array(name, given)
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:  # such as bfloat16
        raise errors.DataError(f"A step's {name!r} must be numbers. Received: dtype {array.dtype}.")
    return array


def _where(usable, output):
    """NaN in rows whose reading was of no use; -1, or False, where there is no NaN."""
    dtype = keras.backend.standardize_dtype(output.dtype)
    nothing = float("nan") if "float" in dtype else 0 if dtype == "bool" or "u" in dtype else -1
    axes = list(range(1, len(output.shape)))
    usable = ops.expand_dims(usable, axes) if axes else usable
    return ops.where(usable, output, nothing)


def _check_usable(usable: np.ndarray) -> None:
    if not usable.all():
        rows = np.flatnonzero(~usable)
        raise errors.DataError(
            f"Readings must be finite. Received: NaN or infinity in {len(rows)} rows, the first "
            f"of them {rows[0]}. Leave them out, or stream with nan='skip'."
        )


def _compile(streamer: Streamer) -> Callable:
    """`compute` as a program, whose weights are those that the model has when it is called."""
    backend = keras.backend.backend()
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}.get(backend, _as_it_is)(
        streamer
    )


def _tensorflow(streamer: Streamer) -> Callable:
    import tensorflow as tf

    names, number = list(streamer.states), len(streamer.inputs)
    specs = [tf.TensorSpec((None, *shape), dtype) for _, shape, dtype in streamer.inputs]
    specs += [tf.TensorSpec((None, *row.shape[1:]), row.dtype) for row in streamer.states.values()]

    @tf.function(input_signature=specs, autograph=False)
    def compute(*tensors):
        state = dict(zip(names, tensors[number:], strict=True))
        return streamer.compute(list(tensors[:number]), state)

    concrete = compute.get_concrete_function()  # called with tensors side by side, twice as fast
    return lambda inputs, state: concrete(*inputs, *(state[name] for name in names))


def _jax(streamer: Streamer) -> Callable:
    import jax

    variables = streamer.model.variables

    @jax.jit
    def compute(values, inputs, state):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return streamer.compute(inputs, state)

    return lambda inputs, state: compute([one.value for one in variables], inputs, state)


def _torch(streamer: Streamer) -> Callable:
    import torch

    return torch.no_grad()(streamer.compute)


def _as_it_is(streamer: Streamer) -> Callable:
    return streamer.compute


# Of the largest output: round-off may grow from step to step, a mistake is far beyond it.
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.1
_ROWS, _STEPS = 3, 7


def _check_against_whole(streamer: Streamer) -> None:
    """Raises `ArgumentError` unless steps give what the model gives for whole sequences."""
    x = _tried(streamer.model)
    total = x[0].shape[1]
    steps, state = [], streamer.begin(_ROWS)
    # What is tried here once need not be compiled, but where each operation would be.
    compute = streamer._compiled if keras.backend.backend() == "jax" else streamer.compute
    for t in range(total):
        outputs, state, _ = compute([one[:, t] for one in x], state)
        steps.append([ops.convert_to_numpy(one) for one in outputs])
    fixed = any(one.shape[1] is not None for one in streamer.model.inputs)
    for length in {total, total if fixed or all(streamer.timed) else total // 2 + 1}:
        _compare(streamer, [one[:, :length] for one in x], steps[:length])


def _tried(model: keras.Model) -> list:
    """Three rows of random steps, of which the first and last are padded where padding is known."""
    from keras_seqzoo.inspection.sample_inputs import sample_inputs

    given = [one for one in sample_inputs(model) if one.batch == _ROWS]
    steps = _STEPS if any(one.steps == _STEPS for one in given) else given[0].steps
    padded = {one.padding: one.inputs for one in given if one.steps == steps}
    first, last = (padded.get(side, padded["none"]) for side in ("left", "right"))
    return [
        ops.convert_to_tensor(np.concatenate([first[name][:2], last[name][2:]])) for name in first
    ]


def _compare(streamer: Streamer, x: list, steps: list) -> None:
    model = streamer.model
    whole = model(tree.pack_sequence_as(input_of(model), x), training=False)
    half = any("16" in str(layer.compute_dtype) for layer in model.layers)
    for number, expected in enumerate(tree.flatten(whole)):
        expected = ops.convert_to_numpy(expected)
        received = [outputs[number] for outputs in steps]
        received = np.stack(received, 1) if streamer.timed[number] else received[-1]
        expected, received = (np.asarray(one, np.float64) for one in (expected, received))
        size = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
        allowed = (_HALF_TOLERANCE if half else _TOLERANCE) * size
        if not np.allclose(received, expected, rtol=0, atol=allowed, equal_nan=True):
            raise errors.ArgumentError(
                "`model` must give step by step what it gives for the whole sequence. Received: "
                f"{model.name!r}, whose output differs by {np.abs(received - expected).max():.1e} "
                f"where the largest is {size:.1e}. Does a layer look at other steps, or draw at "
                "random?"
            )
