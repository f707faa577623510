"""Training of a single trial."""

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
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.random import seeded


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        model: the trained model, with the weights of its best epoch.
        metrics: logs of the best epoch.
        epoch: int, the best epoch, from 0.
        history: logs of all epochs.
        seconds: float, training time.
    """

    model: keras.Model
    metrics: dict[str, float]
    epoch: int
    history: dict[str, list[float]]
    seconds: float


def run_trial(
    hypermodel: ZooHyperModel,
    hp: keras_tuner.HyperParameters,
    *,
    objectives: list[keras_tuner.Objective],
    epochs: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
) -> TrialResult:
    """Build and train one trial. All its random numbers are derived from `seed`.

    Raises:
        FailedTrialError: if no epoch had a finite objective.
    """
    started = time.monotonic()
    best = BestEpoch(objectives)
    with seeded(seed), _temporary_gradients():
        model = hypermodel.build(hp)
        hypermodel.task.adapt(model)
        history = hypermodel.task.fit(
            model,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[best, *copy.deepcopy(list(callbacks))],
            verbose=0,
        )
    if best.metrics is None:
        last = {key: values[-1] for key, values in history.history.items()}
        raise FailedTrialError(divergence_message(objectives, last))
    model.set_weights(best.weights)
    return TrialResult(model, best.metrics, best.epoch, history.history, time.monotonic() - started)


def free_memory(*, clear_kernels: bool) -> None:
    """Free the memory of finished trials.

    Models are reference cycles, which only the garbage collector frees.

    Args:
        clear_kernels: bool, whether to clear TensorFlow's kernel cache too. Compiled programs that
            are still in use would then be compiled again.
    """
    gc.collect()
    if clear_kernels and keras.backend.backend() == "tensorflow":
        compat.clear_kernel_cache()


@contextlib.contextmanager
def _temporary_gradients() -> Iterator[None]:
    """Remove the gradients that are registered inside the context.

    TensorFlow registers the gradient of every call of a function with a custom gradient, such as
    those of the recurrent layers, and keeps it and its graph until the process ends. Models that
    were trained inside cannot be trained further.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    registered = compat.registered_gradients()
    try:
        yield
    finally:
        for name in compat.registered_gradients() - registered:
            compat.remove_gradient(name)


def divergence_message(objectives: list[keras_tuner.Objective], last: dict[str, float]) -> str:
    """Error message for a trial without a finite epoch; `last` are the logs of its last epoch."""
    names = ", ".join(objective.name for objective in objectives)
    return (
        f"No epoch had a finite {names}: training diverged. Logs of the last epoch: "
        f"{ {name: round(value, 6) for name, value in last.items()} }."
    )


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights and the logs of the epoch with the best objective, in memory.

    Several objectives are summed, as in KerasTuner. Epochs whose objectives are not finite are
    ignored.
    """

    def __init__(self, objectives: list[keras_tuner.Objective]):
        super().__init__()
        self.objectives = objectives
        self.cost = np.inf
        self.metrics: dict[str, float] | None = None
        self.weights: list[np.ndarray] = []
        self.epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep this epoch if it is the best so far."""
        logs = logs or {}
        missing = [objective.name for objective in self.objectives if objective.name not in logs]
        if missing:
            raise keras_tuner.errors.FatalValueError(
                f"`objective` must be in the logs of an epoch. Received: {', '.join(missing)}; the "
                f"logs have {', '.join(logs)}."
            )
        values = [
            -logs[objective.name] if objective.direction == "max" else logs[objective.name]
            for objective in self.objectives
        ]
        cost = float(sum(values))
        if np.isfinite(values).all() and cost < self.cost:
            self.cost, self.epoch = cost, epoch
            self.metrics = {name: float(value) for name, value in logs.items()}
            if self.model is None:
                raise RuntimeError("`BestEpoch` must be set to a model, as `Model.fit` does.")
            self.weights = self.model.get_weights()
