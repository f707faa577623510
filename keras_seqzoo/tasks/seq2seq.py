"""How encoder-decoders are trained: what `train` and a search need to know of pairs.

`examples` has the same functions, of classifiers and taggers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers, registry
from keras_seqzoo.callbacks import PairScores
from keras_seqzoo.data import Batches, ParallelEncoding, ParallelExamples
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.tasks.labeling import MULTIPLE
from keras_seqzoo.utils.argument_validation import argument_message

LABEL_SMOOTHING = 0.1


def check(name: str) -> None:
    """Refuses entries that are for something else.

    Raises:
        ArgumentError: if the entry is not for pairs.
    """
    if registry.get_entry(name).task != "transduction":
        raise ArgumentError(
            argument_message("name", "for transduction, to be trained on pairs", name)
        )


def learn(
    name: str,
    examples: ParallelExamples,
    *,
    min_count: int = 1,
    mask_value: float | None = math.nan,
) -> ParallelEncoding:
    """The tokens of training pairs."""
    encoding = ParallelEncoding.learn(examples, min_count=min_count)
    if isinstance(encoding.source, int):  # readings
        encoding = dataclasses.replace(encoding, mask_value=mask_value)
    return encoding


def build(name: str, encoding: ParallelEncoding, **arguments: Any) -> keras.Model:
    """The model of an entry for the sequences of an encoding."""
    return registry.get(name, **encoding.arguments() | arguments)


def batches(
    encoding: ParallelEncoding, examples: ParallelExamples, *, batch_size: int, seed: int
) -> Batches:
    """Batches to train on, of few different shapes."""
    return encoding.batches(examples, batch_size=batch_size, seed=seed, multiple=MULTIPLE)


def loss(network: keras.Model, encoding: ParallelEncoding, label_smoothing: float = 0.0):
    """The loss of what is said."""
    if not encoding.says_tokens:
        return layers.NormalizedMeanSquaredError()
    return layers.SmoothedCrossentropy(label_smoothing)


def adapt(network: keras.Model, encoding: ParallelEncoding, examples: ParallelExamples) -> None:
    """Lets the scaling of readings, and their loss, learn from training pairs."""
    says = not encoding.says_tokens
    target = np.concatenate(examples.targets)[None] if says else None
    if says:
        network.loss.adapt(target)
    if layers.has_scaling(network):
        layers.adapt(network, encoding.sources(examples.sources), target=target)


def scores(encoding: ParallelEncoding, examples: ParallelExamples) -> PairScores:
    """The callback that puts scores into the logs."""
    return PairScores(encoding, examples)


def monitored(encoding: ParallelEncoding) -> tuple[str, str]:
    """The key of the logs that an epoch is chosen by, and whether it should be "max" or "min"."""
    return ("val_accuracy", "max") if encoding.says_tokens else ("val_error", "min")
