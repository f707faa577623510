"""Keras callbacks that add state leakage and validation metrics to the logs of every epoch."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.data import (
    LabeledSequences,
    PairPreprocessor,
    SequencePairs,
    SequencePreprocessor,
    predict_batches,
)
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.errors import ArgumentError, DataError, UnknownArgumentError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.metrics import (
    LabelScores,
    Seq2SeqScores,
    classification_scores,
    identity_error,
    seq2seq_scores,
    tagging_scores,
)
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_instance,
    is_int,
    unknown_name_message,
)
from keras_seqzoo.utils.array_validation import as_array, as_mask

__all__ = ["PairMetrics", "SequenceMetrics", "StateLeakage"]

Logs = dict[str, float]


class StateLeakage(keras.callbacks.Callback):
    """Adds state leakage, identity error and their sum to the logs of every epoch.

    The keys are `val_state_leakage`, `val_identity_error` and `val_identity_cost`; the latter two
    only if the output has the target's shape. Keras runs callbacks in order, so put this one before
    those that read the keys (`EarlyStopping("val_identity_cost", mode="min")`, `ModelCheckpoint`,
    `TensorBoard`). The values are nan for a model that has diverged, and training continues.

    Args:
        x: validation rows, `(batch, time, features)`.
        y: targets; None for `x` itself, or its last real step if the output is one step.
        max_rows: int, at least 2, the maximum number of rows; of more rows, evenly spaced ones.
        prefix: str, prefix of each key.
        **options: of `keras_seqzoo.leakage`, such as `cuts`, `mask`, `block`, `seed`.

    Example:

    >>> import keras, keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(64, 20, 1))
    >>> model = zoo.get("simple_rnn_identity")
    >>> zoo.adapt(model, x)
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, x, verbose=0, callbacks=[zoo.callbacks.StateLeakage(x)])
    >>> sorted(history.history)
    ['loss', 'val_identity_cost', 'val_identity_error', 'val_state_leakage']
    """

    def __init__(
        self, x: Any, y: Any = None, *, max_rows: int = 1024, prefix: str = "val_", **options: Any
    ):
        super().__init__()
        if not is_int(max_rows) or max_rows < 2:
            raise ArgumentError(argument_message("max_rows", "an int of at least 2", max_rows))
        parameters = inspect.signature(leakage).parameters
        for option in options:
            if option not in parameters:
                raise UnknownArgumentError(
                    unknown_name_message("option of leakage:", option, parameters)
                )
        x = as_array("x", x)
        if x.ndim < 2 or len(x) < 2 or x.dtype.kind not in "iuf":
            expected = "at least 2 rows of numbers of shape (batch, time, ...)"
            raise ArgumentError(argument_message("x", expected, x))
        # The indices of the measured rows.
        self.rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), max_rows)).round().astype(int))
        # Only arrays, because KerasTuner deep-copies callbacks for every trial.
        self.x = x[self.rows]
        self.y = None if y is None else as_array("y", y)
        if self.y is not None:
            if self.y.shape[:1] != x.shape[:1]:
                raise ArgumentError(
                    argument_message("y", f"of {len(x)} rows, as `x`", self.y.shape)
                )
            self.y = self.y[self.rows]
        self.prefix = prefix
        self.options: dict[str, Any] = {"resamples": 0} | options
        if "block" in options:  # scaled, because fewer of the selected rows overlap
            self.options["block"] = -(-options["block"] * len(self.x) // len(x))
        if self.options.get("mask") is not None:
            self.options["mask"] = as_mask(self.options["mask"], x.shape[:2])[self.rows]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Measure the model and add plain floats to `logs`."""
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in self.measure().items()})

    def measure(self) -> Logs:
        """State leakage, identity error and identity cost of the current model."""
        model: Any = self.model
        try:
            index = leakage(model, self.x, **self.options).index
        except DataError:
            function = model_function.as_function(model)
            if np.isfinite(model_function.predict_in_batches(function, self.x)).all():
                raise  # the model has not diverged
            index = float("nan")
        values = {"state_leakage": index}
        if self._has_target(model):
            error = identity_error(model, self.x, self.y, mask=self.options.get("mask"))
            values |= {"identity_error": error, "identity_cost": error + index}
        return values

    def _has_target(self, model: Any) -> bool:
        """Whether there are targets of the shape of the output."""
        if self.y is not None:
            return True
        shape = model.output_shape
        return len(shape) in (2, 3) and shape[-1] == self.x.shape[-1] and self.x.ndim == 3


