"""Preprocessing of sequence pairs: arrays for an encoder-decoder, and tokens of its outputs."""

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
from keras_seqzoo.utils.array_validation import as_array, as_ids, as_mask_value

if TYPE_CHECKING:
    from keras_seqzoo.data.batching import Batches

START, END = "[START]", "[END]"


@dataclasses.dataclass(frozen=True)
class PairPreprocessor:
    """Vocabularies or feature counts of the sources and targets of an encoder-decoder.

    Args:
        source: `Vocabulary` of sources, or int, the features of their readings.
        target: `Vocabulary` of targets, whose first two tokens are START and END, or int.
        source_units: "tokens" or "characters", what a source text is split into.
        target_units: "tokens" or "characters", what a target text is joined from.
        max_length: int, the maximum length of a generated sequence: tokens including END, or
            readings.
        mask_value: float at padded steps of sources that are readings; None where sources are of
            one length and nothing is padded. The default is NaN, which no reading is.

    Raises:
        ArgumentError: if an argument is out of range.

    Example:

    >>> from keras_seqzoo.data import PairPreprocessor, SequencePairs
    >>> pairs = SequencePairs([["a", "b"], ["b"]], [["x"], ["y", "y"]])
    >>> preprocessor = PairPreprocessor.from_data(pairs)
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
        for name, side in (("source", self.source), ("target", self.target)):
            if not isinstance(side, Vocabulary):
                check_size(**{name: side})
        check_choice("source_units", self.source_units, UNITS)
        check_choice("target_units", self.target_units, UNITS)
        check_positive(max_length=self.max_length)
        object.__setattr__(self, "mask_value", as_mask_value(self.mask_value))

    @classmethod
    def from_data(cls, examples: SequencePairs, *, min_count: int = 1) -> PairPreprocessor:
        """Create a preprocessor with the vocabularies of training pairs.

        `max_length` is one and a half times the longest target for tokens, and the longest target
        for readings.

        Args:
            examples: `SequencePairs`.
            min_count: int, at least 1, the minimum number of occurrences of a source token in the
                vocabulary.

        Raises:
            ArgumentError: if `examples` or `min_count` are something else.
        """
        check_instance(SequencePairs, examples=examples)
        check_positive(min_count=min_count)
        source, target = examples.sources[0], examples.targets[0]
        max_length = max(map(len, examples.targets))
        if isinstance(target, tuple):
            tokens = Vocabulary.from_data(examples.targets).tokens
            others = [token for token in tokens if token not in (START, END)]
            target_side = Vocabulary([START, END, *others])
            max_length = 3 * max_length // 2 + 2
        else:
            target_side = target.shape[-1]
        return cls(
            Vocabulary.from_data(examples.sources, min_count=min_count)
            if isinstance(source, tuple)
            else source.shape[-1],
            target_side,
            examples.source_units,
            examples.target_units,
            max_length,
        )

    @property
    def generates_tokens(self) -> bool:
        """Whether targets are tokens; otherwise they are readings."""
        return isinstance(self.target, Vocabulary)

    def model_arguments(self) -> dict[str, Any]:
        """The constructor arguments that follow from the data, for `keras_seqzoo.get`."""
        arguments: dict[str, Any] = {}
        for name, side in (("source", self.source), ("target", self.target)):
            if isinstance(side, Vocabulary):
                arguments[f"{name}_vocabulary_size"] = len(side)
            else:
                arguments[f"{name}_features"] = side
        if not isinstance(self.source, Vocabulary):
            arguments["mask_value"] = self.mask_value
        return arguments

    def batches(self, examples: SequencePairs, *, targets: bool = True, **options: Any) -> Batches:
        """Batches for `fit` with teacher forcing: inputs are the source and the shifted target.

        Token targets: the decoder input is START and the target, the expected output the target
        and END. Targets that are readings: the decoder input is a step of zeros and all but the
        last reading; where lengths differ, padded steps have weight 0.

        Args:
            examples: `SequencePairs`.
            targets: bool, whether batches have the expected outputs.
            **options: of `Batches`: batch_size, shuffle, seed, pad_to_multiple_of, pool.

        Raises:
            DataError: if the examples do not fit the preprocessor, or have several lengths and
                `mask_value` is None.
        """
        from keras_seqzoo.data.batching import Batches

        check_bool(targets=targets)
        self.check(examples)
        weights = None
        if isinstance(self.target, Vocabulary):
            encoded = [self.target.encode((START, *target, END)) for target in examples.targets]
            decoder_inputs = [ids[:-1] for ids in encoded]
            outputs = [ids[1:] for ids in encoded]
        else:
            start = np.zeros((1, self.target), np.float32)
            decoder_inputs = [np.concatenate([start, target[:-1]]) for target in examples.targets]
            outputs = list(examples.targets)
            if targets and len({len(target) for target in outputs}) > 1:
                weights = [np.ones(len(target), np.float32) for target in outputs]
        sources = self._encode(examples.sources)
        return Batches(
            {"source": sources, "target": decoder_inputs},
            outputs if targets else None,
            weights=weights,
            along="target",
            padding={"source": self._padding(sources)},
            **options,
        )

    def encode_sources(self, sequences: Sequence[Any]) -> np.ndarray:
        """Sources as one array for `generate`, padded to the longest.

        Shapes: `(batch, source)`, int, or `(batch, source, features)`, padded with `mask_value`.

        Args:
            sequences: lists of tokens, or arrays `(time, features)`.

        Raises:
            DataError: if they are something else, or readings of several lengths and `mask_value`
                is None.
        """
        check_sequence(sequences=sequences)
        sources = self._encode(sequences)
        longest = max([*map(len, sources), 1])
        if isinstance(self.source, Vocabulary):
            padded = np.zeros((len(sources), longest), np.int32)
        else:
            shape = (len(sources), longest, self.source)
            padded = np.full(shape, self._padding(sources), np.float32)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = source
        return padded

    def decode(self, ids: np.ndarray) -> list[list[str]]:
        """Tokens of generated ids, without padding.

        Args:
            ids: int `(batch, time)`, such as `generate` returns.

        Raises:
            DataError: if they are something else, or targets are readings.
        """
        if not isinstance(self.target, Vocabulary):
            raise DataError("`ids` cannot be decoded: targets are readings.")
        ids = as_ids("ids", ids, len(self.target))
        if ids.ndim != 2:
            raise DataError(f"`ids` must be (batch, time). Received: shape {ids.shape}.")
        return [self.target.decode(row[row > 0]) for row in ids]

    def check(self, examples: SequencePairs) -> None:
        """Check that pairs fit the preprocessor.

        Args:
            examples: `SequencePairs`.

        Raises:
            DataError: if they are tokens where readings are expected or the reverse, or have
                another number of features.
        """
        check_instance(SequencePairs, examples=examples)
        for name, side, sequence in (
            ("sources", self.source, examples.sources[0]),
            ("targets", self.target, examples.targets[0]),
        ):
            tokens = isinstance(side, Vocabulary)
            if isinstance(sequence, tuple) != tokens or not (tokens or sequence.shape[-1] == side):
                kind = "tokens" if tokens else f"readings of {side} features"
                raise DataError(f"`{name}` must be {kind}. Received: {examples!r}.")

    def _encode(self, sources: Sequence[Any]) -> list[np.ndarray]:
        """Each source as token ids `(time,)` or float32 readings `(time, features)`."""
        if isinstance(self.source, Vocabulary):
            return [self.source.encode(source) for source in sources]
        return [self._as_readings(source) for source in sources]

    def _as_readings(self, source: Any) -> np.ndarray:
        readings = as_array("sequences", source)
        if readings.dtype.kind not in "iuf" or readings.shape[1:] != (self.source,):
            raise DataError(
                f"`sequences` must be arrays (time, {self.source}). Received: shape "
                f"{readings.shape}, dtype {readings.dtype}."
            )
        return readings.astype(np.float32)

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
