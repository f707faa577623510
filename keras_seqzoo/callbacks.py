"""State leakage during training, as a Keras callback."""

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
    answers,
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


class StateLeakage(keras.callbacks.Callback):
    """Writes state leakage, identity error and their sum into the logs of every epoch.

    The keys are `val_state_leakage`, `val_identity_error` and `val_identity_cost`; the latter two
    only if the output has the target's shape. Put this callback in front of those that read the
    keys (`EarlyStopping("val_identity_cost", mode="min")`, `ModelCheckpoint`, `TensorBoard`): Keras
    calls them in order. A model that has diverged gets nan, and training goes on.

    Args:
        x: validation rows, `(batch, time, features)`.
        y: their target; default `x` itself, the last real step where only that comes out.
        max_rows: int, at least 2: of more rows, so many evenly spread ones are used.
        prefix: str, in front of each key.
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
        known = inspect.signature(leakage).parameters
        for option in options:
            if option not in known:
                raise UnknownArgumentError(
                    unknown_name_message("option of leakage:", option, known)
                )
        x = as_array("x", x)
        if x.ndim < 2 or len(x) < 2 or x.dtype.kind not in "iuf":
            expected = "at least 2 rows of numbers of shape (batch, time, ...)"
            raise ArgumentError(argument_message("x", expected, x))
        # Which rows are measured.
        self.rows = chosen = np.unique(
            np.linspace(0, len(x) - 1, min(len(x), max_rows)).round().astype(int)
        )
        # Arrays only: KerasTuner copies callbacks deeply for every trial.
        self.x = x[chosen]
        self.y = None if y is None else as_array("y", y)
        if self.y is not None:
            if self.y.shape[:1] != x.shape[:1]:
                raise ArgumentError(
                    argument_message("y", f"of {len(x)} rows, as `x`", self.y.shape)
                )
            self.y = self.y[chosen]
        self.prefix = prefix
        self.options = {"resamples": 0} | options
        if "block" in options:  # rows that were left out no longer overlap those that stay
            self.options["block"] = -(-options["block"] * len(self.x) // len(x))
        if self.options.get("mask") is not None:
            self.options["mask"] = as_mask(self.options["mask"], x.shape[:2])[chosen]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures, and writes plain floats into `logs`."""
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in self.measure().items()})

    def measure(self) -> dict[str, float]:
        """The figures of `self.model` as it is now."""
        try:
            index = leakage(self.model, self.x, **self.options).index
        except DataError:
            answer = model_function.run(model_function.as_function(self.model), self.x)
            if np.isfinite(answer).all():
                raise  # not the model's fault
            index = float("nan")
        figures = {"state_leakage": index}
        if self._has_target():
            error = identity_error(self.model, self.x, self.y, mask=self.options.get("mask"))
            figures |= {"identity_error": error, "identity_cost": error + index}
        return figures

    def _has_target(self) -> bool:
        if self.y is not None:
            return True
        shape = self.model.output_shape
        return len(shape) in (2, 3) and shape[-1] == self.x.shape[-1] and self.x.ndim == 3


class SequenceMetrics(keras.callbacks.Callback):
    """Puts the scores of validation examples into the logs of every epoch.

    `val_f1`, `val_precision` and `val_recall` count entities where tags are of the BIO kind, and
    are means over classes otherwise; `val_accuracy` counts real steps, or sequences. It goes in
    front of callbacks that read them: `EarlyStopping("val_f1", mode="max")`.

    Args:
        preprocessor: `keras_seqzoo.data.SequencePreprocessor` that the model is trained with.
        examples: `keras_seqzoo.data.LabeledSequences` to score.
        batch_size: int, at least 1.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> preprocessor = zoo.data.SequencePreprocessor.learn(text)
    >>> model = zoo.get("gru_tagger", **preprocessor.arguments())
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

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores the model as it is; NaN if training has diverged, which names would hide."""
        predicted = answers(self.model, self.batches)
        finite = np.isfinite(logs.get("loss", 0.0))
        finite = finite and all(np.isfinite(one).all() for one in predicted)
        self.scores = self._scores(predicted)
        for name in ("f1", "precision", "recall", "accuracy"):
            logs[f"val_{name}"] = getattr(self.scores, name) if finite else float("nan")

    def measure(self, model: keras.Model) -> LabelScores:
        """The scores of a model.

        Args:
            model: `keras.Model` that takes batches of the preprocessor.
        """
        return self._scores(answers(model, self.batches))

    def _scores(self, predicted: list) -> LabelScores:
        return scores_of(
            self.preprocessor.target, self.examples, self.preprocessor.names(predicted)
        )


