"""Tokens as numbers and back."""

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
    """The tokens a model knows, each with its number; 0 is padding, 1 stands for all others.

    The numbers are those of Keras's `StringLookup` and `TextVectorization` with this vocabulary,
    which is how it goes into a model file and an artifact.

    Args:
        tokens: iterable of non-empty, different str, without the two special ones and NUL.

    Raises:
        ArgumentError: if a token is empty, occurs twice or is no str.

    Example:

    >>> from keras_seqzoo.data import Vocabulary
    >>> words = Vocabulary.learn([["play", "jazz"], ["play", "blues"]])
    >>> words.tokens, len(words), words.encode(["play", "polka"]).tolist()
    (('play', 'blues', 'jazz'), 5, [2, 1])
    """

    def __init__(self, tokens: Iterable[str]):
        if isinstance(tokens, str) or not isinstance(tokens, Iterable):
            raise ArgumentError(argument_message("tokens", "a list or another collection", tokens))
        self.tokens = tuple(tokens)
        self._numbers = {PADDING: 0, UNKNOWN: 1}
        for number, token in enumerate(self.tokens, start=2):
            # Of a text that ends in NUL, TensorFlow's tables lose that.
            if not isinstance(token, str) or token in self._numbers or "\0" in token:
                expected = "different non-empty strings, without '[UNK]' and NUL"
                raise ArgumentError(argument_message("tokens", expected, token))
            self._numbers[token] = number

    @classmethod
    def learn(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
    ) -> Vocabulary:
        """The tokens of some sequences, the most frequent first.

        Args:
            sequences: iterable of lists of tokens; of words, for a vocabulary of characters.
            min_count: int, at least 1, how often a token must occur.
            max_size: int, at least 3, the size with padding and unknown, or None for any.

        Raises:
            ArgumentError: if an option is out of range.
            DataError: if `sequences` are something else, or no token is left.
        """
        check_positive(min_count=min_count)
        if max_size is not None:
            check_positive(max_size=max_size)
        counts = collections.Counter()
        for sequence in _iterated("sequences", sequences):
            counts.update(_tokens("sequences", sequence))
        counts.pop(PADDING, None)
        counts.pop(UNKNOWN, None)
        known = [token for token, count in counts.items() if count >= min_count]
        known.sort(key=lambda token: (-counts[token], token))
        known = known if max_size is None else known[: max(max_size - 2, 0)]
        if not known:
            raise DataError(
                "`sequences` must have at least one token to learn. Received: none that occurs "
                f"{min_count} times."
            )
        return cls(known)

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The numbers of some tokens, int32; 1 for those it does not know.

        Args:
            tokens: iterable of str; a str is one of its characters.

        Raises:
            DataError: if they are something else.
        """
        return np.array([self._numbers.get(one, 1) for one in _tokens("tokens", tokens)], np.int32)

    def decode(self, numbers: Sequence[int]) -> list[str]:
        """The tokens of some numbers: "" for padding, "[UNK]" for unknown ones.

        Args:
            numbers: ints of at least 0, below `len(self)`.

        Raises:
            DataError: if they are something else.
        """
        names = (PADDING, UNKNOWN, *self.tokens)
        return [names[number] for number in as_indices("numbers", numbers, len(self))]

    def __len__(self) -> int:
        return len(self._numbers)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, padding and unknown among them)"


def _tokens(name: str, given: Iterable[str]) -> list[str]:
    """What is given as a list, once it is known to be tokens; a str is its characters."""
    tokens = list(_iterated(name, given))
    if not all(isinstance(token, str) for token in tokens):
        raise DataError(argument_message(name, "tokens, which are str", given))
    return tokens


def _iterated(name: str, given: Iterable) -> Iterator:
    try:
        return iter(given)
    except TypeError:
        raise DataError(argument_message(name, "a list or another collection", given)) from None
