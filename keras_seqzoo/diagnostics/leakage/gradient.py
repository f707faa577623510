"""State leakage by gradients: the share of the output's squared sensitivity that lies in the past.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage. Gradients give its local form.

Each probe picks one step and one output feature per row at random and runs one backward pass. The
gradients of the rows are rows of the Jacobian, which is never built. With a single feature per row
there are no cross terms to average out, unlike with random signs over all features, so that the
same number of backward passes gives a smaller variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection.gradients import gradient_of, tensor_function


def gradient_function(model: Any) -> Callable:
    """Gradient of one output per row, as `f(x, step, feature) -> (batch, time, features)`.

    `step` and `feature` are int `(batch,)`; `step` is None for a last-step output.
    """
    call = tensor_function(model)

    def selected_output(x: Any, step: Any, feature: Any) -> Any:
        y: Any = ops.convert_to_tensor(call(x))
        y = y[:, None] if len(y.shape) == 2 and step is None else y
        y = y[..., None] if len(y.shape) == 2 else y
        step = ops.zeros_like(feature) if step is None else step
        y = ops.take_along_axis(y, step[:, None, None], axis=1)
        return ops.take_along_axis(y[:, 0], feature[:, None], axis=1)

    return gradient_of(selected_output)


def squared_sensitivities(
    model, x, variance, steps, outputs: int, *, last_only: bool, probes: int, batch_size: int, rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared sensitivities of random outputs to every input step.

    Args:
        model: a differentiable model or function.
        x: `(batch, time, features)`.
        variance: `(features,)`, the weight of each input feature.
        steps: list of int arrays, the output steps that the probes of each row pick from.
        outputs: int, output features.
        last_only: bool, whether the output is the last step alone.
        probes: int, backward passes.
        batch_size: int, rows per pass.
        rng: generator.

    Returns:
        Squared sensitivities summed over input features `(probes * batch, time)`, and the step and
        the output feature of each probe, `(probes * batch,)` each.

    Raises:
        DataError: if the input has no gradient, as tokens have none.
        ArgumentError: if the model is not differentiable.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"`x` must be float for method='gradient': tokens have no gradient. Received: dtype "
            f"{x.dtype}. Use method='swap'."
        )
    gradient = gradient_function(model)
    x = x.astype(np.float32)
    squares, probe_steps, probe_features = [], [], []
    for _ in range(probes):
        step = np.array([rng.choice(choices) for choices in steps], np.int32)
        feature = rng.integers(0, outputs, len(x)).astype(np.int32)
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            gradients = gradient(x[part], None if last_only else step[part], feature[part])
            if gradients is None:
                raise ArgumentError(
                    "`model` must be differentiable by the backend for method='gradient'. "
                    f"Received: {model!r}. Use method='swap', which needs no gradients."
                )
            squares.append(gradients.astype(np.float64) ** 2 @ variance)
        probe_steps.append(step)
        probe_features.append(feature)
    return np.concatenate(squares), np.concatenate(probe_steps), np.concatenate(probe_features)
