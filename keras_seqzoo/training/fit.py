"""One model of the zoo, trained on examples."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import layers, registry
from keras_seqzoo.data import Batches, Encoding, Examples
from keras_seqzoo.diagnostics import Scores
from keras_seqzoo.errors import (
    ArgumentError,
    UnknownArgumentError,
    check_choice,
    check_positive,
    check_rate,
    check_seed,
    is_real,
    sentence,
    unknown,
)
from keras_seqzoo.seeds import seeded
from keras_seqzoo.training.named import with_names
from keras_seqzoo.training.optimizer import Adam
from keras_seqzoo.training.scores import SequenceScores

# What early stopping looks at, and what is said to be good.
MONITORED = {"labels": "val_accuracy", "tags": "val_f1"}
# Long sequences give long gradients now and then.
CLIPNORM = 5.0
# All words of the training text are known; some must not be for the unknown word to be learned.
_WORD_DROPOUT = 0.1
# Lengths are rounded up to multiples of it: a compiled recurrence is compiled for each length.
MULTIPLE = 4
_DECAYS = ("plateau", "cosine")
# Steps in all from which on compiling the recurrences takes less time than it saves.
_COMPILED_FROM = 2000
# Steps that TensorFlow makes without coming back to Python.
_STEPS_PER_EXECUTION = 32


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `train` returns.

    Attributes:
        model: `keras.Model` that takes sentences, or readings, and gives names: `with_names`.
        network: the model inside it, which takes and gives numbers.
        encoding: `keras_seqzoo.data.Encoding`, between names and numbers.
        scores: `Scores` of the validation examples, by these weights; None without any.
        history: `pandas.DataFrame`, a row per epoch.
        seconds: float, of training and validation.
    """

    model: keras.Model
    network: keras.Model
    encoding: Encoding
    scores: Scores | None
    history: pd.DataFrame
    seconds: float


