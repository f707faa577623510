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
from keras_seqzoo.callbacks import PairMetrics
from keras_seqzoo.data import Batches, PairPreprocessor, SequencePairs
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.tasks.labeling import MULTIPLE
from keras_seqzoo.utils.argument_validation import argument_message

LABEL_SMOOTHING = 0.1


def check(name: str) -> None:
    """Refuses entries that are for something else.

    Raises:
        ArgumentError: if the entry is not for pairs.
    """
    if registry.get_entry(name).task != "seq2seq":
        raise ArgumentError(argument_message("name", "for seq2seq, to be trained on pairs", name))


def learn(
    name: str,
    examples: SequencePairs,
    *,
    min_count: int = 1,
    mask_value: float | None = math.nan,
) -> PairPreprocessor:
    """The tokens of training pairs."""
    preprocessor = PairPreprocessor.from_data(examples, min_count=min_count)
    if isinstance(preprocessor.source, int):  # readings
        preprocessor = dataclasses.replace(preprocessor, mask_value=mask_value)
    return preprocessor


def build(name: str, preprocessor: PairPreprocessor, **arguments: Any) -> keras.Model:
    """The model of an entry for the sequences of a preprocessor."""
    return registry.get(name, **preprocessor.model_arguments() | arguments)


def batches(
    preprocessor: PairPreprocessor, examples: SequencePairs, *, batch_size: int, seed: int
) -> Batches:
    """Batches to train on, of few different shapes."""
    return preprocessor.batches(
        examples, batch_size=batch_size, seed=seed, pad_to_multiple_of=MULTIPLE
    )


def loss(network: keras.Model, preprocessor: PairPreprocessor, label_smoothing: float = 0.0):
    """The loss of what is said."""
    if not preprocessor.generates_tokens:
        return layers.NormalizedMeanSquaredError()
    return layers.SmoothedCrossentropy(label_smoothing)


def adapt(network: keras.Model, preprocessor: PairPreprocessor, examples: SequencePairs) -> None:
    """Lets the scaling of readings, and their loss, learn from training pairs."""
    says = not preprocessor.generates_tokens
    target = np.concatenate(examples.targets)[None] if says else None
    if says:
        network.loss.adapt(target)
    if layers.has_scaling(network):
        layers.adapt(network, preprocessor.encode_sources(examples.sources), target=target)


def scores(preprocessor: PairPreprocessor, examples: SequencePairs) -> PairMetrics:
    """The callback that puts scores into the logs."""
    return PairMetrics(preprocessor, examples)


def monitored(preprocessor: PairPreprocessor) -> tuple[str, str]:
    """The key of the logs that an epoch is chosen by, and whether it should be "max" or "min"."""
    return ("val_accuracy", "max") if preprocessor.generates_tokens else ("val_error", "min")
