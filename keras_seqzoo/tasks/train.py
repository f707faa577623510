"""One model of the zoo, trained on examples."""

from __future__ import annotations

import dataclasses
import time
from types import ModuleType
from typing import Any

import keras
import pandas as pd

from keras_seqzoo import layers, registry
from keras_seqzoo.data import (
    Batches,
    LabeledSequences,
    PairPreprocessor,
    SequencePairs,
    SequencePreprocessor,
)
from keras_seqzoo.errors import ArgumentError, UnknownArgumentError
from keras_seqzoo.metrics import LabelScores, Seq2SeqScores
from keras_seqzoo.optimizers import Adam, learning_rate_of
from keras_seqzoo.tasks import labeling as of_examples
from keras_seqzoo.tasks import seq2seq as of_pairs
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_positive,
    check_rate,
    check_seed,
    check_verbose,
    unknown_name_message,
)
from keras_seqzoo.utils.random import seeded
from keras_seqzoo.wrapping import end_to_end

# Long sequences give long gradients now and then.
CLIPNORM = 5.0
_DECAYS = ("plateau", "cosine")
# Steps in all from which on compiling the recurrences takes less time than it saves.
_COMPILED_FROM = 2000
# Steps that TensorFlow makes without coming back to Python.
_STEPS_PER_EXECUTION = 32


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What `train` returns.

    Attributes:
        model: `keras.Model` that takes sentences, or readings, and gives names: `end_to_end`.
        network: the model inside it, which takes and gives numbers.
        preprocessor: `keras_seqzoo.data.SequencePreprocessor` or `PairPreprocessor`, between names and numbers.
        scores: `LabelScores` of the validation examples, by these weights; `Seq2SeqScores` of
            pairs, or of readings the error over their variance; None without validation.
        history: `pandas.DataFrame`, a row per epoch.
        seconds: float, of training and validation.
    """

    model: keras.Model
    network: keras.Model
    preprocessor: SequencePreprocessor | PairPreprocessor
    scores: LabelScores | Seq2SeqScores | float | None
    history: pd.DataFrame
    seconds: float


def train(
    name: str,
    examples: LabeledSequences | SequencePairs,
    validation: LabeledSequences | SequencePairs | None = None,
    *,
    validation_split: float = 0.1,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float | None = None,
    decay: str | None = None,
    patience: int = 6,
    label_smoothing: float | None = None,
    class_weight=None,
    min_count: int = 1,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> TrainingResult:
    """Trains a model of the zoo: a classifier or tagger on examples, an encoder-decoder on pairs.

    Learns the vocabularies of the training examples, and trains with Adam on batches of similar
    lengths. With the decay "plateau", the learning rate is halved where validation scores stay
    behind, and the weights are those of the best epoch: by F1 for tags, by accuracy for labels and
    whole sequences of tokens, by the error of readings said freely. With "cosine" it falls to 0
    along a cosine and the last epoch counts, which needs no examples to choose by, and is steadier
    where those are few.

    Args:
        name: str, an entry of the tasks "classification", "tagging" or "seq2seq".
        examples: `keras_seqzoo.data.LabeledSequences` to train on; `SequencePairs` for "seq2seq".
        validation: the same, to choose the epoch by, or None for a part of `examples`.
        validation_split: float in [0, 1), that part; 0 for none.
        epochs: int, at least 1, at most so many.
        batch_size: int, at least 1.
        learning_rate: float above 0; None takes the default of the entry's search space.
        decay: "plateau" or "cosine"; None is "plateau" where there are examples to choose by.
        patience: int, at least 1, of "plateau": epochs without a better score until training ends;
            the learning rate is halved after half as many.
        label_smoothing: float in [0, 1), part of each target that is spread over all classes; None
            is 0.1 for pairs of tokens, else 0.
        class_weight: "balanced", a dict of class to weight, or None; see `SequencePreprocessor.batches`. None
            for pairs.
        min_count: int, at least 1, how often a token must occur to be known.
        seed: int, everything random follows from it.
        verbose: 0 is quiet, 1 prints a line per epoch.
        **arguments: of the constructor.

    Returns:
        A `TrainingResult`.

    Raises:
        ArgumentError: if the entry is for another task, or an option is out of range.
        UnknownArgumentError: if the constructor has no such argument.
        DataError: if examples have other names or features than they must.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.LabeledSequences([["play", "jazz"], ["stop"]] * 9, labels=["Play", "Stop"] * 9)
    >>> trained = zoo.train("gru_classifier", text, epochs=9, units=8, verbose=0)
    >>> trained.model.predict(np.array(["play jazz now"], object), verbose=0)["labels"].shape
    (1,)
    """
    entry, recipe = registry.get_entry(name), recipe_of(examples)
    recipe.check(name)
    check_positive(epochs=epochs, batch_size=batch_size, patience=patience)
    check_choice("decay", decay, (None, *_DECAYS))
    check_rate(validation_split=validation_split)
    check_seed(seed)
    check_verbose(verbose)
    learning_rate = learning_rate_of(entry, learning_rate)
    for key in arguments:
        if key not in entry.arguments():
            raise UnknownArgumentError(
                unknown_name_message(f"argument of {name}:", key, entry.arguments())
            )
    if arguments.get("time") is not None:
        hint = "Sequences have lengths of their own."
        raise ArgumentError(
            argument_message("time", "None to train on batches", arguments["time"], hint)
        )
    if label_smoothing is not None:
        check_rate(label_smoothing=label_smoothing)
    if validation is not None and type(validation) is not type(examples):
        expected = f"{type(examples).__name__}, as `examples` is"
        raise ArgumentError(argument_message("validation", expected, type(validation).__name__))
    if class_weight is not None and recipe is of_pairs:
        raise ArgumentError(argument_message("class_weight", "None for pairs", class_weight))
    if validation is None and validation_split:
        examples, validation = examples.split(validation_split, seed=seed)
    if decay is None:
        decay = "cosine" if validation is None else "plateau"
    if decay == "plateau" and validation is None:
        raise ArgumentError(
            argument_message("decay", "'cosine' without validation examples", decay)
        )
    started = time.monotonic()
    masked = {"mask_value": arguments["mask_value"]} if "mask_value" in arguments else {}
    preprocessor = recipe.learn(name, examples, min_count=min_count, **masked)
    if label_smoothing is None:
        label_smoothing = recipe.LABEL_SMOOTHING
    weighed = {} if class_weight is None else {"class_weight": class_weight}
    with seeded(seed):
        network = recipe.build(name, preprocessor, **arguments)
        batches = recipe.batches(
            preprocessor, examples, batch_size=batch_size, seed=seed, **weighed
        )
        scored = None if validation is None else recipe.scores(preprocessor, validation)
        callbacks = [] if scored is None else [scored]
        if decay == "plateau":
            callbacks += _stopping(*recipe.monitored(preprocessor), patience)
        else:
            steps = epochs * batches.num_batches
            learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        compile_network(network, learning_rate, recipe.loss(network, preprocessor, label_smoothing))
        recipe.adapt(network, preprocessor, examples)
        history = fit_batches(
            network, batches, epochs=epochs, callbacks=callbacks, verbose=2 if verbose else 0
        )
    return TrainingResult(
        end_to_end(network, preprocessor),
        network,
        preprocessor,
        None if scored is None else scored.measure(network),
        pd.DataFrame(history.history).rename_axis("epoch"),
        time.monotonic() - started,
    )


def recipe_of(examples: Any) -> ModuleType:
    """The module that knows how models are trained on examples, or on pairs."""
    return of_pairs if isinstance(examples, SequencePairs) else of_examples


def compile_network(
    network: keras.Model,
    learning_rate: Any,
    loss: Any,
    *,
    global_clipnorm: float = CLIPNORM,
    metrics=None,
) -> None:
    """Compiles a network to be trained by `fit_batches`, with Adam."""
    optimizer = Adam(learning_rate, global_clipnorm=global_clipnorm)
    # PyTorch has no graph that could hold several.
    steps = 1 if keras.backend.backend() == "torch" else _STEPS_PER_EXECUTION
    network.compile(optimizer, loss, metrics=metrics, steps_per_execution=steps)


def fit_batches(
    network: keras.Model, batches: Batches, *, epochs: int, **options: Any
) -> keras.callbacks.History:
    """`fit`, with the recurrences compiled where that is_worthwhile and batches made outside of Python."""
    if keras.backend.backend() != "tensorflow":
        return network.fit(batches, epochs=epochs, **options)
    layers.compile_recurrences(network, epochs * batches.num_batches >= _COMPILED_FROM)
    try:
        return network.fit(batches.to_dataset(), epochs=epochs, shuffle=False, **options)
    finally:
        layers.compile_recurrences(network, jit_compile=False)


def _stopping(monitored: str, mode: str, patience: int) -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.ReduceLROnPlateau(
            monitored, mode=mode, factor=0.5, patience=max(patience // 2, 1), min_lr=1e-5
        ),
        keras.callbacks.EarlyStopping(
            monitored, mode=mode, patience=patience, restore_best_weights=True
        ),
    ]
