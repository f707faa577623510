"""State leakage by gradients: the share of the output's squared sensitivity that lies in the past.

Each probe picks one step and one output feature per row at random and runs one backward pass: the
rows' gradients are rows of the Jacobian, which is never built. A single feature per row, instead
of random signs over all of them, leaves no cross terms to average out, so that the same number of
backward passes says more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection.gradients import gradient_of, tensor_function


def gradient_function(model: Any) -> Callable:
    """`f(x, step, feature) -> (batch, time, features)`: one backward pass for all rows."""
    call = tensor_function(model)

    def chosen(x, step, feature):
        y = ops.convert_to_tensor(call(x))
        y = y[:, None] if len(y.shape) == 2 and step is None else y
        y = y[..., None] if len(y.shape) == 2 else y
        step = ops.zeros_like(feature) if step is None else step
        y = ops.take_along_axis(y, step[:, None, None], axis=1)[:, 0]
        return ops.take_along_axis(y, feature[:, None], axis=1)

    return gradient_of(chosen)


def sensitivities(
    model, x, variance, steps, outputs: int, *, last: bool, probes: int, batch_size: int, rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared sensitivities of random outputs to every input step.

    Args:
        model: what `gradient_function` takes.
        x: `(batch, time, features)`.
        variance: `(features,)`, the weight of each input feature.
        steps: list of arrays, the steps each row may be asked about.
        outputs: int, output features.
        last: bool, whether the model gives its last step alone.
        probes: int, backward passes.
        batch_size: int, rows per pass.
        rng: generator.

    Returns:
        `(probes * batch, time)` squared sensitivities summed over input features; and the
        step and the output feature asked about, `(probes * batch,)` each.

    Raises:
        DataError: if the input has no gradient, as tokens have none.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"`x` must be float for method='gradient': tokens have no gradient. Received: dtype "
            f"{x.dtype}. Use method='swap'."
        )
    gradient = gradient_function(model)
    x = x.astype(np.float32)
    squares, asked_steps, asked_features = [], [], []
    for _ in range(probes):
        step = np.array([rng.choice(choices) for choices in steps], np.int32)
        feature = rng.integers(0, outputs, len(x)).astype(np.int32)
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            found = gradient(x[part], None if last else step[part], feature[part])
            if found is None:
                raise ArgumentError(
                    "`model` must be differentiable by the backend for method='gradient'. "
                    f"Received: {model!r}. Use method='swap', which needs no gradients."
                )
            squares.append(found.astype(np.float64) ** 2 @ variance)
        asked_steps.append(step)
        asked_features.append(feature)
    return np.concatenate(squares), np.concatenate(asked_steps), np.concatenate(asked_features)
