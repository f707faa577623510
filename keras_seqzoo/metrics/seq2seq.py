"""Sequence accuracy and token error rate of generated sequences."""

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
    """Result of `seq2seq_scores`. `str(scores)` is a sentence, `scores.plot()` a figure.

    Attributes:
        accuracy: float in [0, 1], fraction of sequences that match exactly. If each sequence is a
            word, the word error rate is `1 - accuracy`.
        token_error_rate: float of at least 0, insertions, deletions and substitutions over the
            number of true tokens; above 1 for predictions much longer than the true sequences.
        by_length: `pandas.DataFrame`, a row per length of the true sequence: count, accuracy.
        count: int, number of sequences.
        mistakes: tuple of (index, true, predicted), the first twenty wrong predictions.
    """

    accuracy: float
    token_error_rate: float
    by_length: pd.DataFrame
    count: int
    mistakes: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]

    def plot(self, ax=None):
        """Plot accuracy against length, with the number of sequences as bars.

        Args:
            ax: matplotlib axes; None for those of a new figure.

        Returns:
            The matplotlib axes.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6, 4), layout="constrained").add_subplot()
        count_axes = ax.twinx()
        count_axes.bar(self.by_length.index, self.by_length["count"], color="0.88")
        count_axes.set_ylabel("sequences")
        ax.set_zorder(count_axes.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.plot(self.by_length.index, self.by_length["accuracy"], marker="o")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("length of the true sequence, tokens")
        ax.set_ylabel("sequence accuracy")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The scores as a dict for JSON."""
        return {
            "accuracy": self.accuracy,
            "token_error_rate": self.token_error_rate,
            "by_length": self.by_length.reset_index().to_dict("list"),
            "count": self.count,
            "mistakes": [
                {"index": index, "true": list(true), "predicted": list(predicted)}
                for index, true, predicted in self.mistakes
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
            f"Sequence accuracy {self.accuracy:.3f} over {self.count} "
            f"sequence{'s' * (self.count != 1)}; token error rate {self.token_error_rate:.3f}."
        )


def seq2seq_scores(
    true: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> Seq2SeqScores:
    """Scores of predicted sequences, which may be longer or shorter than the true ones.

    Args:
        true: lists of tokens, one per sequence.
        predicted: lists of tokens, in the order of `true`.

    Returns:
        `Seq2SeqScores`.

    Raises:
        DataError: if there are no sequences, or the numbers of true and predicted ones differ.

    Example:

    >>> from keras_seqzoo.metrics import seq2seq_scores
    >>> print(seq2seq_scores([["a", "b"], ["c"]], [["a", "b"], ["c", "d"]]))
    Sequence accuracy 0.500 over 2 sequences; token error rate 0.333.
    """
    true, predicted = _token_tuples("true", true), _token_tuples("predicted", predicted)
    if not true or len(true) != len(predicted):
        expected = f"as many sequences as `true` has, {len(true)}, and at least one"
        raise DataError(argument_message("predicted", expected, len(predicted)))
    correct = np.array([target == tokens for target, tokens in zip(true, predicted, strict=True)])
    lengths = np.array([len(target) for target in true])
    errors = sum(map(edit_distance, true, predicted))
    grouped = pd.DataFrame({"length": lengths, "correct": correct}).groupby("length")
    by_length = grouped.agg(count=("correct", "size"), accuracy=("correct", "mean"))
    return Seq2SeqScores(
        accuracy=float(correct.mean()),
        token_error_rate=errors / max(int(lengths.sum()), 1),
        by_length=by_length,
        count=len(true),
        mistakes=tuple(
            (int(index), true[index], predicted[index]) for index in np.flatnonzero(~correct)[:20]
        ),
    )


def _token_tuples(name: str, sequences: Any) -> list[tuple]:
    check_sequence(**{name: sequences})
    for sequence in sequences:
        is_list = isinstance(sequence, list | tuple | np.ndarray)
        if not is_list or not all(isinstance(token, str) or is_int(token) for token in sequence):
            raise DataError(argument_message(name, "lists of tokens, str or int", sequence))
    return [tuple(sequence) for sequence in sequences]


def edit_distance(true: Sequence[str], predicted: Sequence[str]) -> int:
    """Levenshtein distance: the minimum number of insertions, deletions and substitutions.

    Args:
        true: sequence of tokens.
        predicted: sequence of tokens.

    Reference: Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals,
        Soviet Physics Doklady 10, 1966
    """
    previous = list(range(len(predicted) + 1))
    for row, true_token in enumerate(true, 1):
        current = [row]
        for column, predicted_token in enumerate(predicted, 1):
            substituted = previous[column - 1] + (true_token != predicted_token)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]
