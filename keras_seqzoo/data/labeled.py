"""Sequences with what is to be said of them: a label each, a tag for every step, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_fraction,
    check_seed,
    check_sequence,
)
from keras_seqzoo.utils.array_validation import as_indices


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabeledSequences:
    """Labeled or tagged sequences of unequal length, of tokens or of readings.

    Shapes: a sequence is a tuple of `time` tokens, or a float32 array `(time, features)`; all are
        of one kind and have the same features.

    Args:
        sequences: iterable of sequences: lists of str, or arrays `(time, features)`.
        labels: iterable of str, one per sequence, or None.
        tags: iterable of lists of str, one tag per step of each sequence, or None.
        notes: tuple of str, sentences that say what was noticed and what was done about it.
        source: str, where the sequences come from.

    Raises:
        DataError: if there is no sequence, the parts do not fit each other, or a reading is not
            finite; the message says which sequence.

    Example:

    >>> from keras_seqzoo.data import LabeledSequences
    >>> text = LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> text, text.tags[0], text.lengths.tolist()
    (LabeledSequences(2 sequences of tokens, 2 tags; from memory), ('O', 'B-genre'), [2, 1])
    """

    sequences: Sequence[Any]
    labels: Sequence[str] | None = None
    tags: Sequence[Sequence[str]] | None = None
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sequences", tuple(checked_sequences("sequences", self.sequences)))
        check_sequence(notes=self.notes)
        object.__setattr__(self, "notes", tuple(self.notes))
        if self.labels is not None:
            if not isinstance(self.labels, str):
                check_sequence(labels=self.labels)
            labels = self.labels if isinstance(self.labels, str) else tuple(self.labels)
            _check_labels(labels, len(self))
            object.__setattr__(self, "labels", labels)
        if self.tags is not None:
            check_sequence(tags=self.tags)
            for tags in self.tags:
                if not isinstance(tags, str):
                    check_sequence(tags=tags)
            tags = tuple(tags if isinstance(tags, str) else tuple(tags) for tags in self.tags)
            _check_tags(tags, self.lengths)
            object.__setattr__(self, "tags", tags)

    def __len__(self) -> int:
        return len(self.sequences)

    def __repr__(self) -> str:
        kind = "tokens" if self.has_tokens else f"readings of {self.features} features"
        said = [
            f"{len(names)} {what}"
            for what, names in (("labels", self.label_names), ("tags", self.tag_names))
            if names
        ]
        return (
            f"LabeledSequences({', '.join((f'{len(self)} sequences of {kind}', *said))}; "
            f"from {self.source or 'memory'})"
        )

    @property
    def has_tokens(self) -> bool:
        """Whether steps are tokens; if not, they are readings."""
        return isinstance(self.sequences[0], tuple)

    @property
    def features(self) -> int | None:
        """How many values each reading has; None for tokens."""
        return None if self.has_tokens else self.sequences[0].shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """The number of steps of each sequence, int array `(sequences,)`."""
        return np.array([len(sequence) for sequence in self.sequences], np.int64)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Every label that occurs, sorted."""
        return tuple(sorted(set(self.labels or ())))

    @property
    def tag_names(self) -> tuple[str, ...]:
        """Every tag that occurs, sorted."""
        return tuple(sorted({tag for tags in self.tags or () for tag in tags}))

    def take(self, indices: Sequence[int]) -> LabeledSequences:
        """The examples at `indices`, in that order.

        Args:
            indices: ints from 0 to `len(self) - 1`, at least one.

        Raises:
            DataError: if they are something else.
        """
        indices = as_indices("indices", indices, len(self))
        return dataclasses.replace(
            self,
            sequences=[self.sequences[index] for index in indices],
            labels=self.labels and [self.labels[index] for index in indices],
            tags=self.tags and [self.tags[index] for index in indices],
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[LabeledSequences, LabeledSequences]:
        """Two parts at random, `fraction` of each label in the second one.

        Args:
            fraction: float in (0, 1), the share of the second part.
            seed: int, the same parts for the same seed.

        Returns:
            Both parts; each keeps the order of this one.

        Raises:
            ArgumentError: if the fraction leaves a part empty.
        """
        check_fraction(fraction=fraction)
        check_seed(seed)
        rng = np.random.default_rng(seed)
        labels = np.array(self.labels or [""] * len(self))
        second = np.zeros(len(self), bool)
        for label in np.unique(labels):
            of_it = rng.permutation(np.flatnonzero(labels == label))
            second[of_it[: round(len(of_it) * fraction)]] = True
        if second.all() or not second.any():
            raise ArgumentError(
                argument_message(
                    "fraction", f"one that leaves both parts some of {len(self)}", fraction
                )
            )
        return self.take(np.flatnonzero(~second)), self.take(np.flatnonzero(second))


def checked_sequences(name: str, sequences: Any) -> Iterator[Any]:
    """Each sequence as a tuple of tokens or a float32 array `(time, features)`.

    Args:
        name: str, what messages call them.
        sequences: iterable of lists of str, or of numeric arrays `(time, features)` or `(time,)`.

    Raises:
        DataError: if there is none, they are not of one kind, or a reading is not finite.
    """
    if not isinstance(sequences, Iterable) or isinstance(sequences, str):
        raise DataError(argument_message(name, "a list of sequences", sequences))
    sequences = list(sequences)
    if not sequences:
        raise DataError(f"`{name}` must have at least one sequence. Received: none.")
    tokens = _are_tokens(name, sequences[0])
    features = None
    for index, sequence in enumerate(sequences):
        if _are_tokens(name, sequence) != tokens:
            raise DataError(
                f"`{name}` must be all of tokens or all of readings. Received: sequence "
                f"{index} of the other kind than the first."
            )
        if tokens:
            yield tuple(sequence)
            continue
        array = _readings(name, sequence, index)
        features = array.shape[1] if features is None else features
        if array.shape[1] != features:
            raise DataError(
                f"`{name}` must all have {features} features, as the first. Received: sequence "
                f"{index} with {array.shape[1]}."
            )
        yield array


def _are_tokens(name: str, sequence: Any) -> bool:
    if isinstance(sequence, str):
        raise DataError(
            argument_message(name, "lists of tokens", sequence, "Split texts into tokens first.")
        )
    return isinstance(sequence, list | tuple) and all(isinstance(step, str) for step in sequence)


def _readings(name: str, sequence: Any, index: int) -> np.ndarray:
    try:
        array = np.asarray(sequence)
    except ValueError:
        array = np.array("ragged")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iuf":
        raise DataError(
            f"`{name}` must be lists of str or numeric arrays (time, features). Received: "
            f"sequence {index} of shape {array.shape}, dtype {array.dtype}."
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(
            f"`{name}` must be finite in float32. Received: NaN or infinity in sequence "
            f"{index}. Leave it out, or fill its gaps first."
        )
    return array


def _check_labels(labels: tuple, count: int) -> None:
    if isinstance(labels, str) or len(labels) != count:
        raise DataError(
            f"`labels` must be one per sequence, {count} in all. Received: {len(labels)}."
        )
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise DataError(
                f"`labels` must be non-empty strings. Received: {label!r} for sequence {index}."
            )


def _check_tags(tags: tuple, lengths: np.ndarray) -> None:
    if len(tags) != len(lengths):
        raise DataError(
            f"`tags` must be a list per sequence, {len(lengths)} in all. Received: {len(tags)}."
        )
    for index, (of_it, length) in enumerate(zip(tags, lengths, strict=True)):
        if len(of_it) != length:
            raise DataError(
                f"`tags` must be one per step. Received: {len(of_it)} tags for the {length} steps "
                f"of sequence {index}."
            )
        if isinstance(of_it, str) or not all(isinstance(tag, str) and tag for tag in of_it):
            raise DataError(
                f"`tags` must be non-empty strings. Received: {of_it!r} for sequence {index}."
            )
