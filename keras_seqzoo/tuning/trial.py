"""One trial trained. Knows neither where its parameters come from nor where its weights go."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError

from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.rows import Rows
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.random import seeded


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A trained model, the figures of its best epoch, and the curves of all."""

    model: keras.Model
    metrics: dict[str, float]
    epoch: int
    history: dict[str, list[float]]
    seconds: float


def run_trial(
    hypermodel: ZooHyperModel,
    hp: keras_tuner.HyperParameters,
    rows: Rows,
    *,
    objectives: list[keras_tuner.Objective],
    epochs: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
) -> TrialResult:
    """Builds and trains one trial; everything random in it follows from `seed`.

    Raises:
        FailedTrialError: if no epoch had a finite objective.
    """
    started = time.monotonic()
    best = BestEpoch(objectives)
    with seeded(seed), _gradients_released():
        model = hypermodel.build(hp)
        history = hypermodel.fit_rows(
            model,
            rows,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[best, *copy.deepcopy(list(callbacks))],
            verbose=0,
        )
    if best.metrics is None:
        last = {key: values[-1] for key, values in history.history.items()}
        raise FailedTrialError(diverged(objectives, last))
    model.set_weights(best.weights)
    return TrialResult(model, best.metrics, best.epoch, history.history, time.monotonic() - started)


def release(*, kernels: bool) -> None:
    """Frees what finished trials left: models, which are cycles, and TensorFlow's kernels of each.

    Without its kernels a compiled program would be compiled again.
    """
    gc.collect()
    if kernels and keras.backend.backend() == "tensorflow":
        compat.clear_kernel_cache()


@contextlib.contextmanager
def _gradients_released() -> Iterator[None]:
    """Forgets the gradients that were registered inside; nothing trained there trains on.

    TensorFlow registers the gradient of each call of a function that brings its own, as the
    recurrent layers do, for as long as the process lives, and with it the whole graph.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    known = compat.registered_gradients()
    try:
        yield
    finally:
        for name in compat.registered_gradients() - known:
            compat.remove_gradient(name)


def diverged(objectives: list[keras_tuner.Objective], last: dict[str, float]) -> str:
    """What is said of a trial without a finite epoch."""
    names = ", ".join(one.name for one in objectives)
    return (
        f"No epoch had a finite {names}: training diverged. The last epoch gave "
        f"{ {name: round(value, 6) for name, value in last.items()} }."
    )


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights and the logs of the epoch with the best objective, in memory.

    Several objectives are summed, as in KerasTuner. An epoch that is not finite never counts.
    """

    def __init__(self, objectives: list[keras_tuner.Objective]):
        super().__init__()
        self.objectives = objectives
        self.cost = np.inf
        self.metrics: dict[str, float] | None = None
        self.weights: list[np.ndarray] = []
        self.epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares this epoch with the best so far."""
        missing = [one.name for one in self.objectives if one.name not in logs]
        if missing:
            raise keras_tuner.errors.FatalValueError(
                f"`objective` must be in the logs of an epoch. Received: {', '.join(missing)}; the "
                f"logs have {', '.join(logs)}."
            )
        values = [
            -logs[one.name] if one.direction == "max" else logs[one.name] for one in self.objectives
        ]
        cost = float(sum(values))
        if np.isfinite(values).all() and cost < self.cost:
            self.cost, self.epoch = cost, epoch
            self.metrics = {name: float(value) for name, value in logs.items()}
            self.weights = self.model.get_weights()
