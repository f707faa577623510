"""Sequence pairs: a source and a target sequence of independent lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from keras_seqzoo.data.sequence_dataset import SequenceDataset, validated_sequences
from keras_seqzoo.data.windows import make_windows
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_choice, check_positive

UNITS = ("tokens", "characters")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SequencePairs(SequenceDataset):
    """Source and target sequences of tokens or of readings, for sequence-to-sequence models.

    Args:
        sources: iterable of lists of str, or of arrays `(time, features)`.
        targets: the same, one per source. A source or a target may have no tokens.
        source_units: "tokens" or "characters", what source texts were split into. An end-to-end
            model splits its input in the same way.
        target_units: "tokens" or "characters", what target texts were split into. An end-to-end
            model joins its output accordingly.
        source: str, the path or description of the data.

    Raises:
        ArgumentError: if units are unknown.
        DataError: if there are no pairs, the numbers of sources and targets differ, or a sequence
            is neither tokens nor finite readings.

    Example:

    >>> from keras_seqzoo.data import SequencePairs
    >>> SequencePairs([["a", "b"]], [["b", "a"]])
    SequencePairs(1 pair, tokens to tokens; from memory)
    """

    _per_sequence: ClassVar[tuple[str, ...]] = ("sources", "targets")

    sources: Sequence[Any]
    targets: Sequence[Any]
    source_units: str = "tokens"
    target_units: str = "tokens"
    source: str = ""

    def __post_init__(self) -> None:
        check_choice("source_units", self.source_units, UNITS)
        check_choice("target_units", self.target_units, UNITS)
        for name in self._per_sequence:
            object.__setattr__(self, name, tuple(validated_sequences(name, getattr(self, name))))
        if len(self.sources) != len(self.targets):
            raise DataError(
                "`targets` must be one per source. Received: "
                f"{len(self.sources)} sources and {len(self.targets)} targets."
            )

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


def forecasting_pairs(
    readings: Any, *, past: int, steps: int, sequence_stride: int | None = None
) -> SequencePairs:
    """Pairs of past and following readings, for multi-step forecasting.

    A pair never spans a gap in the time series.

    Args:
        readings: `TimeSeries`, or an array `(time, features)` or `(time,)` without a gap.
        past: int, at least 1, the number of readings in a source.
        steps: int, at least 1, the number of readings in a target.
        sequence_stride: int, at least 1, readings between the starts of consecutive pairs. None
            means `steps`, so that every reading is forecast once.

    Raises:
        ArgumentError: if an option is out of range.
        DataError: if no pair fits into the time series.

    Example:

    >>> from keras_seqzoo.data import forecasting_pairs
    >>> pairs = forecasting_pairs(np.arange(10.0), past=4, steps=2)
    >>> len(pairs), pairs.sources[0][:, 0].tolist(), pairs.targets[0][:, 0].tolist()
    (3, [0.0, 1.0, 2.0, 3.0], [4.0, 5.0])
    """
    check_positive(past=past, steps=steps)
    windows = make_windows(
        readings,
        sequence_length=past + steps,
        sequence_stride=steps if sequence_stride is None else sequence_stride,
    )
    source = getattr(readings, "source", "")
    return SequencePairs(list(windows[:, :past]), list(windows[:, past:]), source=source)
