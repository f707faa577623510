"""How far a trained tagger or classifier looks, back and ahead."""

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

_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Memory:
    """How much the probabilities of a step owe to steps before it, and to steps after it.

    Attributes:
        past: `LeakageReport` of earlier steps; its `memory_horizon` is how many of the newest
            steps decide.
        future: the same of later steps, with time turned round; None where there is one answer for
            the whole sequence.
        steps: int, the length of the sequences it was measured on.
    """

    past: LeakageReport
    future: LeakageReport | None
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON."""
        future = self.future and self.future.to_dict()
        return {"past": self.past.to_dict(), "future": future, "steps": self.steps}

    def __str__(self) -> str:
        if self.future is None:
            return f"Memory: {_horizon(self.past)} of {self.steps} steps decide the answer."
        return (
            f"Memory: earlier steps make {self.past.index:.3g} of an answer's variance "
            f"({_horizon(self.past)} decide it), later steps {self.future.index:.3g} "
            f"({_horizon(self.future)})."
        )


def measure_memory(
    network: keras.Model,
    preprocessor: SequencePreprocessor,
    examples: LabeledSequences,
    *,
    seed: int = 0,
) -> Memory:
    """Measures how far a network looks, by `keras_seqzoo.leakage` in either direction of time.

    Of sequences that are at least as long as most, the first steps are taken, so that all have one
    length; at most 256 of them. Classes are pooled: a rare one's variance is next to nothing.

    Args:
        network: a classifier or tagger that takes numbers: `TrainingResult.network`.
        preprocessor: its `SequencePreprocessor`.
        examples: `LabeledSequences`, of which at least two must have two steps.
        seed: int, of the partners whose past or future is taken.

    Raises:
        DataError: if there are no two sequences to compare.
    """
    check_instance(keras.Model, network=network)
    check_instance(SequencePreprocessor, preprocessor=preprocessor)
    check_instance(LabeledSequences, examples=examples)
    lengths = examples.lengths
    steps = int(np.median(lengths)) if np.median(lengths) > 1 else int(lengths.max())
    rows = np.flatnonzero(lengths >= steps)[:_ROWS]
    if steps < 2 or len(rows) < 2:
        raise DataError(f"`examples` must have two sequences of two steps. Received: {examples!r}.")
    sequences = [examples.sequences[row][:steps] for row in rows]
    function = _probabilities(network, preprocessor, sequences)
    if preprocessor.tokens is None:
        x = np.stack(sequences)
    else:
        x = np.stack([preprocessor.tokens.encode(sequence) for sequence in sequences])
    past = leakage(function, x, scale="none", seed=seed)
    if preprocessor.target == "labels":
        return Memory(past, None, steps)

    def turned(x):
        return np.flip(function(np.flip(x, 1)), 1)

    return Memory(past, leakage(turned, x, scale="none", seed=seed), steps)


def _probabilities(network: keras.Model, preprocessor: SequencePreprocessor, sequences) -> Callable:
    """From arrays of readings or of token numbers to probabilities."""
    answer = network.predict_on_batch
    if isinstance(network, layers.CRFModel):
        answer = network.probabilities
    if preprocessor.characters is None:
        return lambda x: np.asarray(keras.ops.convert_to_numpy(answer(x)))
    # A word that is unknown has the characters of any such word; most are known.
    spelled = preprocessor.character_ids()

    def of_words(x):
        given = {"tokens": x, "characters": spelled[x]}
        return np.asarray(keras.ops.convert_to_numpy(answer(given)))

    return of_words


def _horizon(report: LeakageReport) -> str:
    if report.memory_horizon is None:
        return f"more than {report.lags[-1]}"
    return f"{report.memory_horizon}"