def scores_of(target: str, examples: LabeledSequences, predicted: list) -> LabelScores:
    """The scores of predicted names, by the kind of target."""
    if target == "tags":
        return tagging_scores(examples.tags, predicted)
    return classification_scores(examples.labels, predicted)


# Rows that are predicted at once in validation, as a beam's first step is as large.
_ROWS = 256


class PairMetrics(keras.callbacks.Callback):
    """Puts the scores of validation pairs into the logs of every epoch, the model decoding freely.

    Of tokens, `val_accuracy`, the share of sequences that are right as a whole, and
    `val_token_error_rate`; of readings `val_error`, the mean squared error of as many readings as
    the target has, over the variance of its features. It goes in front of callbacks that read them:
    `EarlyStopping("val_accuracy", mode="max")`.

    Args:
        preprocessor: `keras_seqzoo.data.PairPreprocessor` that the model is trained with.
        examples: `keras_seqzoo.data.SequencePairs` to score.
        **options: of `generate`, such as `strategy`; default greedy, which is quick.

    Example:

    >>> import keras_seqzoo as zoo
    >>> pairs = zoo.data.SequencePairs([["a", "b"], ["b"]], [["b", "a"], ["b"]])
    >>> preprocessor = zoo.data.PairPreprocessor.learn(pairs)
    >>> model = zoo.get("gru_encoder_decoder", **preprocessor.arguments(), units=8)
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
        self.options = {"batch_size": _ROWS, "max_length": preprocessor.max_length} | options
        self.scores: Seq2SeqScores | None = None  # of the last epoch, of tokens

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores the model as it is; NaN if training has diverged, which names would hide."""
        if not np.isfinite(logs.get("loss", 0.0)):
            names = (
                ("accuracy", "token_error_rate")
                if self.preprocessor.generates_tokens
                else ("error",)
            )
            logs.update({f"val_{name}": float("nan") for name in names})
            return
        found = self.measure(self.model)
        if not self.preprocessor.generates_tokens:
            logs["val_error"] = found
            return
        self.scores = found
        logs["val_accuracy"] = found.accuracy
        logs["val_token_error_rate"] = found.token_error_rate

    def measure(self, model: keras.Model) -> Seq2SeqScores | float:
        """The scores of a model: `Seq2SeqScores` of tokens, the error of readings.

        Args:
            model: `layers.EncoderDecoderModel` that takes batches of the preprocessor.
        """
        check_instance(layers.EncoderDecoderModel, model=model)
        source = self.preprocessor.sources(self.examples.sources)
        if not self.preprocessor.generates_tokens:
            return forecast_error(model, source, self.examples.targets)
        said = model.generate(source, **self.options).sequences
        return seq2seq_scores(self.examples.targets, self.preprocessor.names(said))


def forecast_error(model: keras.Model, source: np.ndarray, targets: Any) -> float:
    """The mean squared error of readings said freely, over the variance of each feature.

    Args:
        model: `layers.EncoderDecoderModel` of readings.
        source: `(batch, source, features)` or `(batch, source)`.
        targets: arrays `(time, features)`, one per row.
    """
    steps = max(map(len, targets))
    said = model.generate(source, max_length=steps, batch_size=_ROWS).sequences
    real = [said[row, : len(target)] for row, target in enumerate(targets)]
    if not all(np.isfinite(one).all() for one in real):
        return float("nan")
    return identity_error(lambda x: x, np.concatenate(real)[None], np.concatenate(targets)[None])
