"""Model under test: calls from the same initial state, comparisons, and restored variables."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_seqzoo.diagnostics.audit.comparison import Counterexample, largest_difference
from keras_seqzoo.diagnostics.audit.inputs import ModelInputs
from keras_seqzoo.diagnostics.audit.state_variables import StateVariables
from keras_seqzoo.errors import DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.inspection.model_graph import flatten_layers, stateful_layers
from keras_seqzoo.layers import CRFModel, Normalization
from keras_seqzoo.utils.array_validation import as_mask, check_finite

MAX_ROWS = 256  # for leakage, which is a mean over rows
SUBSET_ROWS = 12  # for the checks that search for one counterexample


class ModelUnderTest:
    """A model with its inputs, its outputs, and the round-off of each output.

    Attributes:
        x: `(batch, time, ...)`, the inputs with a time axis as one array.
        outputs: `(batch, steps, outputs)`, of all rows.
        subset_outputs: the outputs of the rows in `subset`.
        real: `(batch, time)` bool, real steps of `x`.
        rows: int array, positions of `x` in the user's rows.
        has_time: bool, whether `x` has a time axis of more than one step.
        aligned: bool, whether the output has the steps of the input.
        single_output: bool, whether the output has no steps.
        fixed_time: str, why the number of steps cannot change, or "".
        padding: a padded step, or None.
        state: `StateVariables` of a Keras model, or None.
        exact_unit: `(1, 1, outputs)`, round-off of each output.
        unit: the same, or the effect of the input's round-off where that is larger.

    Args:
        model: the model or function to audit.
        inputs: `ModelInputs`.
        mask: bool array or None.
        mask_value: number or None.
        tolerance: float, differences up to so many units of round-off count as none.
        seed: int.
    """

    def __init__(self, model: Any, inputs: ModelInputs, *, mask, mask_value, tolerance, seed):
        self.model, self.tolerance = model, float(tolerance)
        self.is_keras = isinstance(model, keras.Model)
        self.rng = np.random.default_rng(seed)
        self.padding = inputs.padding(model, mask_value)
        self._batch_size = self._fixed_batch_size(inputs)
        count = len(inputs.arrays[0])
        selected = min(count, max(MAX_ROWS, self._batch_size or 0))
        self.rows = np.unique(np.linspace(0, count - 1, selected).round().astype(int))
        self.block_scale = len(self.rows) / count
        self._inputs = dataclasses.replace(
            inputs, arrays=[array[self.rows] for array in inputs.arrays]
        )
        self.x = self._inputs.time_array
        self.has_time = bool(inputs.along) and self.x.ndim > 1 and self.x.shape[1] > 1
        mask = None if mask is None else as_mask(mask, (count, *self.x.shape[1:2]))[self.rows]
        self.mask = self._mask(mask)
        self.real = np.ones(self.x.shape[:2], bool) if self.mask is None else self.mask
        if not self.real.any():
            raise DataError("`x` must have a real step. Received: padding alone.")
        if inputs.along:
            check_finite(self.x.reshape(*self.x.shape[:2], -1), self.mask)
        self.state: StateVariables | None = None
        self._original_values: list[tuple[Any, np.ndarray]] = []
        self._initial_values: list[tuple[Any, np.ndarray, bool]] = []
        self._call = self._call_keras if self.is_keras else _without_training(model)
        if isinstance(model, CRFModel):
            self._probabilities = _compiled(model.probabilities)
        self._measure()

    def _measure(self) -> None:
        """First outputs: state variables, alignment of output and input, and round-off."""
        if self.is_keras and self.model.built:
            self._original_values = StateVariables(self.model).read()
        self.aligned, self.single_output = False, True
        subset = self.subset
        first = self._run(self.x[subset], subset)
        if self.is_keras:
            self.state = state = StateVariables(self.model)
            read = {id(variable) for variable, _ in self._original_values}
            self._original_values += [pair for pair in state.read() if id(pair[0]) not in read]
            self._initial_values = self._reset(state)
        self.fixed_time = self._fixed_time_reason()
        self.aligned = self.has_time and self._is_aligned(first)
        self.single_output = not self.aligned and first.ndim < 3
        self.outputs = self()
        model_function.check_output(self.outputs[self.real] if self.aligned else self.outputs)
        self.subset_outputs = self(rows=subset)
        # At least float32's, for float64 models too: smaller differences are no faults.
        self.eps = max(model_function.machine_epsilon(self.model), float(np.finfo(np.float32).eps))
        self.exact_unit = self._largest(self.outputs, slice(None)) * self.eps
        self.unit = self._round_off_unit()

    def _reset(self, state: StateVariables) -> list[tuple[Any, np.ndarray, bool]]:
        """Variables, initial values, and whether each is a seed.

        The initial value is that after a reset; of a variable that no reset changes, the original.
        """
        original = {id(variable): value for variable, value in self._original_values}
        seeds = {id(variable) for variable in state.seeds}
        before = state.read()
        state.reset()
        return [
            (
                variable,
                value if (value != previous).any() else original[id(variable)],
                id(variable) in seeds,
            )
            for (variable, previous), (_, value) in zip(before, state.read(), strict=True)
        ]

    # ------------------------------------------------------------------------------- outputs

    @property
    def subset(self) -> np.ndarray:
        """Positions of the rows that most checks use, evenly spaced."""
        count = min(len(self.x), self._batch_size or SUBSET_ROWS)
        return np.unique(np.linspace(0, len(self.x) - 1, count).round().astype(int))

    def __call__(self, x=None, rows=None, *, training=False, keep_state=False, reset_seeds=True):
        """Outputs `(batch, steps, outputs)`, by default from the initial state.

        Args:
            x: `(batch, time, ...)`; default that of `rows`.
            rows: int array, rows whose inputs without time axis accompany `x`; default all.
            training: bool, training mode of a Keras model.
            keep_state: bool, continue from the state of the previous call.
            reset_seeds: bool, draw the random numbers of the first call again.
        """
        rows = np.arange(len(self.x)) if rows is None else np.asarray(rows)
        x = self.x[rows] if x is None else x
        y = self._run(x, rows, training=training, keep_state=keep_state, reset_seeds=reset_seeds)
        y = y.astype(np.float64)
        if self.aligned or y.ndim > 2:
            return y.reshape(*y.shape[:2], int(np.prod(y.shape[2:])))
        return y.reshape(len(y), 1, -1)

    def _run(self, x, rows, *, training=False, keep_state=False, reset_seeds=True) -> np.ndarray:
        size = self._batch_size or model_function.BATCH_SIZE
        parts = []
        for start in range(0, len(x), size):
            for variable, value, is_seed in self._initial_values:
                if reset_seeds if is_seed else not keep_state:
                    variable.assign(value)
            part = np.arange(start, min(start + size, len(x)))
            batch = np.resize(part, size) if self._batch_size else part
            y = self._call(self._inputs.model_inputs(x[batch], rows[batch]), training)
            if y.ndim < 1 or len(y) != len(batch) or y.dtype.kind not in "biuf":
                raise DataError(
                    "The output must be real numbers, one row for each row of the input. Received: "
                    f"shape {y.shape}, dtype {y.dtype} for {len(batch)} rows."
                )
            parts.append(y[: len(part)])
        return np.concatenate(parts)

    def _call_keras(self, inputs: Any, training: bool) -> np.ndarray:
        with _without_adapt_warning(self.model):
            if isinstance(self.model, CRFModel):  # decoded tags are too coarse for comparisons
                output = self._probabilities(inputs, training=training)
            elif training or not getattr(self.model, "inputs", None):
                output = self.model(inputs, training=training)
            else:
                output = self.model.predict_on_batch(inputs)
        return model_function.as_output_array(output)

    def real_outputs(self, rows: np.ndarray) -> np.ndarray | None:
        """Output steps of `rows` to compare, `(batch, time)` bool; None for all."""
        return self.real[rows] if self.aligned else None

    def restore(self) -> None:
        """Restores the variables of the model to their values before the audit."""
        for variable, value in self._original_values:
            variable.assign(value)

    # --------------------------------------------------------------------------- comparisons

    def compare(self, actual, expected, rows, *, real=None, exact=False) -> Counterexample:
        """The largest difference between two outputs, in units of round-off.

        Args:
            actual: `(batch, steps, outputs)`.
            expected: `(batch, steps, outputs)`.
            rows: int `(batch,)`, rows of `x`.
            real: `(batch, steps)` bool, steps to compare; default all.
            exact: bool, in units of the output's own round-off, without that of the input.
        """
        unit = self.exact_unit if exact else self.unit
        difference = largest_difference(actual, expected, self.rows[rows], unit, real)
        return dataclasses.replace(difference, step=None) if self.single_output else difference

    def undetectable_reason(self) -> str:
        """Why no difference could be detected in the output, or ""."""
        if self.aligned:
            y = self.outputs[self.real]
        else:
            y = self.outputs.reshape(-1, self.outputs.shape[-1])
        spread = y.max(axis=0) - y.min(axis=0)
        if not (spread > 0).any():
            return "the output is constant on these rows"
        if (self.tolerance * self.unit.reshape(-1) >= spread).all():
            return "round-off of the input alone changes the output by as much as it varies"
        return ""

    def _round_off_unit(self) -> np.ndarray:
        """Round-off of each output, or the effect of the input's round-off, if that is larger."""
        if not self.has_time or self.x.dtype.kind in "biu" or (self.x[self.real] % 1 == 0).all():
            # Ids: the input has no round-off, and the outputs are of one kind.
            return np.full_like(self.exact_unit, self.exact_unit.max())
        signs = self.rng.choice([-1.0, 1.0], self.x.shape)
        integer = (self.x[self.real] % 1 == 0).all(axis=0)  # by feature
        perturbed = np.where(integer, self.x, self.x * (1 + self.eps * signs))
        real = self.real.reshape(*self.real.shape, *(1,) * (self.x.ndim - 2))
        with np.errstate(invalid="ignore"):
            perturbed = np.where(real, perturbed, self.x)
        subset = self.subset
        change = self(perturbed[subset].astype(self.x.dtype), subset) - self.subset_outputs
        return np.maximum(self.exact_unit, self._largest(change, subset))

    def relative_unit(self) -> float:
        """The largest unit of round-off, relative to the largest value of its output."""
        return float((self.unit / self.exact_unit).max() * self.eps)

    def _largest(self, y: np.ndarray, rows: Any) -> np.ndarray:
        """The largest absolute value of each output at real steps, `(1, 1, outputs)`; never 0."""
        real = self.real_outputs(rows)
        size = np.abs(y) if real is None else np.where(real[..., None], np.abs(y), 0.0)
        largest = size.max(axis=(0, 1), keepdims=True)
        return np.maximum(largest, max(largest.max() * 1e-6, np.finfo(np.float64).tiny))

    # ---------------------------------------------------------------------- model properties

    def _fixed_batch_size(self, inputs: ModelInputs) -> int | None:
        """The batch size that the model requires, or None."""
        sizes = {
            tensor.shape[0] for tensor in inputs.tensors if tensor is not None and tensor.shape[0]
        }
        if not sizes and self.is_keras and stateful_layers(self.model):
            sizes = {min(len(inputs.arrays[0]), SUBSET_ROWS)}
        if sizes and len(inputs.arrays[0]) < max(sizes):
            raise DataError(
                f"`x` must have at least {max(sizes)} rows, the batch size that the model was "
                f"built for. Received: {len(inputs.arrays[0])}."
            )
        return max(sizes) if sizes else None

    def _mask(self, mask: np.ndarray | None) -> np.ndarray | None:
        """The user's mask, the model's own, or that of steps equal to `padding`."""
        if mask is not None or not self._inputs.along:
            return mask
        if self.is_keras and len(self._inputs.arrays) == 1 and self._inputs.structure == "one":
            own_mask = model_function.resolve_mask(self.model, self.x)
            if own_mask is not None:
                return own_mask
        if self.padding is None:
            return None
        padded = (self.x == self.padding) | (np.isnan(self.x) & np.isnan(self.padding))
        return ~padded.reshape(*self.x.shape[:2], -1).all(axis=-1)

    def _fixed_time_reason(self) -> str:
        if not self.has_time:
            return "the input has no time axis"
        steps = self.x.shape[1]
        tensors = [self._inputs.tensors[position] for position in self._inputs.along]
        if any(tensor is not None and tensor.shape[1] is not None for tensor in tensors):
            return f"the model takes exactly {steps} steps"
        try:
            subset = self.subset
            self._shorter = self._run(self.x[subset][:, :-1], subset)
        except Exception:  # functions fail in any way on another number of steps
            return f"the model takes no other number of steps than {steps}"
        return ""

    def _is_aligned(self, y: np.ndarray) -> bool:
        steps = self.x.shape[1]
        if y.ndim < 2 or y.shape[1] != steps:
            return False
        if not self.fixed_time:
            return self._shorter.shape[1] == steps - 1
        return y.ndim > 2 or not model_function.align_output(self.model, y, steps, None)[1]


def _without_training(function: Any) -> Callable[[Any, bool], np.ndarray]:
    """A function or SavedModel as `f(inputs, training)`; it has no training mode."""
    call = model_function.as_function(function)
    return lambda inputs, training: call(inputs)


@contextlib.contextmanager
def _without_adapt_warning(model: keras.Model) -> Iterator[None]:
    """Silences the warning of unadapted Normalization layers, since nothing is trained here."""
    layers = [layer for layer in flatten_layers(model) if isinstance(layer, Normalization)]
    before = [layer._warned for layer in layers]
    for layer in layers:
        layer._warned = True
    try:
        yield
    finally:
        for layer, warned in zip(layers, before, strict=True):
            layer._warned = warned


def _compiled(function: Callable) -> Callable:
    """`function` of tensors, compiled on the TensorFlow backend."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True, autograph=False)
