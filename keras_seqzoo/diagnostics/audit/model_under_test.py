"""A model under audit: as fresh at each call as at the first, and left as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_seqzoo.diagnostics.audit.inputs import Inputs
from keras_seqzoo.diagnostics.audit.report import Example
from keras_seqzoo.errors import DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.inspection.model_graph import flatten_layers, stateful_layers
from keras_seqzoo.layers import CRFModel, Normalization
from keras_seqzoo.utils.array_validation import as_mask, check_finite

MOST_ROWS = 256  # for leakage, which is a mean over rows
FEW_ROWS = 12  # for the checks that look for one counter-example
# Whose `reset_state` forgets what they have learned, or is for stateful ones alone.
_NOT_STATE = (
    keras.layers.RNN,
    keras.layers.Bidirectional,
    keras.layers.TextVectorization,
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.Discretization,
)


class Memory:
    """What a Keras model keeps between calls: every variable that training does not move.

    Args:
        model: `keras.Model`, built.
    """

    def __init__(self, model: keras.Model):
        layers = flatten_layers(model)
        # Keras does not count the states of a recurrent layer among its variables.
        states = [one for layer in layers for one in _flat(getattr(layer, "states", None))]
        self.variables = [*model.non_trainable_variables, *states]
        self.seeds = [one for one in self.variables if "seed_generator_state" in one.path]
        self.stateful = [
            layer
            for layer in layers
            if getattr(layer, "stateful", False) or (_reset(layer) and not _forgets(layer))
        ]
        self.carrying = [layer for layer in layers if getattr(layer, "stateful", False)]

    def read(self, variables: list | None = None) -> list[tuple[Any, np.ndarray]]:
        """Variables and their values now; default all."""
        variables = self.variables if variables is None else variables
        return [(one, np.array(keras.ops.convert_to_numpy(one))) for one in variables]

    def reset(self) -> None:
        """Calls `reset_state` of every layer that has one."""
        for layer in self.stateful:
            reset = _reset(layer)
            if reset is not None:
                reset()


class ModelUnderTest:
    """What the checks ask: answers to rows, and how far two answers are apart.

    Attributes:
        x: `(batch, time, ...)`, the inputs along time.
        y: `(batch, steps, outputs)`, the answer to all rows.
        few_y: the answer to `few` of them.
        real: `(batch, time)` bool, real steps of `x`.
        rows: int array, positions of `x` in what the user gave.
        aligned: bool, whether the output has the input's steps.
        last: bool, whether the output has no steps.
        fixed: str, why the number of steps cannot change, or "".
        padding: a padded step, or None.
        memory: `Memory` of a Keras model, or None.

    Args:
        model: what is audited.
        inputs: `Inputs`.
        mask: bool array or None.
        mask_value: number or None.
        tolerance: number of round-off units that count as none.
        seed: int.
    """

    def __init__(self, model: Any, inputs: Inputs, *, mask, mask_value, tolerance, seed):
        self.model, self.tolerance = model, float(tolerance)
        self.is_keras = isinstance(model, keras.Model)
        self.rng = np.random.default_rng(seed)
        self.padding = inputs.padding(model, mask_value)
        self._batch = self._fixed_batch(inputs)
        count = len(inputs.arrays[0])
        wanted = min(count, max(MOST_ROWS, self._batch or 0))
        self.rows = np.unique(np.linspace(0, count - 1, wanted).round().astype(int))
        self.block_scale = len(self.rows) / count
        self._inputs = Inputs(
            [one[self.rows] for one in inputs.arrays],
            inputs.names, inputs.along, inputs.structure, inputs.tensors,
        )  # fmt: skip
        self.x = self._inputs.packed
        self.timed = bool(inputs.along) and self.x.ndim > 1 and self.x.shape[1] > 1
        mask = None if mask is None else as_mask(mask, (count, *self.x.shape[1:2]))[self.rows]
        self.mask = self._mask(mask)
        self.real = np.ones(self.x.shape[:2], bool) if self.mask is None else self.mask
        if not self.real.any():
            raise DataError("`x` must have a real step. Received: padding alone.")
        if inputs.along:
            check_finite(self.x.reshape(*self.x.shape[:2], -1), self.mask)
        self.memory: Memory | None = None
        self._found: list = []
        self._fresh: list = []
        self._function = None if self.is_keras else model_function.as_function(model)
        if isinstance(model, CRFModel):
            self._probabilities = _compiled(model.probabilities)
        self._begin()

    def _begin(self) -> None:
        """First answers: what is kept, whether output and input are aligned, what round-off is."""
        if self.is_keras and self.model.built:
            self._found = Memory(self.model).read()
        self.aligned, self.last = False, True
        few = self.few
        first = self._run(self.x[few], few)
        if self.is_keras:
            self.memory = Memory(self.model)
            known = {id(one) for one, _ in self._found}
            self._found += [one for one in self.memory.read() if id(one[0]) not in known]
            self._fresh = self._reset()
        self.fixed = self._why_fixed()
        self.aligned = self.timed and self._is_aligned(first)
        self.last = not self.aligned and first.ndim < 3
        self._scores_steps = self.aligned and first.ndim == 2
        self.y = self()
        model_function.check_output(self.y[self.real] if self.aligned else self.y)
        self.few_y = self(rows=few)
        # Of float64, too: smaller differences are no faults.
        self.eps = max(model_function.machine_epsilon(self.model), float(np.finfo(np.float32).eps))
        self.exact_unit = self._largest(self.y, slice(None)) * self.eps
        self.unit = self._unit()

    def _reset(self) -> list[tuple[Any, np.ndarray, bool]]:
        """What is kept, after a reset, and whether it is a seed; what no reset moves, as found."""
        found = {id(one): value for one, value in self._found}
        drawn = {id(one) for one in self.memory.seeds}
        moved = self.memory.read()
        self.memory.reset()
        return [
            (one, now if (now != before).any() else found[id(one)], id(one) in drawn)
            for (one, before), (_, now) in zip(moved, self.memory.read(), strict=True)
        ]

    # ------------------------------------------------------------------------------- answers

    @property
    def few(self) -> np.ndarray:
        """Positions of the rows that most checks look at, evenly spread."""
        count = min(len(self.x), self._batch or FEW_ROWS)
        return np.unique(np.linspace(0, len(self.x) - 1, count).round().astype(int))

    def __call__(self, x=None, rows=None, *, training=False, keep=False, seeds=True) -> np.ndarray:
        """The answer `(batch, steps, outputs)`, of a model that is fresh.

        Args:
            x: `(batch, time, ...)`; default that of `rows`.
            rows: int array, whose other inputs go with `x`; default all.
            training: bool, as of a Keras model.
            keep: bool, go on from the state of the call before.
            seeds: bool, draw the random numbers of the first call again.
        """
        rows = np.arange(len(self.x)) if rows is None else np.asarray(rows)
        x = self.x[rows] if x is None else x
        return self._shaped(self._run(x, rows, training=training, keep=keep, seeds=seeds))

    def _run(self, x, rows, *, training=False, keep=False, seeds=True) -> np.ndarray:
        size = self._batch or model_function.BATCH_SIZE
        parts = []
        for start in range(0, len(x), size):
            self._freshen(keep=keep, seeds=seeds)
            part = np.arange(start, min(start + size, len(x)))
            filled = np.resize(part, size) if self._batch else part
            answer = self._answer(self._inputs.unpacked(x[filled], rows[filled]), training)
            if answer.ndim < 1 or len(answer) != len(filled) or answer.dtype.kind not in "biuf":
                raise DataError(
                    "The output must be real numbers, one row for each row of the input. Received: "
                    f"shape {answer.shape}, dtype {answer.dtype} for {len(filled)} rows."
                )
            parts.append(answer[: len(part)])
        return np.concatenate(parts)

    def _freshen(self, *, keep: bool, seeds: bool) -> None:
        for variable, value, is_seed in self._fresh:
            if seeds if is_seed else not keep:
                variable.assign(value)

    def _answer(self, given: Any, training: bool) -> np.ndarray:
        if not self.is_keras:
            return self._function(given)
        with _unwarned(self.model):
            if isinstance(self.model, CRFModel):  # tags are too coarse to see much in
                found = self._probabilities(given, training=training)
            elif training or not getattr(self.model, "inputs", None):
                found = self.model(given, training=training)
            else:
                found = self.model.predict_on_batch(given)
        return model_function.as_output_array(found)

    def _shaped(self, y: np.ndarray) -> np.ndarray:
        y = y.astype(np.float64)
        if self.aligned or y.ndim > 2:
            return y.reshape(*y.shape[:2], int(np.prod(y.shape[2:])))
        return y.reshape(len(y), 1, -1)

    def real_outputs(self, rows: np.ndarray) -> np.ndarray | None:
        """What counts of an answer to rows: real steps, or all of it."""
        return self.real[rows] if self.aligned else None

    def leave(self) -> None:
        """Puts back what the model kept before the audit."""
        for variable, value in self._found:
            variable.assign(value)

    # --------------------------------------------------------------------------- comparisons

    def worst(self, found, expected, rows, *, real=None, first=0, exact=False) -> Example:
        """The largest difference between two answers, in units of round-off.

        Args:
            found: `(batch, steps, outputs)`.
            expected: the same.
            rows: int array, which row of `x` each is.
            real: `(batch, steps)` bool, what counts; default all.
            first: int, number of the first step.
            exact: bool, in units of the output's own round-off, whatever the model makes of that
                of its input.
        """
        if found.shape != expected.shape:
            return Example(int(self.rows[rows[0]]), None, 0, float("inf"), np.nan, np.nan)
        gap = np.abs(found - expected) / (self.exact_unit if exact else self.unit)
        gap = np.where(np.isfinite(gap), gap, np.inf)
        gap = np.where((found == expected) | (np.isnan(found) & np.isnan(expected)), 0.0, gap)
        if real is not None:
            gap = np.where(real[..., None], gap, 0.0)
        at = np.unravel_index(np.argmax(gap), gap.shape) if gap.size else None
        if at is None:
            return Example(int(self.rows[rows[0]]), None, 0, 0.0, np.nan, np.nan)
        return Example(
            row=int(self.rows[rows[at[0]]]),
            step=None if self.last else int(at[1]) + first,
            feature=int(at[2]),
            size=float(gap[at]),
            expected=float(expected[at]),
            found=float(found[at]),
        )

    def blind(self) -> str:
        """Why nothing could be seen in the output, or ""."""
        y = self.y[self.real] if self.aligned else self.y.reshape(-1, self.y.shape[-1])
        spread = y.max(axis=0) - y.min(axis=0)
        if not (spread > 0).any():
            return "the output is constant on these rows"
        if (self.tolerance * self.unit.reshape(-1) >= spread).all():
            return "round-off of the input alone moves the output by as much as it varies"
        return ""

    def _unit(self) -> np.ndarray:
        """Round-off, by output: that of the output, or what it is of the input, if that is more."""
        if not self.timed or self.x.dtype.kind in "biu" or (self.x[self.real] % 1 == 0).all():
            # Codes: no rounding of the input, and outputs of one kind.
            return np.full_like(self.exact_unit, self.exact_unit.max())
        signs = self.rng.choice([-1.0, 1.0], self.x.shape)
        whole = (self.x[self.real] % 1 == 0).all(axis=0)  # by feature
        nudged = np.where(whole, self.x, self.x * (1 + self.eps * signs))
        real = self.real.reshape(*self.real.shape, *(1,) * (self.x.ndim - 2))
        with np.errstate(invalid="ignore"):
            nudged = np.where(real, nudged, self.x)
        few = self.few
        moved = self(nudged[few].astype(self.x.dtype), few) - self.few_y
        return np.maximum(self.exact_unit, self._largest(moved, few))

    def relative_unit(self) -> float:
        """The largest unit of round-off, as a share of what it is the round-off of."""
        return float((self.unit / self.exact_unit).max() * self.eps)

    def _largest(self, y: np.ndarray, rows) -> np.ndarray:
        """The largest of each output, `(1, 1, outputs)`, at real steps; never 0."""
        real = self.real_outputs(rows)
        size = np.abs(y) if real is None else np.where(real[..., None], np.abs(y), 0.0)
        largest = size.max(axis=(0, 1), keepdims=True)
        return np.maximum(largest, max(largest.max() * 1e-6, np.finfo(np.float64).tiny))

    # ------------------------------------------------------------------------- what is known

    def _fixed_batch(self, inputs: Inputs) -> int | None:
        """The batch size that a model insists on, or None."""
        sizes = {one.shape[0] for one in inputs.tensors if one is not None and one.shape[0]}
        if not sizes and self.is_keras and stateful_layers(self.model):
            sizes = {min(len(inputs.arrays[0]), FEW_ROWS)}
        if sizes and len(inputs.arrays[0]) < max(sizes):
            raise DataError(
                f"`x` must have at least {max(sizes)} rows, the batch that the model was built "
                f"for. Received: {len(inputs.arrays[0])}."
            )
        return max(sizes) if sizes else None

    def _mask(self, mask: np.ndarray | None) -> np.ndarray | None:
        """Given, found by the model, or by what fills padded steps."""
        if mask is not None or not self._inputs.along:
            return mask
        if self.is_keras and len(self._inputs.arrays) == 1 and self._inputs.structure == "one":
            found = model_function.resolve_mask(self.model, self.x)
            if found is not None:
                return found
        if self.padding is None:
            return None
        same = (self.x == self.padding) | (np.isnan(self.x) & np.isnan(self.padding))
        return ~same.reshape(*self.x.shape[:2], -1).all(axis=-1)

    def _why_fixed(self) -> str:
        if not self.timed:
            return "the input has no time axis"
        steps = self.x.shape[1]
        if any(
            self._inputs.tensors[at] is not None and self._inputs.tensors[at].shape[1] is not None
            for at in self._inputs.along
        ):
            return f"the model takes {steps} steps, no more and no fewer"
        try:
            few = self.few
            self._shorter = self._run(self.x[few][:, :-1], few)
        except Exception:  # as a foreign function trips over another number of steps
            return f"the model takes no other number of steps than {steps}"
        return ""

    def _is_aligned(self, y: np.ndarray) -> bool:
        steps = self.x.shape[1]
        if y.ndim < 2 or y.shape[1] != steps:
            return False
        if not self.fixed:
            return self._shorter.shape[1] == steps - 1
        return y.ndim > 2 or not model_function.align_output(self.model, y, steps, None)[1]


@contextlib.contextmanager
def _unwarned(model: keras.Model) -> Iterator[None]:
    """Without the warning of a scaling that was never adapted, since nothing is trained here."""
    scalings = [one for one in flatten_layers(model) if isinstance(one, Normalization)]
    before = [one._warned for one in scalings]
    for one in scalings:
        one._warned = True
    try:
        yield
    finally:
        for one, warned in zip(scalings, before, strict=True):
            one._warned = warned


def _compiled(function: Callable) -> Callable:
    """A function of tensors, compiled where that is TensorFlow's to do."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True, autograph=False)


def _flat(states: Any) -> list:
    if states is None:
        return []
    found = keras.tree.flatten(states)
    return [one for one in found if isinstance(one, keras.Variable)]


def _reset(layer: Any):
    return getattr(layer, "reset_state", None) or getattr(layer, "reset_states", None)


def _forgets(layer: Any) -> bool:
    return isinstance(layer, _NOT_STATE)
