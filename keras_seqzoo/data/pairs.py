"""Pairs of sequences: one to be read, and one, of a length of its own, to be said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seqzoo.data.labeled import checked_sequences
from keras_seqzoo.data.windows import make_windows
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_fraction,
    check_positive,
    check_seed,
)
from keras_seqzoo.utils.array_validation import as_indices

UNITS = ("tokens", "characters")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SequencePairs:
    """Sources and targets, each sequences of tokens or of readings.

    Args:
        sources: iterable of lists of str, or of arrays `(time, features)`.
        targets: the same, one per source; either may have no tokens.
        source_units: "tokens" or "characters", what a text of the sources was split into, which
            says how a model with names splits it again.
        target_units: the same of targets, which are joined again.
        source: str, where they come from.

    Raises:
        ArgumentError: if units are unknown.
        DataError: if there are none, there are not as many of one as of the other, or a sequence
            is neither tokens nor finite readings.

    Example:

    >>> from keras_seqzoo.data import SequencePairs
    >>> SequencePairs([["a", "b"]], [["b", "a"]])
    SequencePairs(1 pair, tokens to tokens; from memory)
    """

    sources: Sequence[Any]
    targets: Sequence[Any]
    source_units: str = "tokens"
    target_units: str = "tokens"
    source: str = ""

    def __post_init__(self) -> None:
        check_choice("source_units", self.source_units, UNITS)
        check_choice("target_units", self.target_units, UNITS)
        for name in ("sources", "targets"):
            object.__setattr__(self, name, tuple(checked_sequences(name, getattr(self, name))))
        if len(self.sources) != len(self.targets):
            raise DataError(
                "`sources` and `targets` must be as many. Received: "
                f"{len(self.sources)} and {len(self.targets)}."
            )

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        kinds = [
            units if isinstance(sequences[0], tuple) else "readings"
            for sequences, units in (
                (self.sources, self.source_units),
                (self.targets, self.target_units),
            )
        ]
        count = f"{len(self)} pair{'s' * (len(self) != 1)}"
        return f"SequencePairs({count}, {' to '.join(kinds)}; from {self.source or 'memory'})"

    def take(self, indices: Sequence[int]) -> SequencePairs:
        """The pairs at `indices`, in that order.

        Args:
            indices: ints from 0 to `len(self) - 1`, at least one.

        Raises:
            DataError: if they are something else.
        """
        indices = as_indices("indices", indices, len(self))
        return dataclasses.replace(
            self,
            sources=[self.sources[index] for index in indices],
            targets=[self.targets[index] for index in indices],
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[SequencePairs, SequencePairs]:
        """Two parts, drawn at random; each keeps the order of this one.

        Args:
            fraction: float in (0, 1), the share of the second part.
            seed: int, the same parts for the same seed.

        Raises:
            DataError: if the fraction leaves a part empty.
        """
        check_fraction(fraction=fraction)
        check_seed(seed)
        second = np.zeros(len(self), bool)
        drawn = np.random.default_rng(seed).permutation(len(self))
        second[drawn[: round(len(self) * fraction)]] = True
        if second.all() or not second.any():
            expected = f"one that leaves both parts some of {len(self)}"
            raise DataError(argument_message("fraction", expected, fraction))
        return self.take(np.flatnonzero(~second)), self.take(np.flatnonzero(second))


def forecasting_pairs(
    readings: Any, *, past: int, steps: int, sequence_stride: int | None = None
) -> SequencePairs:
    """Pairs of what was read and what came next, to forecast many steps.

    A pair never spans a gap of the record.

    Args:
        readings: `TimeSeries`, or an array `(time, features)` or `(time,)` without a gap.
        past: int, at least 1, readings that are seen.
        steps: int, at least 1, readings to be forecast.
        sequence_stride: int, at least 1, readings from pair to pair; None stands for `steps`, so that
            every reading is forecast once.

    Raises:
        ArgumentError: if an option is out of range.
        DataError: if no pair fits into the record.

    Example:

    >>> from keras_seqzoo.data import forecasting_pairs
    >>> pairs = forecasting_pairs(np.arange(10.0), past=4, steps=2)
    >>> len(pairs), pairs.sources[0][:, 0].tolist(), pairs.targets[0][:, 0].tolist()
    (3, [0.0, 1.0, 2.0, 3.0], [4.0, 5.0])
    """
    check_positive(past=past, steps=steps)
    rows = make_windows(
        readings,
        sequence_length=past + steps,
        sequence_stride=steps if sequence_stride is None else sequence_stride,
    )
    source = getattr(readings, "source", "")
    return SequencePairs(rows[:, :past], rows[:, past:], source=source)
