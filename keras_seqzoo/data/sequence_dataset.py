"""Base of the in-memory data sets: sequences of unequal length that are selected and split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message, check_fraction, check_seed
from keras_seqzoo.utils.array_validation import as_indices


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SequenceDataset:
    """Base of `LabeledSequences` and `SequencePairs`: length, `take` and `split`."""

    # Fields with one value per sequence. The first is never None.
    _per_sequence: ClassVar[tuple[str, ...]]

    def __len__(self) -> int:
        return len(getattr(self, self._per_sequence[0]))

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Select the examples at `indices`, in that order.

        Args:
            indices: ints from 0 to `len(self) - 1`, at least one.

        Raises:
            DataError: if `indices` are not such ints.
        """
        selected = as_indices("indices", indices, len(self))
        fields = {name: getattr(self, name) for name in self._per_sequence}
        return dataclasses.replace(
            self,
            **{
                name: None if values is None else [values[index] for index in selected]
                for name, values in fields.items()
            },
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Self, Self]:
        """Split into two parts at random; labeled sequences are stratified by label.

        Args:
            fraction: float in (0, 1), the share of the second part.
            seed: int, the same parts for the same seed.

        Returns:
            Both parts; each keeps the order of the examples.

        Raises:
            ArgumentError: if the fraction leaves a part empty.
        """
        check_fraction(fraction=fraction)
        check_seed(seed)
        rng = np.random.default_rng(seed)
        strata = self._strata()
        in_second = np.zeros(len(self), bool)
        for stratum in np.unique(strata):
            indices = rng.permutation(np.flatnonzero(strata == stratum))
            in_second[indices[: round(len(indices) * fraction)]] = True
        if in_second.all() or not in_second.any():
            expected = f"a share of {len(self)} examples that leaves no part empty"
            raise ArgumentError(argument_message("fraction", expected, fraction))
        return self.take(np.flatnonzero(~in_second)), self.take(np.flatnonzero(in_second))

    def _strata(self) -> np.ndarray:
        """The group of each example, array `(examples,)`; `split` takes its share of each group."""
        return np.zeros(len(self), np.int64)


def validated_sequences(name: str, sequences: Any) -> Iterator[Any]:
    """Each sequence as a tuple of tokens or a float32 array `(time, features)`.

    Args:
        name: str, the name of the argument in error messages.
        sequences: iterable of lists of str, or of numeric arrays `(time, features)` or `(time,)`.

    Raises:
        DataError: if `sequences` is empty, mixes tokens and readings, or has a reading that is not
            finite.
    """
    if not isinstance(sequences, Iterable) or isinstance(sequences, str):
        raise DataError(argument_message(name, "a list of sequences", sequences))
    sequences = list(sequences)
    if not sequences:
        raise DataError(f"`{name}` must have at least one sequence. Received: none.")
    tokens = _is_token_sequence(name, sequences[0])
    features = None
    for index, sequence in enumerate(sequences):
        if _is_token_sequence(name, sequence) != tokens:
            raise DataError(
                f"`{name}` must be all of tokens or all of readings. Received: sequence "
                f"{index} of the other kind than the first."
            )
        if tokens:
            yield tuple(sequence)
            continue
        array = _as_readings(name, sequence, index)
        features = array.shape[1] if features is None else features
        if array.shape[1] != features:
            raise DataError(
                f"`{name}` must all have {features} features, as the first. Received: sequence "
                f"{index} with {array.shape[1]}."
            )
        yield array


def _is_token_sequence(name: str, sequence: Any) -> bool:
    if isinstance(sequence, str):
        raise DataError(
            argument_message(name, "lists of tokens", sequence, "Split texts into tokens first.")
        )
    return isinstance(sequence, list | tuple) and all(isinstance(token, str) for token in sequence)


def _as_readings(name: str, sequence: Any, index: int) -> np.ndarray:
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
            f"{index}. Leave that sequence out, or fill its missing values first."
        )
    return array
