"""Labeled sequences: tokens or readings with one label each, one tag per step, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from keras_seqzoo.data.sequence_dataset import SequenceDataset, validated_sequences
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_sequence


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabeledSequences(SequenceDataset):
    """Labeled or tagged sequences of unequal length, of tokens or of readings.

    Shapes: a sequence is a tuple of `time` tokens, or a float32 array `(time, features)`. All
        sequences are of the same kind and have the same number of features.

    Args:
        sequences: iterable of sequences: lists of str, or arrays `(time, features)`.
        labels: iterable of str, one per sequence, or None.
        tags: iterable of lists of str, one tag per step of each sequence, or None.
        notes: tuple of str, what a reader noticed in the data and what it did about it.
        source: str, the path or description of the data.

    Raises:
        DataError: if there is no sequence, the parts do not fit each other, or a reading is not
            finite; the message names the sequence.

    Example:

    >>> from keras_seqzoo.data import LabeledSequences
    >>> text = LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> text, text.tags[0], text.lengths.tolist()
    (LabeledSequences(2 sequences of tokens, 2 tags; from memory), ('O', 'B-genre'), [2, 1])
    """

    _per_sequence: ClassVar[tuple[str, ...]] = ("sequences", "labels", "tags")

    sequences: Sequence[Any]
    labels: Sequence[str] | None = None
    tags: Sequence[Sequence[str]] | None = None
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        sequences = tuple(validated_sequences("sequences", self.sequences))
        object.__setattr__(self, "sequences", sequences)
        check_sequence(notes=self.notes)
        object.__setattr__(self, "notes", tuple(self.notes))
        if self.labels is not None:
            object.__setattr__(self, "labels", _validated_labels(self.labels, len(self)))
        if self.tags is not None:
            object.__setattr__(self, "tags", _validated_tags(self.tags, self.lengths))

    def __repr__(self) -> str:
        kind = "tokens" if self.has_tokens else f"readings of {self.features} features"
        counts = [
            f"{len(values)} {name}"
            for name, values in (("labels", self.unique_labels), ("tags", self.unique_tags))
            if values
        ]
        return (
            f"LabeledSequences({', '.join((f'{len(self)} sequences of {kind}', *counts))}; "
            f"from {self.source or 'memory'})"
        )

    @property
    def has_tokens(self) -> bool:
        """Whether the steps are tokens; otherwise they are readings."""
        return isinstance(self.sequences[0], tuple)

    @property
    def features(self) -> int | None:
        """The number of values per reading; None for tokens."""
        return None if self.has_tokens else self.sequences[0].shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """The number of steps of each sequence, int array `(sequences,)`."""
        return np.array([len(sequence) for sequence in self.sequences], np.int64)

    @property
    def unique_labels(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted(set(self.labels or ())))

    @property
    def unique_tags(self) -> tuple[str, ...]:
        """The distinct tags, sorted."""
        return tuple(sorted({tag for tags in self.tags or () for tag in tags}))

    def _strata(self) -> np.ndarray:
        return np.array(self.labels or [""] * len(self))


def _validated_labels(labels: Any, count: int) -> tuple[str, ...]:
    if isinstance(labels, str):  # would pass for a list of its characters
        raise DataError(f"`labels` must be one per sequence, {count} in all. Received: a str.")
    check_sequence(labels=labels)
    if len(labels) != count:
        raise DataError(
            f"`labels` must be one per sequence, {count} in all. Received: {len(labels)}."
        )
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise DataError(
                f"`labels` must be non-empty strings. Received: {label!r} for sequence {index}."
            )
    return tuple(labels)


def _validated_tags(tags: Any, lengths: np.ndarray) -> tuple[tuple[str, ...], ...]:
    check_sequence(tags=tags)
    if len(tags) != len(lengths):
        raise DataError(
            f"`tags` must be a list per sequence, {len(lengths)} in all. Received: {len(tags)}."
        )
    for index, (sequence_tags, length) in enumerate(zip(tags, lengths, strict=True)):
        if isinstance(sequence_tags, str):  # would pass for a list of its characters
            raise DataError(
                f"`tags` must be a list of str per sequence. Received: {sequence_tags!r} for "
                f"sequence {index}."
            )
        check_sequence(tags=sequence_tags)
        if len(sequence_tags) != length:
            raise DataError(
                f"`tags` must be one per step. Received: {len(sequence_tags)} tags for the "
                f"{length} steps of sequence {index}."
            )
        if not all(isinstance(tag, str) and tag for tag in sequence_tags):
            raise DataError(
                f"`tags` must be non-empty strings. Received: {sequence_tags!r} for sequence "
                f"{index}."
            )
    return tuple(map(tuple, tags))
