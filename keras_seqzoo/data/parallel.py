"""Pairs of sequences: one to be read, and one, of a length of its own, to be said of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seqzoo.data.readers.lines import lines, read_text, refuse_file, split_blanks
from keras_seqzoo.data.vocabulary import Vocabulary
from keras_seqzoo.errors import DataError, check_choice, check_fraction, check_seed, sentence

if TYPE_CHECKING:
    from keras_seqzoo.data.batches import Batches

START, END = "[START]", "[END]"
UNITS = ("characters", "tokens")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ParallelExamples:
    """Sources and targets, both sequences of tokens.

    Args:
        sources: iterable of lists of str.
        targets: iterable of lists of str, one per source; either may be empty.
        source: str, where they come from.

    Raises:
        DataError: if there are none, as many of one as of the other are not there, or a sequence
            is no list of str.

    Example:

    >>> from keras_seqzoo.data import ParallelExamples
    >>> ParallelExamples([["a", "b"]], [["b", "a"]])
    ParallelExamples(1 pair; from memory)
    """

    sources: Sequence[tuple[str, ...]]
    targets: Sequence[tuple[str, ...]]
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("sources", "targets"):
            object.__setattr__(self, name, tuple(_sequences(name, getattr(self, name))))
        if len(self.sources) != len(self.targets) or not self.sources:
            raise DataError(
                "`sources` and `targets` must be as many, at least one. Received: "
                f"{len(self.sources)} and {len(self.targets)}."
            )

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        count = f"{len(self)} pair{'s' * (len(self) != 1)}"
        return f"ParallelExamples({count}; from {self.source or 'memory'})"

    def take(self, indices: Sequence[int]) -> ParallelExamples:
        """The pairs at `indices`, in that order.

        Args:
            indices: ints below `len(self)`, at least one.
        """
        return dataclasses.replace(
            self,
            sources=[self.sources[index] for index in indices],
            targets=[self.targets[index] for index in indices],
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[ParallelExamples, ParallelExamples]:
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
        second[
            np.random.default_rng(seed).permutation(len(self))[: round(len(self) * fraction)]
        ] = 1
        if second.all() or not second.any():
            expected = f"one that leaves both parts some of {len(self)}"
            raise DataError(sentence("fraction", expected, fraction))
        return self.take(np.flatnonzero(~second)), self.take(np.flatnonzero(second))


def read_parallel(
    path: str | os.PathLike,
    targets: str | os.PathLike | None = None,
    *,
    source_units: str = "tokens",
    target_units: str = "tokens",
) -> ParallelExamples:
    r"""Reads pairs from a file of two columns, or from two files with a sequence a line.

    Args:
        path: text file in UTF-8: source and target with a tab between them, or sources alone.
        targets: file with as many lines as `path`, or None for a file of two columns.
        source_units: "tokens", parted by blanks, or "characters", blanks left out.
        target_units: the same of targets.

    Raises:
        ArgumentError: if an argument is not a path, or the units are unknown.
        DataError: if a file cannot be read, or a line has no target.

    Example:

    >>> path = Path(tempfile.mkdtemp(), "words.tsv")
    >>> _ = path.write_text("achat\ta ʃ a\n", encoding="utf-8")
    >>> read_parallel(path, source_units="characters").sources
    (('a', 'c', 'h', 'a', 't'),)
    """
    check_choice("source_units", source_units, UNITS)
    check_choice("target_units", target_units, UNITS)
    given = lines(read_text(path))
    if targets is not None:
        beside = lines(read_text(targets, argument="targets"))
        if len(beside) != len(given):
            raise refuse_file(
                targets,
                f"a file with as many lines as `path`, {len(given)}",
                f"which has {len(beside)}",
                "Files that belong together have a line for each pair.",
                argument="targets",
            )
    else:
        parts = [line.split("\t") for line in given]
        for number, part in enumerate(parts, 1):
            if len(part) != 2:
                cause = f"whose line {number} has {len(part)} columns"
                hint = "Put a tab between source and target, or give two files."
                raise refuse_file(path, "a file of two columns", cause, hint)
        given, beside = zip(*parts, strict=True)
    return ParallelExamples(
        [_units(line, source_units) for line in given],
        [_units(line, target_units) for line in beside],
        source=os.fspath(path),
    )


@dataclasses.dataclass(frozen=True)
class ParallelEncoding:
    """Between the tokens of pairs and their numbers.

    Args:
        source: `Vocabulary` of sources.
        target: `Vocabulary` of targets, whose first two tokens are START and END.

    Example:

    >>> from keras_seqzoo.data import ParallelEncoding, ParallelExamples
    >>> pairs = ParallelExamples([["a", "b"], ["b"]], [["x"], ["y", "y"]])
    >>> encoding = ParallelEncoding.learn(pairs)
    >>> inputs, targets = encoding.batches(pairs, batch_size=2, shuffle=False)[0]
    >>> inputs["target"].tolist(), targets.tolist()
    ([[2, 4, 4], [2, 5, 0]], [[4, 4, 3], [5, 3, 0]])
    """

    source: Vocabulary
    target: Vocabulary

    @classmethod
    def learn(cls, examples: ParallelExamples, *, min_count: int = 1) -> ParallelEncoding:
        """Learns the tokens of training examples.

        Args:
            examples: `ParallelExamples`.
            min_count: int, at least 1, how often a token of a source must occur to be known.
        """
        said = Vocabulary.learn(examples.targets)
        return cls(
            Vocabulary.learn(examples.sources, min_count=min_count),
            Vocabulary((START, END, *(one for one in said.tokens if one not in (START, END)))),
        )

    def arguments(self) -> dict[str, Any]:
        """The arguments of a constructor that follow from the tokens, for `keras_seqzoo.get`."""
        return {
            "source_vocabulary_size": len(self.source),
            "target_vocabulary_size": len(self.target),
        }

    def batches(
        self, examples: ParallelExamples, *, targets: bool = True, **options: Any
    ) -> Batches:
        """Batches for `fit`: source and target so far, and what comes next.

        The target so far is START and the target; what comes next is the target and END.

        Args:
            examples: `ParallelExamples`.
            targets: bool, whether to give what comes next.
            **options: as of `Batches`: batch_size, shuffle, seed, multiple.
        """
        from keras_seqzoo.data.batches import Batches

        said = [self.target.encode((START, *target, END)) for target in examples.targets]
        inputs = {
            "source": [self.source.encode(source) for source in examples.sources],
            "target": [one[:-1] for one in said],
        }
        following = [one[1:] for one in said] if targets else None
        return Batches(inputs, following, along="target", **options)

    def sources(self, sequences: Sequence[Sequence[str]]) -> np.ndarray:
        """Sources as `generate` takes them, int `(batch, source)`, padded to the longest.

        Args:
            sequences: lists of tokens.
        """
        longest = max(map(len, sequences), default=0)
        found = np.zeros((len(sequences), max(longest, 1)), np.int32)
        for row, sequence in zip(found, sequences, strict=True):
            row[: len(sequence)] = self.source.encode(sequence)
        return found

    def names(self, tokens: np.ndarray) -> list[list[str]]:
        """The tokens of what `generate` gave, without padding.

        Args:
            tokens: int `(batch, time)`.
        """
        return [self.target.decode([one for one in row if one]) for row in np.asarray(tokens)]


def _units(text: str, units: str) -> list[str]:
    tokens = split_blanks(text)
    return tokens if units == "tokens" else [character for token in tokens for character in token]


def _sequences(name: str, given: Any) -> Iterable[tuple[str, ...]]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise DataError(sentence(name, "a list of sequences", given))
    for number, one in enumerate(given):
        if not isinstance(one, list | tuple) or not all(isinstance(step, str) for step in one):
            raise DataError(
                f"`{name}` must be lists of str. Received: {one!r} as number {number}. Split texts "
                "into tokens first."
            )
        yield tuple(one)
