"""Between pairs of sequences and the arrays that an encoder-decoder is trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seqzoo.data.pairs import UNITS, SequencePairs
from keras_seqzoo.data.vocabulary import Vocabulary
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import (
    check_bool,
    check_choice,
    check_instance,
    check_positive,
    check_sequence,
    check_size,
)
from keras_seqzoo.utils.array_validation import as_array, as_mask_value, as_ids

if TYPE_CHECKING:
    from keras_seqzoo.data.batching import Batches

START, END = "[START]", "[END]"


@dataclasses.dataclass(frozen=True)
class PairPreprocessor:
    """Between the sequences of pairs and arrays of numbers.

    Args:
        source: `Vocabulary` of sources, or int, how many readings a step of theirs has.
        target: `Vocabulary` of targets, whose first two tokens are START and END, or int.
        source_units: "tokens" or "characters", what a text is split into.
        target_units: the same of targets, which are joined again.
        max_length: int, how long an answer may become: tokens with their end, or readings.
        mask_value: float at padded steps of sources that are readings; NaN, as no reading is NaN;
            None where sources are of one length and nothing is padded.

    Raises:
        ArgumentError: if any of these is something else.

    Example:

    >>> from keras_seqzoo.data import PairPreprocessor, SequencePairs
    >>> pairs = SequencePairs([["a", "b"], ["b"]], [["x"], ["y", "y"]])
    >>> preprocessor = PairPreprocessor.learn(pairs)
    >>> inputs, targets = preprocessor.batches(pairs, batch_size=2, shuffle=False)[0]
    >>> inputs["target"].tolist(), targets.tolist()
    ([[2, 4, 4], [2, 5, 0]], [[4, 4, 3], [5, 3, 0]])
    """

    source: Vocabulary | int
    target: Vocabulary | int
    source_units: str = "tokens"
    target_units: str = "tokens"
    max_length: int = 50
    mask_value: float | None = math.nan

    def __post_init__(self) -> None:
        for name, known in (("source", self.source), ("target", self.target)):
            if not isinstance(known, Vocabulary):
                check_size(**{name: known})
        check_choice("source_units", self.source_units, UNITS)
        check_choice("target_units", self.target_units, UNITS)
        check_positive(max_length=self.max_length)
        object.__setattr__(self, "mask_value", as_mask_value(self.mask_value))

    @classmethod
    def learn(cls, examples: SequencePairs, *, min_count: int = 1) -> PairPreprocessor:
        """Learns the tokens of training examples, and how long an answer may become: half as long
        again as their longest target, or as many readings.

        Args:
            examples: `SequencePairs`.
            min_count: int, at least 1, how often a token of a source must occur to be known.

        Raises:
            ArgumentError: if `examples` or `min_count` are something else.
        """
        check_instance(SequencePairs, examples=examples)
        check_positive(min_count=min_count)
        source, target = examples.sources[0], examples.targets[0]
        longest = max(map(len, examples.targets))
        if isinstance(target, tuple):
            tokens = Vocabulary.learn(examples.targets).tokens
            tokens = (START, END, *(one for one in tokens if one not in (START, END)))
        return cls(
            Vocabulary.learn(examples.sources, min_count=min_count)
            if isinstance(source, tuple)
            else source.shape[-1],
            Vocabulary(tokens) if isinstance(target, tuple) else target.shape[-1],
            examples.source_units,
            examples.target_units,
            3 * longest // 2 + 2 if isinstance(target, tuple) else longest,
        )

    @property
    def generates_tokens(self) -> bool:
        """Whether targets are tokens; if not, they are readings."""
        return isinstance(self.target, Vocabulary)

    def arguments(self) -> dict[str, Any]:
        """The arguments of a constructor that follow from the data, for `keras_seqzoo.get`."""
        found: dict[str, Any] = {}
        for side, known in (("source", self.source), ("target", self.target)):
            if isinstance(known, Vocabulary):
                found[f"{side}_vocabulary_size"] = len(known)
            else:
                found[f"{side}_features"] = known
        if not isinstance(self.source, Vocabulary):
            found["mask_value"] = self.mask_value
        return found

    def batches(self, examples: SequencePairs, *, targets: bool = True, **options: Any) -> Batches:
        """Batches for `fit`: source and target so far, and what comes next.

        Of tokens the target so far is START and the target, and what comes next the target and
        END. Of readings the target so far begins with a step of zeros and lacks the last one;
        where lengths differ, padded steps weigh nothing.

        Args:
            examples: `SequencePairs`.
            targets: bool, whether to give what comes next.
            **options: as of `Batches`: batch_size, shuffle, seed, multiple.

        Raises:
            DataError: if the examples are of another kind than those learned from, or of several
                lengths without a `mask_value`.
        """
        from keras_seqzoo.data.batching import Batches

        check_bool(targets=targets)
        self.check(examples)
        weights = None
        if self.generates_tokens:
            whole = [self.target.encode((START, *target, END)) for target in examples.targets]
            so_far, following = [one[:-1] for one in whole], [one[1:] for one in whole]
        else:
            start = np.zeros((1, self.target), np.float32)
            so_far = [np.concatenate([start, one[:-1]]) for one in examples.targets]
            following = list(examples.targets)
            if targets and len({len(one) for one in following}) > 1:
                weights = [np.ones(len(one), np.float32) for one in following]
        given = self._numbers(examples.sources)
        return Batches(
            {"source": given, "target": so_far},
            following if targets else None,
            weights=weights,
            along="target",
            padding={"source": self._padding(given)},
            **options,
        )

    def sources(self, sequences: Sequence[Any]) -> np.ndarray:
        """Sources as `generate` takes them, padded to the longest.

        Shapes: `(batch, source)`, int, or `(batch, source, features)`, padded with `mask_value`.

        Args:
            sequences: lists of tokens, or arrays `(time, features)`.

        Raises:
            DataError: if they are something else, or readings of several lengths without a
                `mask_value`.
        """
        check_sequence(sequences=sequences)
        given = self._numbers(sequences)
        longest = max([*map(len, given), 1])
        if isinstance(self.source, Vocabulary):
            found = np.zeros((len(given), longest), np.int32)
        else:
            shape = (len(given), longest, self.source)
            found = np.full(shape, self._padding(given), np.float32)
        for row, sequence in zip(found, given, strict=True):
            row[: len(sequence)] = sequence
        return found

    def names(self, tokens: np.ndarray) -> list[list[str]]:
        """The tokens of what `generate` gave, without padding.

        Args:
            tokens: int `(batch, time)`.

        Raises:
            DataError: if they are something else, or targets are readings.
        """
        if not self.generates_tokens:
            raise DataError("`tokens` cannot be named: targets are readings.")
        tokens = as_ids("tokens", tokens, len(self.target))
        if tokens.ndim != 2:
            raise DataError(f"`tokens` must be (batch, time). Received: shape {tokens.shape}.")
        return [self.target.decode(row[row > 0]) for row in tokens]

    def check(self, examples: SequencePairs) -> None:
        """Refuses examples of another kind.

        Args:
            examples: `SequencePairs`.

        Raises:
            DataError: if tokens are given for readings, readings for tokens, or other features.
        """
        check_instance(SequencePairs, examples=examples)
        for side, known, sequence in (
            ("sources", self.source, examples.sources[0]),
            ("targets", self.target, examples.targets[0]),
        ):
            tokens = isinstance(known, Vocabulary)
            if isinstance(sequence, tuple) != tokens or not (tokens or sequence.shape[-1] == known):
                kind = "tokens" if tokens else f"readings of {known} features"
                raise DataError(f"`{side}` must be {kind}. Received: {examples!r}.")

    def _numbers(self, sequences: Sequence[Any]) -> list[np.ndarray]:
        if isinstance(self.source, Vocabulary):
            return [self.source.encode(sequence) for sequence in sequences]
        return [self._readings(sequence) for sequence in sequences]

    def _readings(self, sequence: Any) -> np.ndarray:
        """A source of readings in float32."""
        found = as_array("sequences", sequence)
        if found.dtype.kind not in "iuf" or found.shape[1:] != (self.source,):
            raise DataError(
                f"`sequences` must be arrays (time, {self.source}). Received: shape {found.shape}, "
                f"dtype {found.dtype}."
            )
        return found.astype(np.float32)

    def _padding(self, sources: Sequence[np.ndarray]) -> float:
        if isinstance(self.source, Vocabulary):
            return 0
        if self.mask_value is not None:
            return self.mask_value
        lengths = {len(source) for source in sources}
        if len(lengths) > 1 or 0 in lengths:
            raise DataError(
                "Sources must be of one length for a model without `mask_value`, which cannot tell "
                f"padding. Received: lengths from {min(lengths)} to {max(lengths)}."
            )
        return math.nan