class SequenceMetrics(keras.callbacks.Callback):
    """Adds validation metrics of labels or tags to the logs of every epoch.

    `val_f1`, `val_precision` and `val_recall` are over entities for BIO-like tags, and means over
    classes otherwise; `val_accuracy` is over real steps or over sequences. Put this callback before
    those that read the keys: `EarlyStopping("val_f1", mode="max")`.

    Args:
        preprocessor: `keras_seqzoo.data.SequencePreprocessor` of the model.
        examples: `keras_seqzoo.data.LabeledSequences`, the validation data.
        batch_size: int, at least 1.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B"], ["O"]])
    >>> preprocessor = zoo.data.SequencePreprocessor.from_data(text)
    >>> model = zoo.get("gru_tagger", **preprocessor.model_arguments())
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = model.fit(preprocessor.batches(text), verbose=0,
    ...                     callbacks=[zoo.callbacks.SequenceMetrics(preprocessor, text)])
    >>> sorted(history.history)
    ['loss', 'val_accuracy', 'val_f1', 'val_precision', 'val_recall']
    """

    def __init__(
        self,
        preprocessor: SequencePreprocessor,
        examples: LabeledSequences,
        *,
        batch_size: int = 64,
    ):
        super().__init__()
        check_instance(SequencePreprocessor, preprocessor=preprocessor)
        preprocessor.check(examples)
        self.preprocessor, self.examples = preprocessor, examples
        self.batches = preprocessor.batches(
            examples, targets=False, shuffle=False, batch_size=batch_size
        )
        self.scores: LabelScores | None = None  # of the last epoch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Score the model; nan if it has diverged, which decoded labels would not show."""
        model: Any = self.model
        predictions = predict_batches(model, self.batches)
        self.scores = self._scores(predictions)
        if logs is None:
            return
        finite = np.isfinite(logs.get("loss", 0.0))
        finite = finite and all(np.isfinite(prediction).all() for prediction in predictions)
        for name in ("f1", "precision", "recall", "accuracy"):
            logs[f"val_{name}"] = getattr(self.scores, name) if finite else float("nan")

    def measure(self, model: keras.Model) -> LabelScores:
        """The validation scores of a model.

        Args:
            model: `keras.Model` that takes batches of the preprocessor.
        """
        return self._scores(predict_batches(model, self.batches))

    def _scores(self, predictions: list[np.ndarray]) -> LabelScores:
        predicted = self.preprocessor.decode(predictions)
        if self.preprocessor.target == "tags":
            return tagging_scores(self.examples.tags or (), predicted)
        return classification_scores(self.examples.labels or (), predicted)


# A beam search expands each row to `num_beams` rows, so a batch stays moderate.
_BATCH_SIZE = 256


class PairMetrics(keras.callbacks.Callback):
    """Adds validation metrics of an encoder-decoder's generated sequences to the logs.

    Token targets: `val_accuracy`, the fraction of sequences that match exactly, and
    `val_token_error_rate`. Targets that are readings: `val_error`, the mean squared error over the
    length of the target, divided by the variance of each feature. Put this callback before those
    that read the keys: `EarlyStopping("val_accuracy", mode="max")`.

    Args:
        preprocessor: `keras_seqzoo.data.PairPreprocessor` of the model.
        examples: `keras_seqzoo.data.SequencePairs`, the validation data.
        **options: of `generate`, such as `strategy`; the default is greedy, which is fast.

    Example:

    >>> import keras_seqzoo as zoo
    >>> pairs = zoo.data.SequencePairs([["a", "b"], ["b"]], [["b", "a"], ["b"]])
    >>> preprocessor = zoo.data.PairPreprocessor.from_data(pairs)
    >>> model = zoo.get("gru_encoder_decoder", **preprocessor.model_arguments(), units=8)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = model.fit(preprocessor.batches(pairs), verbose=0,
    ...                     callbacks=[zoo.callbacks.PairMetrics(preprocessor, pairs)])
    >>> sorted(history.history)
    ['loss', 'val_accuracy', 'val_token_error_rate']
    """

    def __init__(self, preprocessor: PairPreprocessor, examples: SequencePairs, **options: Any):
        super().__init__()
        check_instance(PairPreprocessor, preprocessor=preprocessor)
        preprocessor.check(examples)
        self.preprocessor, self.examples = preprocessor, examples
        self.options = {"batch_size": _BATCH_SIZE, "max_length": preprocessor.max_length} | options
        self.scores: Seq2SeqScores | None = None  # of the last epoch, for tokens

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Score the model; nan if it has diverged, which decoded tokens would not show."""
        if logs is None:
            return
        if not np.isfinite(logs.get("loss", 0.0)):
            tokens = self.preprocessor.generates_tokens
            names = ("accuracy", "token_error_rate") if tokens else ("error",)
            logs.update({f"val_{name}": float("nan") for name in names})
            return
        model: Any = self.model
        result = self.measure(model)
        if not isinstance(result, Seq2SeqScores):
            logs["val_error"] = result
            return
        self.scores = result
        logs["val_accuracy"] = result.accuracy
        logs["val_token_error_rate"] = result.token_error_rate

    def measure(self, model: keras.Model) -> Seq2SeqScores | float:
        """The validation scores of a model: `Seq2SeqScores` for tokens, the error for readings.

        Args:
            model: `layers.EncoderDecoderModel` that takes batches of the preprocessor.
        """
        check_instance(layers.EncoderDecoderModel, model=model)
        sources = self.preprocessor.encode_sources(self.examples.sources)
        if not self.preprocessor.generates_tokens:
            return forecast_error(model, sources, self.examples.targets)
        ids = model.generate(sources, **self.options).sequences
        return seq2seq_scores(self.examples.targets, self.preprocessor.decode(ids))


def forecast_error(model: keras.Model, sources: np.ndarray, targets: Any) -> float:
    """The mean squared error of generated readings, divided by the variance of each feature.

    Args:
        model: `layers.EncoderDecoderModel` of readings.
        sources: `(batch, source, features)` or `(batch, source)`.
        targets: arrays `(time, features)`, one per row.
    """
    steps = max(map(len, targets))
    generated = model.generate(sources, max_length=steps, batch_size=_BATCH_SIZE).sequences
    forecasts = [generated[row, : len(target)] for row, target in enumerate(targets)]
    if not all(np.isfinite(forecast).all() for forecast in forecasts):
        return float("nan")
    forecast, target = np.concatenate(forecasts)[None], np.concatenate(targets)[None]
    return identity_error(lambda x: x, forecast, target)
