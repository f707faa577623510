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
from keras_seqzoo.data import Batches, ParallelEncoding, ParallelExamples
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.metrics import TransductionScores, identity_error, transduction_scores
from keras_seqzoo.training.examples import MULTIPLE
from keras_seqzoo.utils.argument_validation import argument_message, check_instance

# Rows that are answered at once in validation, as a beam's first step is as large.
_ROWS = 256
LABEL_SMOOTHING = 0.1


class PairScores(keras.callbacks.Callback):
    """Puts the scores of validation pairs into the logs of every epoch, the model decoding freely.

    Of tokens, `val_accuracy`, the share of sequences that are right as a whole, and
    `val_token_error_rate`; of readings `val_error`, the mean squared error of as many readings as
    the target has, over the variance of its features. It goes in front of callbacks that read them:
    `EarlyStopping("val_accuracy", mode="max")`.

    Args:
        encoding: `keras_seqzoo.data.ParallelEncoding` that the model is trained with.
        examples: `keras_seqzoo.data.ParallelExamples` to score.
        **options: of `generate`, such as `strategy`; default greedy, which is quick.

    Example:

    >>> import keras_seqzoo as zoo
    >>> pairs = zoo.data.ParallelExamples([["a", "b"], ["b"]], [["b", "a"], ["b"]])
    >>> encoding = zoo.data.ParallelEncoding.learn(pairs)
    >>> model = zoo.get("gru_encoder_decoder", **encoding.arguments(), units=8)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = model.fit(encoding.batches(pairs), verbose=0,
    ...                     callbacks=[zoo.PairScores(encoding, pairs)])
    >>> sorted(history.history)
    ['loss', 'val_accuracy', 'val_token_error_rate']
    """

    def __init__(self, encoding: ParallelEncoding, examples: ParallelExamples, **options: Any):
        super().__init__()
        check_instance(ParallelEncoding, encoding=encoding)
        encoding.check(examples)
        self.encoding, self.examples = encoding, examples
        self.options = {"batch_size": _ROWS, "max_length": encoding.max_length} | options
        self.scores: TransductionScores | None = None  # of the last epoch, of tokens

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores the model as it is; NaN if training has diverged, which names would hide."""
        if not np.isfinite(logs.get("loss", 0.0)):
            names = ("accuracy", "token_error_rate") if self.encoding.says_tokens else ("error",)
            logs.update({f"val_{name}": float("nan") for name in names})
            return
        found = self.measure(self.model)
        if not self.encoding.says_tokens:
            logs["val_error"] = found
            return
        self.scores = found
        logs["val_accuracy"] = found.accuracy
        logs["val_token_error_rate"] = found.token_error_rate

    def measure(self, model: keras.Model) -> TransductionScores | float:
        """The scores of a model: `TransductionScores` of tokens, the error of readings.

        Args:
            model: `layers.EncoderDecoderModel` that takes batches of the encoding.
        """
        check_instance(layers.EncoderDecoderModel, model=model)
        source = self.encoding.sources(self.examples.sources)
        if not self.encoding.says_tokens:
            return forecast_error(model, source, self.examples.targets)
        said = model.generate(source, **self.options).sequences
        return transduction_scores(self.examples.targets, self.encoding.names(said))


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
