"""Searches of classifiers and taggers: examples in place of rows, scores in place of leakage."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_seqzoo import errors, layers, registry
from keras_seqzoo.data import LabeledSequences, SequencePreprocessor
from keras_seqzoo.data.batching import bucketed_batches
from keras_seqzoo.tasks import labeling as recipe
from keras_seqzoo.tasks import train
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.rows import full
from keras_seqzoo.tuning.vectorized.class_measures import ClassMeasures
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_fraction,
    check_mask_value,
    check_positive,
)
from keras_seqzoo.utils.array_validation import as_array
from keras_seqzoo.wrapping import end_to_end

# Of readings padded to the longest, how many may be padding for each that is not.
_PADDED = 2.0
OBJECTIVES = ("val_f1", "val_accuracy", "val_precision", "val_recall")  # all to be maximized


@dataclasses.dataclass(frozen=True)
class SequenceRows:
    """What a search trains on and chooses by, with the names that it learned.

    Attributes:
        examples: to train on.
        validation: to choose by.
        preprocessor: the names of both.
        named: whether the best model is to take and give names, or numbers, as they were given.
        of_arrays: whether they were given as arrays.
    """

    examples: LabeledSequences
    validation: LabeledSequences
    preprocessor: SequencePreprocessor
    named: bool = True
    of_arrays: bool = False

    @property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.examples)

    @property
    def obstacle(self) -> str | None:
        """Why trials on these cannot be trained together, or None."""
        if self.preprocessor.tokens is not None:
            return "tokens are in batches of similar lengths"
        for part in (self.examples, self.validation):
            if part.lengths.max() * len(part) > (1 + _PADDED) * part.lengths.sum():
                return "lengths are too different to be padded to the longest"
            names = part.unique_labels if self.preprocessor.target == "labels" else part.unique_tags
            if not set(names) <= set(self.preprocessor.classes):
                return "some names are not known"
        if self.preprocessor.target == "tags" and any(
            name[:2] in ("B-", "I-") for name in self.preprocessor.classes
        ):
            return "entities are scored as a whole"
        return None

    def arrays(self, examples: LabeledSequences) -> tuple[np.ndarray, ...]:
        """Readings as arrays: `x`, padded, the numbers of classes, which steps are real, and how
        long the batch of a row is.
        """
        (x, y, *_) = self.preprocessor.batches(examples, batch_size=len(examples), shuffle=False)[0]
        order = np.argsort(np.argsort(examples.lengths, kind="stable"), kind="stable")
        real = np.arange(x.shape[1]) < examples.lengths[:, None]
        lengths = -(-examples.lengths // recipe.MULTIPLE) * recipe.MULTIPLE
        return x[order], np.asarray(y[order], np.int32), real, lengths.astype(np.int32)

    def orders(self, seed: int, batch_size: int) -> Iterator[np.ndarray]:
        """The batches of each epoch: rows `(batches, batch_size)`, -1 where one is not full."""
        lengths, pool = self.examples.lengths, recipe.pool(self.preprocessor)
        return (
            full(bucketed_batches(lengths, batch_size, seed, epoch, pool))
            for epoch in itertools.count()
        )

    def fingerprint(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.examples, self.validation):
            for sequence in part.sequences:
                text = repr(sequence) if part.has_tokens else sequence.tobytes().hex()
                digest.update(text.encode() + b"\n")
            digest.update(repr((part.labels, part.tags)).encode())
        digest.update(repr((self.preprocessor.classes, self.named)).encode())
        return digest.hexdigest()


def sequence_rows(
    name: str,
    examples: LabeledSequences,
    validation: Any,
    validation_split: float,
    seed: int,
    **given: Any,
) -> SequenceRows:
    """Examples split, and their names learned as the entry needs them.

    Raises:
        ArgumentError: if the entry is for another task, or validation examples are no `LabeledSequences`.
        DataError: if the examples lack what is to be predicted.
    """
    entry = registry.get_entry(name)
    if entry.target is None:
        raise errors.ArgumentError(
            argument_message(
                "name", "for classification or tagging, to search on LabeledSequences", name
            )
        )
    if validation is None:
        check_fraction(validation_split=validation_split)
        examples, validation = examples.split(validation_split, seed=seed)
    if not isinstance(validation, LabeledSequences):
        raise errors.ArgumentError(
            argument_message("validation_data", "LabeledSequences, as `x` is", type(validation))
        )
    preprocessor = recipe.learn(name, examples, **given)
    preprocessor.check(validation)
    return SequenceRows(examples, validation, preprocessor)


def array_rows(
    name: str,
    x: Any,
    y: Any,
    validation_data: Any,
    validation_split: float,
    seed: int,
    *,
    mask_value: float | None = None,
    classes: int | None = None,
) -> SequenceRows:
    """Arrays of readings with numbers or names of classes, as examples.

    Raises:
        ArgumentError: without targets.
        DataError: if arrays do not fit one another.
    """
    target = registry.get_entry(name).target
    pairs = [("x", "y", x, y)]
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise errors.ArgumentError(
                argument_message("validation_data", "a pair (x, y)", type(validation_data))
            )
        pairs.append(("validation_data", "validation_data", *validation_data))
    if classes is not None:
        check_positive(classes=classes)
    check_mask_value(mask_value)
    parts = [_array_examples(target, *pair, mask_value) for pair in pairs]
    numbers = [kind for _, kind in parts if kind is not None]
    if numbers and len(numbers) < len(parts):
        raise errors.DataError(
            "`y` and the targets in `validation_data` must both be numbers or both names of "
            "classes. Received: one of either."
        )
    if len(parts) == 1:
        check_fraction(validation_split=validation_split)
        examples, validation = parts[0][0].split(validation_split, seed=seed)
    else:
        examples, validation = (part for part, _ in parts)
    names = examples.unique_labels if target == "labels" else examples.unique_tags
    if numbers:
        names = [str(number) for number in range(max(classes or 0, max(numbers) + 1))]
    preprocessor = SequencePreprocessor(
        target, names, features=examples.features, mask_value=mask_value
    )
    preprocessor.check(validation)
    return SequenceRows(examples, validation, preprocessor, named=not numbers, of_arrays=True)


def _array_examples(
    target: str, name: str, y_name: str, x: Any, y: Any, mask_value: float | None
) -> tuple[LabeledSequences, int | None]:
    """Their real steps, and the highest class if classes are numbers."""
    x = as_array(name, x)
    if x.ndim != 3 or x.dtype.kind not in "iuf":
        raise errors.DataError(
            f"`{name}` must be readings of shape (batch, time, features), or "
            f"keras_seqzoo.data.LabeledSequences, which hold texts too. Received: shape {x.shape}, dtype "
            f"{x.dtype}."
        )
    if y is None:
        raise errors.ArgumentError(
            f"`{y_name}` must be given: the {target} of each "
            f"{'row' if target == 'labels' else 'step'}. Received: None."
        )
    y = as_array(y_name, y)
    y = np.array(y.tolist()) if y.dtype.kind == "O" else y  # numbers or names, as they are
    expected = x.shape[:1] if target == "labels" else x.shape[:2]
    if y.shape != expected or y.dtype.kind not in "iuU":
        raise errors.DataError(
            f"`{y_name}` must be numbers or names of classes, of shape {expected}. Received: shape "
            f"{y.shape}, dtype {y.dtype}."
        )
    real = np.ones(x.shape[:2], bool)
    if mask_value is not None:
        padding = np.isnan(x) if np.isnan(mask_value) else x == mask_value
        real = ~padding.all(axis=-1)
    if not real.any(axis=1).all():
        raise errors.DataError(
            f"`{name}` must have a real step in every row. Received: row "
            f"{np.argmin(real.any(axis=1))} of padding alone. Leave it out."
        )
    if not np.isfinite(x[real]).all():
        raise errors.DataError(
            f"`{name}` must be finite in its real steps. Received: NaN or infinity. Mark padding "
            "with mask_value=, or leave those rows out."
        )
    seen = y if target == "labels" else y[real]
    highest = None if y.dtype.kind == "U" else int(seen.max())
    if highest is not None and seen.min() < 0:
        raise errors.DataError(f"`{y_name}` must be classes from 0 on. Received: {seen.min()}.")
    sequences = [row[steps] for row, steps in zip(x, real, strict=True)]
    if target == "labels":
        return LabeledSequences(sequences, labels=y.astype(str).tolist()), highest
    tags = [row[steps].astype(str).tolist() for row, steps in zip(y, real, strict=True)]
    return LabeledSequences(sequences, tags=tags), highest


class SequenceHyperModel(ZooHyperModel):
    """A classifier or tagger; its arguments are those of `hypermodel`, and what `SequenceRows` has.

    `fit` takes `SequenceRows`, whose scores are then in every epoch's logs, or what
    `keras.Model.fit` takes: numbers in, numbers of classes out.
    """

    measures = ClassMeasures
    recipe = recipe  # how models are trained on examples

    def __init__(
        self,
        name: str,
        *,
        preprocessor: SequencePreprocessor | None = None,
        named: bool = True,
        **options: Any,
    ):
        super().__init__(name, **options)
        self.preprocessor, self.named = preprocessor, named

    @property
    def objective(self) -> keras_tuner.Objective:
        """The score of names, to be maximized; the accuracy where names are not known."""
        if self.preprocessor is None:
            return keras_tuner.Objective("val_accuracy", "max")
        return keras_tuner.Objective(*self.recipe.monitored(self.preprocessor))

    def compiled(self, arguments: dict[str, Any], optimizer: dict[str, Any]) -> keras.Model:
        """The model with the loss of its head; the accuracy beside it where names are not known."""
        if self.preprocessor is None:
            model = registry.get(self.name, **arguments)
        else:
            model = self.recipe.build(self.name, self.preprocessor, **arguments)
        metrics = ["accuracy"] if self.preprocessor is None else None
        train.compile_network(model, loss=self._loss(model), metrics=metrics, **optimizer)
        return model

    def _loss(self, model: keras.Model):
        return self.recipe.loss(model, self.preprocessor, self.recipe.LABEL_SMOOTHING)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, x: Any, *args, **kwargs):
        """Trains one trial on what `keras.Model.fit` takes; arrays set the scaling."""
        if layers.has_scaling(model) and hasattr(x, "shape"):
            layers.adapt(model, x)
        return model.fit(x, *args, **kwargs)

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
        scored = self.recipe.scores(rows.preprocessor, rows.validation)
        batches = self.recipe.batches(
            rows.preprocessor, rows.examples, batch_size=batch_size, seed=seed
        )
        return train.fit_batches(model, batches, callbacks=[scored, *callbacks], **kwargs)

    def prepare(self, model: keras.Model, rows: SequenceRows) -> None:
        """Lets the scaling of readings learn its ranges."""
        self.recipe.adapt(model, rows.preprocessor, rows.examples)

    def smoke_test(self, model: keras.Model, rows: SequenceRows) -> None:
        """Scores the untrained model once."""
        self.recipe.scores(rows.preprocessor, rows.validation.take([0])).measure(model)

    def finished(self, model: keras.Model) -> keras.Model:
        """The model as it is given out and saved: with its names inside, if there are names."""
        if self.named:
            return end_to_end(model, self.preprocessor)
        # As Keras users compile it, to train it on.
        optimizer = keras.optimizers.Adam.from_config(model.optimizer.get_config())
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, model.loss, metrics=["accuracy"])
        return model
