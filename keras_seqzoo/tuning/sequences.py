"""Searches of classifiers and taggers: examples in place of rows, scores in place of leakage."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import keras
import keras_tuner

from keras_seqzoo import errors, registry
from keras_seqzoo.data import Encoding, Examples
from keras_seqzoo.training import SequenceScores, fit, with_names
from keras_seqzoo.tuning.hypermodel import ZooHyperModel

OBJECTIVES = ("val_f1", "val_accuracy", "val_precision", "val_recall")  # all to be maximized


@dataclasses.dataclass(frozen=True)
class SequenceRows:
    """What a search trains on and chooses by, with the names that it learned."""

    examples: Examples
    validation: Examples
    encoding: Encoding

    @property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.examples)

    def fingerprint(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.examples, self.validation):
            for sequence in part.sequences:
                text = repr(sequence) if part.has_tokens else sequence.tobytes().hex()
                digest.update(text.encode() + b"\n")
            digest.update(repr((part.labels, part.tags)).encode())
        return digest.hexdigest()


def sequence_rows(
    name: str, examples: Examples, validation: Any, validation_split: float, seed: int
) -> SequenceRows:
    """Examples split, and their names learned as the entry needs them.

    Raises:
        ArgumentError: if the entry is for another task, or validation examples are no `Examples`.
        DataError: if the examples lack what is to be predicted.
    """
    entry = registry.entry(name)
    if entry.task not in fit.TARGETS:
        raise errors.ArgumentError(
            errors.sentence("name", "for classification or tagging, to search on Examples", name)
        )
    if validation is None:
        errors.check_fraction(validation_split=validation_split)
        examples, validation = examples.split(validation_split, seed=seed)
    if not isinstance(validation, Examples):
        raise errors.ArgumentError(
            errors.sentence("validation_data", "Examples, as `x` is", type(validation))
        )
    encoding = fit.learn(name, examples)
    encoding.check(validation)
    return SequenceRows(examples, validation, encoding)


class SequenceHyperModel(ZooHyperModel):
    """A classifier or tagger; its arguments are those of `hypermodel`, and an `Encoding` or None.

    `fit` takes `SequenceRows`, whose scores are then in every epoch's logs, or what
    `keras.Model.fit` takes: numbers in, numbers of classes out.
    """

    trains_together = False

    def __init__(self, name: str, *, encoding: Encoding | None = None, **options: Any):
        super().__init__(name, **options)
        self.encoding = encoding

    @property
    def objective(self) -> keras_tuner.Objective:
        """The score of names, to be maximized; the accuracy where names are not known."""
        if self.encoding is None:
            return keras_tuner.Objective("val_accuracy", "max")
        return keras_tuner.Objective(fit.MONITORED[self.encoding.target], "max")

    def compiled(self, arguments: dict[str, Any], optimizer: dict[str, Any]) -> keras.Model:
        """The model with the loss of its head; the accuracy beside it where names are not known."""
        if self.encoding is None:
            model = registry.get(self.name, **arguments)
        else:
            model = fit.build(self.name, self.encoding, **arguments)
        metrics = ["accuracy"] if self.encoding is None else None
        fit.compile_network(model, metrics=metrics, **optimizer)
        return model

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any):
        """Trains one trial on arrays; `Search` calls `fit_rows`."""
        return model.fit(*args, **kwargs)

    def fit_rows(
        self,
        model: keras.Model,
        rows: SequenceRows,
        *,
        seed=0,
        batch_size=32,
        callbacks=(),
        **kwargs,
    ):
        """Trains one trial on examples, in batches of similar lengths."""
        self.prepare(model, rows)
        scored = SequenceScores(rows.encoding, rows.validation)
        batches = rows.encoding.batches(
            rows.examples, batch_size=batch_size, seed=seed, multiple=fit.MULTIPLE
        )
        return fit.fit_batches(model, batches, callbacks=[scored, *callbacks], **kwargs)

    def prepare(self, model: keras.Model, rows: SequenceRows) -> None:
        """Lets the scaling of readings learn its ranges."""
        fit.adapt(model, rows.encoding, rows.examples)

    def try_out(self, model: keras.Model, rows: SequenceRows) -> None:
        """Scores the untrained model once."""
        SequenceScores(rows.encoding, rows.validation.take([0])).measure(model)

    def finished(self, model: keras.Model) -> keras.Model:
        """The model with its names inside, as it is given out and saved."""
        return with_names(model, self.encoding)
