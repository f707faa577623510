"""How classifiers and taggers are trained: what `train` and a search need to know of examples.

`pairs` has the same functions, of encoder-decoders.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers, registry
from keras_seqzoo.callbacks import SequenceMetrics
from keras_seqzoo.data import Batches, LabeledSequences, SequencePreprocessor
from keras_seqzoo.data.batching import POOL
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.utils.argument_validation import argument_message

# What early stopping looks at, and what is said to be good.
_MONITORED = {"labels": "val_accuracy", "tags": "val_f1"}
# All words of the training text are known; some must not be for the unknown word to be learned.
_WORD_DROPOUT = 0.1
# Lengths are rounded up to multiples of it: a compiled recurrence is compiled for each length.
MULTIPLE = 4
LABEL_SMOOTHING = 0.0


def check(name: str) -> None:
    """Refuses entries that are for something else.

    Raises:
        ArgumentError: if the entry has no target.
    """
    if registry.get_entry(name).target is None:
        raise ArgumentError(argument_message("name", "for classification or tagging", name))


def learn(
    name: str,
    examples: LabeledSequences,
    *,
    min_count: int = 1,
    mask_value: float | None = math.nan,
) -> SequencePreprocessor:
    """The names of training examples, with characters where the entry looks at them."""
    entry = registry.get_entry(name)
    preprocessor = SequencePreprocessor.from_data(
        examples,
        target=entry.target,
        characters=entry.arguments().get("character_vocabulary_size") is not None,
        min_count=min_count,
    )
    if preprocessor.tokens is not None:
        return preprocessor
    return dataclasses.replace(preprocessor, mask_value=mask_value)


def build(name: str, preprocessor: SequencePreprocessor, **arguments: Any) -> keras.Model:
    """The model of an entry for the names of a preprocessor; tags of the BIO kind come in order."""
    entry = registry.get_entry(name)
    given = preprocessor.model_arguments() | arguments
    if preprocessor.tokens is not None and not entry.arguments()["word_dropout"]:
        given = {"word_dropout": _WORD_DROPOUT} | given
    if {"head": "crf"}.items() <= (entry.arguments() | arguments).items():
        bio = all(tag == "O" or tag[:2] in ("B-", "I-") for tag in preprocessor.classes)
        given = {
            "constraints": layers.bio_constraints(preprocessor.classes) if bio else None
        } | given
    return registry.get(name, **given)


def batches(
    preprocessor: SequencePreprocessor,
    examples: LabeledSequences,
    *,
    batch_size: int,
    seed: int,
    class_weight: Any = None,
) -> Batches:
    """Batches to train on, of few different shapes."""
    return preprocessor.batches(
        examples, batch_size=batch_size, class_weight=class_weight, seed=seed,
        pad_to_multiple_of=MULTIPLE, pool=pool(preprocessor),
    )  # fmt: skip


def pool(preprocessor: SequencePreprocessor) -> int:
    """Of how many batches sequences are sorted by length.

    Where length tells the label, a batch of similar lengths is a batch of few labels: those are
    drawn at random.
    """
    return 1 if preprocessor.target == "labels" else POOL


def loss(
    network: keras.Model, preprocessor: SequencePreprocessor | None, label_smoothing: float = 0.0
):
    """The loss that fits the head; a CRF brings its own."""
    if isinstance(network, layers.CRFModel):
        if label_smoothing:
            hint = "A CRF is trained by the likelihood of whole sequences."
            raise ArgumentError(
                argument_message("label_smoothing", "0 with a CRF", label_smoothing, hint)
            )
        return None
    return crossentropy(label_smoothing)


def adapt(
    network: keras.Model, preprocessor: SequencePreprocessor, examples: LabeledSequences
) -> None:
    """Lets the scaling of readings learn its ranges."""
    if layers.has_scaling(network):
        steps = np.concatenate(examples.sequences)
        layers.adapt(network, steps[None])


def scores(preprocessor: SequencePreprocessor, examples: LabeledSequences) -> SequenceMetrics:
    """The callback that puts scores into the logs."""
    return SequenceMetrics(preprocessor, examples)


def monitored(preprocessor: SequencePreprocessor) -> tuple[str, str]:
    """The key of the logs that an epoch is chosen by, and whether it should be "max" or "min"."""
    return _MONITORED[preprocessor.target], "max"
