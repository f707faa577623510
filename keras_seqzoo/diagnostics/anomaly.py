"""One anomaly score per reading, from a near-identity model's residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics import functions
from keras_seqzoo.errors import DataError


def anomaly_score(
    model: Any,
    x_train: Any,
    *,
    alone: bool = False,
    mask: Any = None,
    batch_size: int = functions.BATCH_SIZE,
) -> Callable[[Any], np.ndarray]:
    """A function that scores each reading by how badly the model gives it back.

    The score of a step is the root of the mean over features of its squared residual, each feature
    divided by the mean squared residual in training: about 1 is usual. Nothing rolling enters it.

    The score is a function of the residual, so its leakage is not the model's: a residual of 0.5 %
    of the variance, with a model leakage of 0.2 %, can owe 40 % to the past. Measure it:
    `keras_seqzoo.leakage(score, x)`. With `alone=True` it is 0 by construction.

    Shapes: the score maps `(batch, time, features)` to `(batch, time)`, at least 0.
    Masking: padded steps of `x_train` (the model's own mask, or `mask`) are left out; the scores
        of padded steps mean nothing.
    State: none.

    Args:
        model: a model, a loaded SavedModel or a function that gives its input back at every step.
        x_train: rows the model was trained on.
        alone: bool, run every reading as a window of one step, from the initial state, so that no
            other reading can enter its score. For models that keep next to nothing anyway.
        mask: bool array `(batch, time)` for `x_train`, True for real steps.
        batch_size: int, rows per call of the model.

    Raises:
        DataError: if the output has another shape than the input.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 1))
    >>> score = zoo.anomaly_score(lambda x: 0.9 * x, x)
    >>> score(x).shape
    (8, 20)
    """
    function = functions.as_function(model)

    def residual(x: np.ndarray) -> np.ndarray:
        if alone:
            steps = x.reshape(-1, 1, *x.shape[2:])
            output = functions.run(function, steps, batch_size).reshape(x.shape)
        else:
            output = functions.run(function, x, batch_size)
        if output.shape != x.shape:
            raise DataError(
                "The model must give its input back at every step (return_sequences=True). "
                f"Received: output shape {output.shape} for input shape {x.shape}."
            )
        return x.astype(np.float64) - output

    x_train, mask = functions.read_rows(model, x_train, mask)
    if x_train.ndim != 3:
        raise DataError(
            f"`x_train` must have shape (batch, time, features). Received: shape {x_train.shape}."
        )
    real = np.ones(x_train.shape[:2], bool) if mask is None else mask
    if not real.any():
        raise DataError("`x_train` must have real steps. Received: padding alone.")
    usual = (residual(x_train)[real] ** 2).mean(axis=0)
    # A residual below round-off says nothing; dividing by it would make anything an anomaly.
    round_off = np.finfo(np.float32).eps * np.abs(x_train[real]).max(axis=0)
    usual = np.maximum(usual, np.maximum(round_off**2, np.finfo(np.float32).tiny))

    def score(x: Any) -> np.ndarray:
        return np.sqrt((residual(np.asarray(x)) ** 2 / usual).mean(axis=-1))

    return score
