"""State leakage and look-ahead of a trained classifier or tagger."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.data import LabeledSequences, SequencePreprocessor
from keras_seqzoo.diagnostics import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_instance
from keras_seqzoo.utils.figures import new_axes

_MAX_ROWS = 256


@dataclasses.dataclass(frozen=True)
class SequenceLeakage:
    """How much the probabilities of a step depend on earlier and on later steps.

    Attributes:
        past: `LeakageReport` of earlier steps; its `memory_horizon` is the number of newest steps
            that decide the output.
        future: `LeakageReport` of later steps, measured with time reversed; None where there is one
            output for the whole sequence.
        steps: int, length of the sequences that were measured.
    """

    past: LeakageReport
    future: LeakageReport | None
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON."""
        future = self.future and self.future.to_dict()
        return {"past": self.past.to_dict(), "future": future, "steps": self.steps}

    def plot(self, ax=None):
        """Draws the leakage profiles of earlier and later steps; returns the matplotlib axes."""
        ax = new_axes() if ax is None else ax
        for label, report in (("earlier steps", self.past), ("later steps", self.future)):
            if report is not None:
                ax.plot(report.lags, np.maximum(report.by_lag, 1e-12), marker=".", label=label)
        ax.axhline(self.past.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
        ax.set(xlabel="nearest steps kept", ylabel="share of variance", yscale="log")
        ax.legend(frameon=False, fontsize="small")
        return ax

    def __str__(self) -> str:
        if self.future is None:
            return f"Memory horizon: {_horizon(self.past)} of {self.steps} steps."
        return (
            f"State leakage {self.past.index:.3g} (memory horizon {_horizon(self.past)} of "
            f"{self.steps} steps); look-ahead {self.future.index:.3g} (horizon "
            f"{_horizon(self.future)})."
        )


def measure_sequence_leakage(
    model: keras.Model,
    preprocessor: SequencePreprocessor,
    examples: LabeledSequences,
    *,
    seed: int = 0,
) -> SequenceLeakage:
    """Measures state leakage by `keras_seqzoo.leakage`, and the same with time reversed.

    Takes the first steps of sequences that are at least as long as most, so that all have one
    length; at most 256 of them. Classes are pooled: the variance of a rare class is close to 0.

    Args:
        model: a classifier or tagger on arrays: `TrainingResult.inner_model`.
        preprocessor: its `SequencePreprocessor`.
        examples: `LabeledSequences`, at least two of them with two steps.
        seed: int, of the choice of donors.

    Raises:
        DataError: if there are no two sequences to compare.
    """
    check_instance(keras.Model, model=model)
    check_instance(SequencePreprocessor, preprocessor=preprocessor)
    check_instance(LabeledSequences, examples=examples)
    lengths = examples.lengths
    steps = int(np.median(lengths)) if np.median(lengths) > 1 else int(lengths.max())
    rows = np.flatnonzero(lengths >= steps)[:_MAX_ROWS]
    if steps < 2 or len(rows) < 2:
        raise DataError(f"`examples` must have two sequences of two steps. Received: {examples!r}.")
    sequences = [examples.sequences[row][:steps] for row in rows]
    function = _probabilities(model, preprocessor)
    if preprocessor.tokens is None:
        x = np.stack(sequences)
    else:
        x = np.stack([preprocessor.tokens.encode(sequence) for sequence in sequences])
    past = leakage(function, x, scale="none", seed=seed)
    if preprocessor.target == "labels":
        return SequenceLeakage(past, None, steps)

    def reversed_in_time(x):
        return np.flip(function(np.flip(x, 1)), 1)

    future = leakage(reversed_in_time, x, scale="none", seed=seed)
    return SequenceLeakage(past, future, steps)


def _probabilities(model: keras.Model, preprocessor: SequencePreprocessor) -> Callable:
    """A function from arrays of readings or of token ids to probabilities."""
    predict = model.predict_on_batch
    if isinstance(model, layers.CRFModel):
        predict = model.probabilities
    if preprocessor.characters is None:
        return lambda x: np.asarray(keras.ops.convert_to_numpy(predict(x)))
    # Unknown tokens share one row of characters; most tokens are known.
    characters = preprocessor.character_ids()

    def of_tokens(x):
        inputs = {"tokens": x, "characters": characters[x]}
        return np.asarray(keras.ops.convert_to_numpy(predict(inputs)))

    return of_tokens


def _horizon(report: LeakageReport) -> str:
    if report.memory_horizon is None:
        return f"more than {report.lags[-1]}"
    return f"{report.memory_horizon}"
