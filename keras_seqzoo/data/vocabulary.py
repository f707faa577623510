"""Vocabulary: token strings to integer ids and back."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message, check_positive
from keras_seqzoo.utils.array_validation import as_indices

PADDING, UNKNOWN = "", "[UNK]"


class Vocabulary:
    """Known tokens and their ids; id 0 is padding, id 1 is any unknown token.

    The ids are those of Keras's `StringLookup` and `TextVectorization` with this vocabulary, which
    is how model files and artifacts store it.

    Args:
        tokens: iterable of distinct non-empty str, without "", "[UNK]" and NUL characters.

    Raises:
        ArgumentError: if a token is empty, occurs twice or is not a str.

    Example:

    >>> from keras_seqzoo.data import Vocabulary
    >>> words = Vocabulary.from_data([["play", "jazz"], ["play", "blues"]])
    >>> words.tokens, len(words), words.encode(["play", "polka"]).tolist()
    (('play', 'blues', 'jazz'), 5, [2, 1])
    """

    def __init__(self, tokens: Iterable[str]):
        if isinstance(tokens, str) or not isinstance(tokens, Iterable):
            raise ArgumentError(argument_message("tokens", "a list or another collection", tokens))
        self.tokens = tuple(tokens)
        self._ids = {PADDING: 0, UNKNOWN: 1}
        for token_id, token in enumerate(self.tokens, start=2):
            # TensorFlow's lookup tables strip a trailing NUL.
            if not isinstance(token, str) or token in self._ids or "\0" in token:
                expected = "different non-empty strings, without '[UNK]' and NUL"
                raise ArgumentError(argument_message("tokens", expected, token))
            self._ids[token] = token_id

    @classmethod
    def from_data(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
    ) -> Vocabulary:
        """Create a vocabulary of the tokens in `sequences`, the most frequent first.

        Args:
            sequences: iterable of lists of tokens; a list of words gives a vocabulary of their
                characters.
            min_count: int, at least 1, the minimum number of occurrences of a token.
            max_size: int, at least 3, the size including padding and unknown; None for no limit.

        Raises:
            ArgumentError: if an option is out of range.
            DataError: if `sequences` are not lists of tokens, or no token is frequent enough.
        """
        check_positive(min_count=min_count)
        if max_size is not None:
            check_positive(max_size=max_size)
        counts: collections.Counter[str] = collections.Counter()
        for sequence in _iterate("sequences", sequences):
            counts.update(_token_list("sequences", sequence))
        counts.pop(PADDING, None)
        counts.pop(UNKNOWN, None)
        tokens = [token for token, count in counts.items() if count >= min_count]
        tokens.sort(key=lambda token: (-counts[token], token))
        tokens = tokens if max_size is None else tokens[: max(max_size - 2, 0)]
        if not tokens:
            raise DataError(
                "`sequences` must have at least one token that occurs `min_count` times. Received: "
                f"none that occurs {min_count} times."
            )
        return cls(tokens)

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """Token ids, int32 `(time,)`; 1 for unknown tokens.

        Args:
            tokens: iterable of str; a str is a sequence of characters.

        Raises:
            DataError: if `tokens` are not str.
        """
        return np.array(
            [self._ids.get(token, 1) for token in _token_list("tokens", tokens)], np.int32
        )

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Tokens of ids: "" for padding, "[UNK]" for unknown tokens.

        Args:
            ids: ints of at least 0, below `len(self)`.

        Raises:
            DataError: if `ids` are not such ints.
        """
        tokens = (PADDING, UNKNOWN, *self.tokens)
        return [tokens[token_id] for token_id in as_indices("ids", ids, len(self))]

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, padding and unknown among them)"


def _token_list(name: str, tokens: Iterable[str]) -> list[str]:
    """`tokens` as a list, each checked to be a str; a str is split into its characters."""
    token_list = list(_iterate(name, tokens))
    if not all(isinstance(token, str) for token in token_list):
        raise DataError(argument_message(name, "tokens, which are str", tokens))
    return token_list


def _iterate(name: str, values: Iterable) -> Iterator:
    try:
        return iter(values)
    except TypeError:
        raise DataError(argument_message(name, "a list or another collection", values)) from None
