"""One model of the zoo, trained on examples."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import layers, registry
from keras_seqzoo.data import Encoding, Examples
from keras_seqzoo.diagnostics import Scores
from keras_seqzoo.errors import (
    ArgumentError,
    check_positive,
    check_seed,
    is_real,
    sentence,
    unknown,
)
from keras_seqzoo.seeds import seeded
from keras_seqzoo.training.named import with_names
from keras_seqzoo.training.scores import SequenceScores

TARGETS = {"classification": "labels", "tagging": "tags"}
# What early stopping looks at, and what is said to be good.
MONITORED = {"labels": "val_accuracy", "tags": "val_f1"}
# Long sequences give long gradients now and then.
_CLIPNORM = 5.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `train` returns.

    Attributes:
        model: `keras.Model` that takes sentences, or readings, and gives names: `with_names`.
        network: the model inside it, which takes and gives numbers.
        encoding: `keras_seqzoo.data.Encoding`, between names and numbers.
        scores: `Scores` of the validation examples, by the weights of the best epoch.
        history: `pandas.DataFrame`, a row per epoch.
        seconds: float, of training and validation.
    """

    model: keras.Model
    network: keras.Model
    encoding: Encoding
    scores: Scores
    history: pd.DataFrame
    seconds: float


def train(
    name: str,
    examples: Examples,
    validation: Examples | None = None,
    *,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float | None = None,
    patience: int = 6,
    class_weight=None,
    min_count: int = 1,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> Trained:
    """Trains a classifier or tagger of the zoo on labelled or tagged sequences.

    Learns the vocabularies of the training examples, trains with Adam on batches of similar
    lengths, halves the learning rate where validation scores stay behind, and gives the weights of
    the best epoch: by accuracy for labels, by F1 for tags.

    Args:
        name: str, an entry of the tasks "classification" or "tagging".
        examples: `keras_seqzoo.data.Examples` to train on.
        validation: `Examples` to choose the epoch by; None takes a tenth of `examples` for it.
        epochs: int, at least 1, at most so many.
        batch_size: int, at least 1.
        learning_rate: float above 0; None takes the default of the entry's search space.
        patience: int, at least 1, epochs without a better score until training ends; the learning
            rate is halved after half as many.
        class_weight: "balanced", a dict of class to weight, or None; see `Encoding.batches`.
        min_count: int, at least 1, how often a token must occur to be known.
        seed: int, everything random follows from it.
        verbose: 0 is quiet, 1 prints a line per epoch.
        **arguments: of the constructor.

    Returns:
        A `Trained`.

    Raises:
        ArgumentError: if the entry is for another task, or an option is out of range.
        DataError: if examples have other names or features than they must.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.Examples([["play", "jazz"], ["stop"]] * 9, labels=["Play", "Stop"] * 9)
    >>> trained = zoo.train("gru_classifier", text, epochs=9, units=8, verbose=0)
    >>> trained.model.predict(np.array(["play jazz now"], object), verbose=0)["labels"].shape
    (1,)
    """
    entry = registry.entry(name)
    if entry.task not in TARGETS:
        raise ArgumentError(sentence("name", f"for one of {', '.join(TARGETS)}", name))
    check_positive(epochs=epochs, batch_size=batch_size, patience=patience)
    check_seed(seed)
    if learning_rate is None:
        learning_rate = entry.space["learning_rate"].default
    elif not is_real(learning_rate) or learning_rate <= 0:
        raise ArgumentError(sentence("learning_rate", "a number above 0", learning_rate))
    for key in arguments:
        if key not in entry.arguments():
            raise ArgumentError(unknown(f"argument of {name}:", key, entry.arguments()))
    if validation is None:
        examples, validation = examples.split(0.1, seed=seed)
    started = time.monotonic()
    encoding = Encoding.learn(
        examples,
        target=TARGETS[entry.task],
        characters=entry.arguments().get("character_vocabulary_size") is not None,
        min_count=min_count,
    )
    with seeded(seed):
        network = build(name, encoding, **arguments)
        compile_network(network, learning_rate)
        adapt(network, encoding, examples)
        scored = SequenceScores(encoding, validation)
        history = network.fit(
            encoding.batches(examples, batch_size=batch_size, class_weight=class_weight, seed=seed),
            epochs=epochs,
            callbacks=[scored, *_stopping(MONITORED[encoding.target], patience)],
            verbose=2 if verbose else 0,
        )
    return Trained(
        with_names(network, encoding),
        network,
        encoding,
        scored.measure(network),
        pd.DataFrame(history.history).rename_axis("epoch"),
        time.monotonic() - started,
    )


def build(name: str, encoding: Encoding, **arguments: Any) -> keras.Model:
    """The model of an entry for the names of an encoding; tags of the BIO kind come in order."""
    entry = registry.entry(name)
    given = encoding.arguments() | arguments
    if {"head": "crf"}.items() <= (entry.arguments() | arguments).items():
        bio = all(tag == "O" or tag[:2] in ("B-", "I-") for tag in encoding.classes)
        given = {"constraints": layers.bio_constraints(encoding.classes) if bio else None} | given
    return registry.get(name, **given)


def compile_network(network: keras.Model, learning_rate: float) -> None:
    """Adam, and the loss that fits the head."""
    optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=_CLIPNORM)
    loss = None if isinstance(network, layers.CRFModel) else "sparse_categorical_crossentropy"
    network.compile(optimizer, loss)


def adapt(network: keras.Model, encoding: Encoding, examples: Examples) -> None:
    """Lets the scaling of readings learn its ranges."""
    if any(isinstance(layer, layers.Normalization) for layer in network.layers):
        steps = np.concatenate(examples.sequences)
        layers.adapt(network, steps[None])


def _stopping(monitored: str, patience: int) -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.ReduceLROnPlateau(
            monitored, mode="max", factor=0.5, patience=max(patience // 2, 1), min_lr=1e-5
        ),
        keras.callbacks.EarlyStopping(
            monitored, mode="max", patience=patience, restore_best_weights=True
        ),
    ]
