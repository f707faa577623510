"""State leakage during training, as a Keras callback."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.errors import ArgumentError, DataError, UnknownArgumentError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.metrics.identity_error import identity_error
from keras_seqzoo.utils.argument_validation import argument_message, is_int, unknown_name_message
from keras_seqzoo.utils.array_validation import as_array, as_mask


class StateLeakage(keras.callbacks.Callback):
    """Writes state leakage, identity error and their sum into the logs of every epoch.

    The keys are `val_state_leakage`, `val_identity_error` and `val_identity_cost`; the latter two
    only if the output has the target's shape. Put this callback in front of those that read the
    keys (`EarlyStopping("val_identity_cost", mode="min")`, `ModelCheckpoint`, `TensorBoard`): Keras
    calls them in order. A model that has diverged gets nan, and training goes on.

    Args:
        x: validation rows, `(batch, time, features)`.
        y: their target; default `x` itself, the last real step where only that comes out.
        max_rows: int, at least 2: of more rows, so many evenly spread ones are used.
        prefix: str, in front of each key.
        **options: of `keras_seqzoo.leakage`, such as `cuts`, `mask`, `block`, `seed`.

    Example:

    >>> import keras, keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(64, 20, 1))
    >>> model = zoo.get("simple_rnn_identity")
    >>> zoo.adapt(model, x)
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, x, verbose=0, callbacks=[zoo.StateLeakage(x)])
    >>> sorted(history.history)
    ['loss', 'val_identity_cost', 'val_identity_error', 'val_state_leakage']
    """

    def __init__(
        self, x: Any, y: Any = None, *, max_rows: int = 1024, prefix: str = "val_", **options: Any
    ):
        super().__init__()
        if not is_int(max_rows) or max_rows < 2:
            raise ArgumentError(argument_message("max_rows", "an int of at least 2", max_rows))
        known = inspect.signature(leakage).parameters
        for option in options:
            if option not in known:
                raise UnknownArgumentError(
                    unknown_name_message("option of leakage:", option, known)
                )
        x = as_array("x", x)
        if x.ndim < 2 or len(x) < 2 or x.dtype.kind not in "iuf":
            expected = "at least 2 rows of numbers of shape (batch, time, ...)"
            raise ArgumentError(argument_message("x", expected, x))
        # Which rows are measured.
        self.rows = chosen = np.unique(
            np.linspace(0, len(x) - 1, min(len(x), max_rows)).round().astype(int)
        )
        # Arrays only: KerasTuner copies callbacks deeply for every trial.
        self.x = x[chosen]
        self.y = None if y is None else as_array("y", y)
        if self.y is not None:
            if self.y.shape[:1] != x.shape[:1]:
                raise ArgumentError(
                    argument_message("y", f"of {len(x)} rows, as `x`", self.y.shape)
                )
            self.y = self.y[chosen]
        self.prefix = prefix
        self.options = {"resamples": 0} | options
        if "block" in options:  # rows that were left out no longer overlap those that stay
            self.options["block"] = -(-options["block"] * len(self.x) // len(x))
        if self.options.get("mask") is not None:
            self.options["mask"] = as_mask(self.options["mask"], x.shape[:2])[chosen]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures, and writes plain floats into `logs`."""
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in self.measure().items()})

    def measure(self) -> dict[str, float]:
        """The figures of `self.model` as it is now."""
        try:
            index = leakage(self.model, self.x, **self.options).index
        except DataError:
            answer = model_function.run(model_function.as_function(self.model), self.x)
            if np.isfinite(answer).all():
                raise  # not the model's fault
            index = float("nan")
        figures = {"state_leakage": index}
        if self._has_target():
            error = identity_error(self.model, self.x, self.y, mask=self.options.get("mask"))
            figures |= {"identity_error": error, "identity_cost": error + index}
        return figures

    def _has_target(self) -> bool:
        if self.y is not None:
            return True
        shape = self.model.output_shape
        return len(shape) in (2, 3) and shape[-1] == self.x.shape[-1] and self.x.ndim == 3
