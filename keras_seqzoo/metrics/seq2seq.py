"""How well said sequences agree with those that were to be said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.errors import DataError
from keras_seqzoo.metrics.figure import Figure
from keras_seqzoo.utils.argument_validation import argument_message, check_sequence, is_int


@dataclasses.dataclass(frozen=True, eq=False)
class Seq2SeqScores:
    """What `seq2seq_scores` found. `str(scores)` is a sentence, `scores.plot()` a figure.

    Attributes:
        accuracy: float in [0, 1], share of sequences that are right as a whole. In tasks whose
            sequences are words, 1 less it is the word error rate.
        token_error_rate: float of at least 0, insertions, deletions and substitutions over the
            number of true tokens; above 1 if much more is said than there is.
        by_length: `pandas.DataFrame`, a row per length of the true sequence: count, accuracy.
        count: int, number of sequences.
        mistakes: tuple of (index, true, said), the first twenty that are wrong.
    """

    accuracy: float
    token_error_rate: float
    by_length: pd.DataFrame
    count: int
    mistakes: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]

    def plot(self, ax=None):
        """Draws accuracy against length, each length's weight as a bar; returns the axes.

        Args:
            ax: matplotlib axes; default those of a new figure.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6, 4), layout="constrained").add_subplot()
        beside = ax.twinx()
        beside.bar(self.by_length.index, self.by_length["count"], color="0.88")
        beside.set_ylabel("sequences")
        ax.set_zorder(beside.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.plot(self.by_length.index, self.by_length["accuracy"], marker="o")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("length of the true sequence, tokens")
        ax.set_ylabel("share of sequences right as a whole")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        return {
            "accuracy": self.accuracy,
            "token_error_rate": self.token_error_rate,
            "by_length": self.by_length.reset_index().to_dict("list"),
            "count": self.count,
            "mistakes": [
                {"index": index, "true": list(true), "said": list(said)}
                for index, true, said in self.mistakes
            ],
        }

    def figures(self) -> list[Figure]:
        """Labeled numbers, for a table or a report."""
        return [
            Figure("accuracy", f"{100 * self.accuracy:.1f} %", f"of {self.count} sequences"),
            Figure("token error rate", f"{100 * self.token_error_rate:.1f} %", "0 is perfect"),
        ]

    def __str__(self) -> str:
        return (
            f"Right as a whole: {self.accuracy:.3f} of {self.count} "
            f"sequence{'s' * (self.count != 1)}; token error rate {self.token_error_rate:.3f}."
        )


def _rows(name: str, given: Any) -> list[tuple]:
    check_sequence(**{name: given})
    for one in given:
        fits = isinstance(one, list | tuple | np.ndarray)
        if not fits or not all(isinstance(token, str) or is_int(token) for token in one):
            raise DataError(argument_message(name, "lists of tokens, str or int", one))
    return [tuple(one) for one in given]


def seq2seq_scores(true: Iterable[Sequence[str]], said: Iterable[Sequence[str]]) -> Seq2SeqScores:
    """Scores of said sequences, whose lengths need not be those of the true ones.

    Args:
        true: lists of tokens, one per sequence.
        said: the same.

    Returns:
        `Seq2SeqScores`.

    Raises:
        DataError: if there are none, or there are not as many of one as of the other.

    Example:

    >>> from keras_seqzoo.diagnostics import seq2seq_scores
    >>> print(seq2seq_scores([["a", "b"], ["c"]], [["a", "b"], ["c", "d"]]))
    Right as a whole: 0.500 of 2 sequences; token error rate 0.333.
    """
    true, said = _rows("true", true), _rows("said", said)
    if not true or len(true) != len(said):
        expected = f"as many sequences as `true` has, {len(true)}, and at least one"
        raise DataError(argument_message("said", expected, len(said)))
    right = np.array([one == other for one, other in zip(true, said, strict=True)])
    lengths = np.array([len(one) for one in true])
    errors = sum(map(edits, true, said))
    by_length = pd.DataFrame({"length": lengths, "accuracy": right}).groupby("length")
    return Seq2SeqScores(
        accuracy=float(right.mean()),
        token_error_rate=errors / max(int(lengths.sum()), 1),
        by_length=by_length["accuracy"].agg(count="size", accuracy="mean"),
        count=len(true),
        mistakes=tuple((int(at), true[at], said[at]) for at in np.flatnonzero(~right)[:20]),
    )


def edits(true: Sequence[str], said: Sequence[str]) -> int:
    """The least number of insertions, deletions and substitutions from one to the other.

    Args:
        true: sequence of tokens.
        said: the same.

    Reference: Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals,
        Soviet Physics Doklady 10, 1966
    """
    before = list(range(len(said) + 1))
    for row, token in enumerate(true, 1):
        here = [row]
        for column, other in enumerate(said, 1):
            changed = before[column - 1] + (token != other)
            here.append(min(before[column] + 1, here[-1] + 1, changed))
        before = here
    return before[-1]