def train(
    name: str,
    examples: Examples,
    validation: Examples | None = None,
    *,
    validation_split: float = 0.1,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float | None = None,
    decay: str | None = None,
    patience: int = 6,
    class_weight=None,
    min_count: int = 1,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> Trained:
    """Trains a classifier or tagger of the zoo on labelled or tagged sequences.

    Learns the vocabularies of the training examples, and trains with Adam on batches of similar
    lengths. With the decay "plateau", the learning rate is halved where validation scores stay
    behind, and the weights are those of the best epoch: by accuracy for labels, by F1 for tags.
    With "cosine" it falls to 0 along a cosine and the last epoch counts, which needs no examples to
    choose by, and is steadier where those are few.

    Args:
        name: str, an entry of the tasks "classification" or "tagging".
        examples: `keras_seqzoo.data.Examples` to train on.
        validation: `Examples` to choose the epoch by, or None for a part of `examples`.
        validation_split: float in [0, 1), that part; 0 for none.
        epochs: int, at least 1, at most so many.
        batch_size: int, at least 1.
        learning_rate: float above 0; None takes the default of the entry's search space.
        decay: "plateau" or "cosine"; None is "plateau" where there are examples to choose by.
        patience: int, at least 1, of "plateau": epochs without a better score until training ends;
            the learning rate is halved after half as many.
        class_weight: "balanced", a dict of class to weight, or None; see `Encoding.batches`.
        min_count: int, at least 1, how often a token must occur to be known.
        seed: int, everything random follows from it.
        verbose: 0 is quiet, 1 prints a line per epoch.
        **arguments: of the constructor.

    Returns:
        A `Trained`.

    Raises:
        ArgumentError: if the entry is for another task, or an option is out of range.
        UnknownArgumentError: if the constructor has no such argument.
        DataError: if examples have other names or features than they must.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.Examples([["play", "jazz"], ["stop"]] * 9, labels=["Play", "Stop"] * 9)
    >>> trained = zoo.train("gru_classifier", text, epochs=9, units=8, verbose=0)
    >>> trained.model.predict(np.array(["play jazz now"], object), verbose=0)["labels"].shape
    (1,)
    """
    entry = registry.entry(name)
    if entry.target is None:
        raise ArgumentError(sentence("name", "for classification or tagging", name))
    check_positive(epochs=epochs, batch_size=batch_size, patience=patience)
    check_choice("decay", decay, (None, *_DECAYS))
    check_rate(validation_split=validation_split)
    check_seed(seed)
    if learning_rate is None:
        learning_rate = entry.space["learning_rate"].default
    elif not is_real(learning_rate) or learning_rate <= 0:
        raise ArgumentError(sentence("learning_rate", "a number above 0", learning_rate))
    for key in arguments:
        if key not in entry.arguments():
            raise UnknownArgumentError(unknown(f"argument of {name}:", key, entry.arguments()))
    if arguments.get("time") is not None:
        hint = "Sequences have lengths of their own."
        raise ArgumentError(sentence("time", "None to train on batches", arguments["time"], hint))
    if validation is None and validation_split:
        examples, validation = examples.split(validation_split, seed=seed)
    if decay is None:
        decay = "cosine" if validation is None else "plateau"
    if decay == "plateau" and validation is None:
        raise ArgumentError(sentence("decay", "'cosine' without validation examples", decay))
    started = time.monotonic()
    masked = {"mask_value": arguments["mask_value"]} if "mask_value" in arguments else {}
    encoding = learn(name, examples, min_count=min_count, **masked)
    with seeded(seed):
        network = build(name, encoding, **arguments)
        batches = encoding.batches(
            examples,
            batch_size=batch_size,
            class_weight=class_weight,
            seed=seed,
            multiple=MULTIPLE,
        )
        scored = None if validation is None else SequenceScores(encoding, validation)
        callbacks = [] if scored is None else [scored]
        if decay == "plateau":
            callbacks += _stopping(MONITORED[encoding.target], patience)
        else:
            steps = epochs * batches.num_batches
            learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        compile_network(network, learning_rate)
        adapt(network, encoding, examples)
        history = fit_batches(
            network, batches, epochs=epochs, callbacks=callbacks, verbose=2 if verbose else 0
        )
    return Trained(
        with_names(network, encoding),
        network,
        encoding,
        None if scored is None else scored.measure(network),
        pd.DataFrame(history.history).rename_axis("epoch"),
        time.monotonic() - started,
    )


def learn(
    name: str, examples: Examples, *, min_count: int = 1, mask_value: float | None = math.nan
) -> Encoding:
    """The names of training examples, with characters where the entry looks at them."""
    entry = registry.entry(name)
    encoding = Encoding.learn(
        examples,
        target=entry.target,
        characters=entry.arguments().get("character_vocabulary_size") is not None,
        min_count=min_count,
    )
    if encoding.tokens is not None:
        return encoding
    return dataclasses.replace(encoding, mask_value=mask_value)


def build(name: str, encoding: Encoding, **arguments: Any) -> keras.Model:
    """The model of an entry for the names of an encoding; tags of the BIO kind come in order."""
    entry = registry.entry(name)
    given = encoding.arguments() | arguments
    if encoding.tokens is not None and not entry.arguments()["word_dropout"]:
        given = {"word_dropout": _WORD_DROPOUT} | given
    if {"head": "crf"}.items() <= (entry.arguments() | arguments).items():
        bio = all(tag == "O" or tag[:2] in ("B-", "I-") for tag in encoding.classes)
        given = {"constraints": layers.bio_constraints(encoding.classes) if bio else None} | given
    return registry.get(name, **given)


def compile_network(
    network: keras.Model, learning_rate: Any, *, global_clipnorm: float = CLIPNORM, metrics=None
) -> None:
    """Adam, and the loss that fits the head."""
    optimizer = Adam(learning_rate, global_clipnorm=global_clipnorm)
    loss = None
    if not isinstance(network, layers.CRFModel):
        loss = keras.losses.SparseCategoricalCrossentropy()
    steps = _STEPS_PER_EXECUTION
    network.compile(optimizer, loss, metrics=metrics, steps_per_execution=steps)


def fit_batches(
    network: keras.Model, batches: Batches, *, epochs: int, **options: Any
) -> keras.callbacks.History:
    """`fit`, with the recurrences compiled where that pays and batches made outside of Python."""
    if keras.backend.backend() != "tensorflow":
        return network.fit(batches, epochs=epochs, **options)
    layers.compile_recurrences(network, epochs * batches.num_batches >= _COMPILED_FROM)
    try:
        return network.fit(batches.dataset(), epochs=epochs, shuffle=False, **options)
    finally:
        layers.compile_recurrences(network, jit_compile=False)


def adapt(network: keras.Model, encoding: Encoding, examples: Examples) -> None:
    """Lets the scaling of readings learn its ranges."""
    if layers.has_scaling(network):
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
