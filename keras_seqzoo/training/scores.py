"""Scores of names after each epoch."""

from __future__ import annotations

import keras
import numpy as np

from keras_seqzoo.data import Encoding, Examples, answers
from keras_seqzoo.metrics import Scores, classification_scores, tagging_scores
from keras_seqzoo.utils.argument_validation import check_instance


class SequenceScores(keras.callbacks.Callback):
    """Puts the scores of validation examples into the logs of every epoch.

    `val_f1`, `val_precision` and `val_recall` count entities where tags are of the BIO kind, and
    are means over classes otherwise; `val_accuracy` counts real steps, or sequences. It goes in
    front of callbacks that read them: `EarlyStopping("val_f1", mode="max")`.

    Args:
        encoding: `keras_seqzoo.data.Encoding` that the model is trained with.
        examples: `keras_seqzoo.data.Examples` to score.
        batch_size: int, at least 1.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.Examples([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> encoding = zoo.data.Encoding.learn(text)
    >>> model = zoo.get("gru_tagger", **encoding.arguments())
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = model.fit(encoding.batches(text), verbose=0,
    ...                     callbacks=[zoo.SequenceScores(encoding, text)])
    >>> sorted(history.history)
    ['loss', 'val_accuracy', 'val_f1', 'val_precision', 'val_recall']
    """

    def __init__(self, encoding: Encoding, examples: Examples, *, batch_size: int = 64):
        super().__init__()
        check_instance(Encoding, encoding=encoding)
        encoding.check(examples)
        self.encoding, self.examples = encoding, examples
        self.batches = encoding.batches(
            examples, targets=False, shuffle=False, batch_size=batch_size
        )
        self.scores: Scores | None = None  # of the last epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores the model as it is; NaN if training has diverged, which names would hide."""
        answered = answers(self.model, self.batches)
        finite = np.isfinite(logs.get("loss", 0.0))
        finite = finite and all(np.isfinite(one).all() for one in answered)
        self.scores = self._scores(answered)
        for name in ("f1", "precision", "recall", "accuracy"):
            logs[f"val_{name}"] = getattr(self.scores, name) if finite else float("nan")

    def measure(self, model: keras.Model) -> Scores:
        """The scores of a model.

        Args:
            model: `keras.Model` that takes batches of the encoding.
        """
        return self._scores(answers(model, self.batches))

    def _scores(self, answered: list) -> Scores:
        return scores_of(self.encoding.target, self.examples, self.encoding.names(answered))


def scores_of(target: str, examples: Examples, predicted: list) -> Scores:
    """The scores of predicted names, by the kind of target."""
    if target == "tags":
        return tagging_scores(examples.tags, predicted)
    return classification_scores(examples.labels, predicted)
