"""Training of one model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import pandas as pd

from keras_seqzoo.data import PairPreprocessor, SequencePreprocessor
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.metrics import LabelScores, Seq2SeqScores
from keras_seqzoo.optimizers import learning_rate_of
from keras_seqzoo.tasks.base import Task, TrainingOptions
from keras_seqzoo.tasks.lookup import task_for
from keras_seqzoo.tasks.seq2seq import ForecastScores
from keras_seqzoo.tasks.window_scores import WindowScores
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_instances,
    check_positive,
    check_seed,
    check_verbose,
)
from keras_seqzoo.utils.random import seeded

_SCHEDULES = ("constant", "plateau", "cosine")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What `train` returns.

    Attributes:
        model: `keras.Model`, end-to-end where there is preprocessing: strings or raw readings in,
            labels or strings out.
        inner_model: the model inside it, on arrays; `model` itself where there is no preprocessing.
        preprocessor: `data.SequencePreprocessor` or `data.PairPreprocessor` between strings and
            arrays, or None.
        scores: of the validation data, as `evaluate` returns them, but of token encoder-decoders by
            greedy search; None without validation data.
        history: `pandas.DataFrame`, a row per epoch.
        seconds: float, duration of training and validation.
        task: the task, bound to the data.
    """

    model: keras.Model
    inner_model: keras.Model
    preprocessor: SequencePreprocessor | PairPreprocessor | None
    scores: LabelScores | Seq2SeqScores | ForecastScores | WindowScores | None
    history: pd.DataFrame
    seconds: float
    task: Task


def train(
    name: str,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float | None = None,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float | None = None,
    learning_rate_schedule: str | None = None,
    patience: int = 6,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    label_smoothing: float | None = None,
    class_weight: Mapping[str, float] | str | None = None,
    min_count: int | None = None,
    sequence_length: int | None = None,
    sequence_stride: int | None = None,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> TrainingResult:
    """Trains a model of the zoo on any data of its task.

    Fits the preprocessor or the windows to the training data, trains with Adam, and chooses the
    epoch with the best validation metric: normalized MSE of windows, accuracy of labels and of
    decoded sequences, F1 of tags.

    Args:
        name: str, one of `list_models()`.
        x: training data. Of identity, forecasting and reconstruction models a `data.TimeSeries`, a
            DataFrame or windows `(windows, time, features)`; of classifiers and taggers
            `data.LabeledSequences` or windows with `y`; of encoder-decoders `data.SequencePairs`.
            Or a `tf.data.Dataset` of windows, or the path of a file.
        y: targets of windows: classes as ids or strings, or readings; default the windows
            themselves, of a forecaster each next reading.
        validation_data: as `x`, or a pair (x, y); default a part of `x`.
        validation_split: float in [0, 1), that part: the last one of a time series or of windows,
            else drawn at random. None is 0.2 of windows, else 0.1; 0 is none, where sequences allow
            it.
        epochs: int, at least 1, the most that are trained.
        batch_size: int, at least 1.
        learning_rate: float above 0; None takes the default of the entry's search space.
        learning_rate_schedule: "constant"; "plateau", halved where the validation metric stops
            improving; "cosine", which falls to 0 and keeps the last epoch; None is "constant" for
            windows, "plateau" for sequences, and "cosine" without validation data.
        patience: int, at least 1, epochs without improvement until training ends; "plateau" halves
            the learning rate after half as many.
        callbacks: Keras callbacks; the validation metrics are in their logs.
        label_smoothing: float in [0, 1), share of each target that is spread over all classes; None
            is 0.1 for pairs of tokens, else 0.
        class_weight: "balanced", or a dict of class to weight, of classifiers and taggers.
        min_count: int, at least 1, occurrences that a token needs to be in the vocabulary.
        sequence_length: int, steps of the windows that are cut from a time series; None is 50.
        sequence_stride: int, steps from window to window in training; None is half the length.
        seed: int, at least 0, of everything random in training; scores do not depend on it.
        verbose: 0 is silent, 1 prints a line per epoch.
        **arguments: arguments of the constructor.

    Returns:
        A `TrainingResult`.

    Raises:
        UnknownNameError, UnknownArgumentError: if there is no such entry or argument.
        ArgumentError: if an option is out of range, or not one of the entry's task.
        DataError: if the data cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.LabeledSequences([["play", "jazz"], ["stop"]] * 9,
    ...                                  labels=["Play", "Stop"] * 9)
    >>> result = zoo.train("gru_classifier", text, epochs=9, units=8, verbose=0)
    >>> result.model.predict(np.array(["play jazz now"], object), verbose=0)["labels"].shape
    (1,)
    >>> readings = zoo.data.synthetic_readings(steps=400)
    >>> result = zoo.train("simple_rnn_identity", readings, epochs=2, sequence_length=20, verbose=0)
    >>> result.model.output_shape
    (None, None, 4)
    """
    check_positive(epochs=epochs, batch_size=batch_size, patience=patience)
    check_choice("learning_rate_schedule", learning_rate_schedule, (None, *_SCHEDULES))
    check_seed(seed)
    check_verbose(verbose)
    callbacks = [] if callbacks is None else callbacks
    check_instances(keras.callbacks.Callback, callbacks=callbacks)
    options = {
        "label_smoothing": label_smoothing,
        "class_weight": class_weight,
        "min_count": min_count,
        "sequence_length": sequence_length,
        "sequence_stride": sequence_stride,
    }
    given = {option: value for option, value in options.items() if value is not None}
    task = task_for(name, **given, **arguments)
    rate = learning_rate_of(task.entry, learning_rate)
    task = task.with_data(
        x, y, validation_data=validation_data, validation_split=validation_split, seed=seed
    )
    schedule = learning_rate_schedule or task.default_schedule
    if not task.has_validation_data:
        if learning_rate_schedule not in (None, "cosine"):
            expected = "'cosine' without validation data"
            raise ArgumentError(argument_message("learning_rate_schedule", expected, schedule))
        schedule = "cosine"
    started = time.monotonic()
    with seeded(seed):
        inner_model = task.build()
        history = task.train(
            inner_model,
            TrainingOptions(
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=rate,
                learning_rate_schedule=schedule,
                patience=patience,
                seed=seed,
                callbacks=tuple(callbacks),
                verbose=verbose,
            ),
        )
    scores = task.validation_scores(inner_model) if task.has_validation_data else None
    model = task.finalize(inner_model)
    return TrainingResult(
        model,
        inner_model,
        task.preprocessor,
        scores,
        pd.DataFrame(history.history).rename_axis("epoch"),
        time.monotonic() - started,
        task,
    )
