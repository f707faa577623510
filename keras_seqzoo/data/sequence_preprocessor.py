"""Between names and numbers: how examples become batches, and a model's answers become names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.data.vocabulary import Vocabulary
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_instance,
    check_sequence,
    is_real,
)
from keras_seqzoo.utils.array_validation import as_array, as_mask_value, as_ids

if TYPE_CHECKING:
    from keras_seqzoo.data.batching import Batches

TARGETS = ("labels", "tags")
# Of a token; what comes later is cut. Words are shorter, and one long address must not make every
# word of its batch as long.
MAX_CHARACTERS = 24


@dataclasses.dataclass(frozen=True)
class SequencePreprocessor:
    """What a model must know of the names in its data: tokens, characters and classes.

    Args:
        target: "labels", one per sequence, or "tags", one per step.
        classes: tuple of str, the names of the classes, in the order of their numbers.
        tokens: `Vocabulary`, or None for readings.
        characters: `Vocabulary` of the characters of tokens, or None for none.
        features: int, values per reading, or None for tokens.
        mask_value: float at padded steps of readings; NaN, as no reading is NaN, and a zero is one;
            None where sequences are of one length and nothing is padded.

    Raises:
        ArgumentError: if neither tokens nor features are given, or both.

    Example:

    >>> from keras_seqzoo.data import SequencePreprocessor, LabeledSequences
    >>> text = LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> preprocessor = SequencePreprocessor.learn(text)
    >>> preprocessor.arguments()
    {'classes': 2, 'vocabulary_size': 5}
    >>> [part.tolist() for part in preprocessor.batches(text, batch_size=2, shuffle=False)[0]]
    [[[4, 0], [3, 2]], [[1, 0], [1, 0]]]
    """

    target: str
    classes: tuple[str, ...]
    tokens: Vocabulary | None = None
    characters: Vocabulary | None = None
    features: int | None = None
    mask_value: float | None = math.nan

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        if (self.tokens is None) == (self.features is None):
            raise ArgumentError("Either `tokens` or `features` must be given, and not both.")
        check_sequence(classes=self.classes)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "mask_value", as_mask_value(self.mask_value))

    @classmethod
    def learn(
        cls,
        examples: LabeledSequences,
        *,
        target: str | None = None,
        characters: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
    ) -> SequencePreprocessor:
        """Learns the names of training examples.

        Args:
            examples: `LabeledSequences` with what is to be predicted.
            target: "labels" or "tags"; None takes the one that the examples have.
            characters: bool, whether the model sees the characters of tokens.
            min_count: int, at least 1, how often a token must occur to be known.
            max_size: int, tokens with padding and unknown, or None for any number.

        Raises:
            ArgumentError: if the target is not there, or not told where both are.
        """
        check_instance(LabeledSequences, examples=examples)
        check_bool(characters=characters)
        has = [name for name in TARGETS if getattr(examples, name) is not None]
        if target is None and len(has) == 1:
            target = has[0]
        if not isinstance(target, str) or target not in has:
            hint = "Examples without any cannot be learned from." if not has else ""
            raise ArgumentError(
                argument_message(
                    "target", f"what the examples have: {', '.join(has) or 'none'}", target, hint
                )
            )
        classes = examples.label_names if target == "labels" else examples.tag_names
        if not examples.has_tokens:
            if characters:
                raise ArgumentError(
                    argument_message("characters", "False for readings", characters)
                )
            return cls(target, classes, features=examples.features)
        words = {token for sequence in examples.sequences for token in sequence}
        return cls(
            target,
            classes,
            Vocabulary.learn(examples.sequences, min_count=min_count, max_size=max_size),
            Vocabulary.learn(sorted(words)) if characters else None,
        )

    def arguments(self) -> dict[str, Any]:
        """The arguments of a constructor that follow from the names, for `keras_seqzoo.get`."""
        found: dict[str, Any] = {"classes": len(self.classes)}
        if self.features is not None:
            return found | {"features": self.features, "mask_value": self.mask_value}
        found["vocabulary_size"] = len(self.tokens)
        if self.characters is not None:
            found["character_vocabulary_size"] = len(self.characters)
        return found

    def batches(
        self,
        examples: LabeledSequences,
        *,
        class_weight: str | Mapping[str, float] | None = None,
        targets: bool = True,
        **options: Any,
    ) -> Batches:
        """Batches of examples for `fit`, `evaluate` or `predict`.

        Tags and labels that are not among the classes have weight 0.

        Args:
            examples: `LabeledSequences`.
            class_weight: dict of class to weight (1 where it is silent), "balanced" for weights
                that let each class count as much, or None.
            targets: bool, whether batches hold targets.
            **options: as of `Batches`: batch_size, shuffle, seed, multiple.

        Raises:
            ArgumentError: if a class in `class_weight` is unknown.
            DataError: if the examples are of another kind than those learned from.
        """
        from keras_seqzoo.data.batching import Batches

        check_bool(targets=targets)
        self.check(examples, targets=targets)
        lengths = examples.lengths
        if self.features is not None and self.mask_value is None and (lengths != lengths[0]).any():
            raise DataError(
                "`examples` must be of one length for a model without `mask_value`, which cannot "
                f"tell padding. Received: lengths from {lengths.min()} to {lengths.max()}."
            )
        inputs = self._inputs(examples.sequences)
        padding = math.nan if self.mask_value is None else self.mask_value
        options.setdefault("padding", 0 if self.features is None else padding)
        if not targets:
            return Batches(inputs, **options)
        numbers = {name: number for number, name in enumerate(self.classes)}
        given = examples.labels if self.target == "labels" else examples.tags
        if self.target == "labels":
            given = [[label] for label in given]
        encoded = [np.array([numbers.get(name, -1) for name in names], np.int32) for names in given]
        weights = None
        if class_weight is not None or any((one < 0).any() for one in encoded):
            by_class = self._class_weights(class_weight, encoded)
            weights = [by_class[one] for one in encoded]  # -1 finds the last, which is 0
        encoded = [np.maximum(one, 0) for one in encoded]
        if self.target == "labels":
            encoded = [one[0] for one in encoded]
            weights = weights and [one[0] for one in weights]
        return Batches(inputs, encoded, weights=weights, **options)

    def names(self, answers: Sequence[Any]) -> list[Any]:
        """The names of answers, one list per sequence, or one name per sequence for labels.

        Args:
            answers: per sequence, probabilities `(..., classes)` or the numbers of classes.

        Raises:
            DataError: if they are something else.
        """
        check_sequence(answers=answers)
        found = []
        for answer in answers:
            answer = as_array("answers", answer)
            if answer.dtype.kind == "f" and answer.shape[-1:] == (len(self.classes),):
                answer = answer.argmax(-1)
            numbers = as_ids("answers", answer, len(self.classes)).reshape(-1)
            if self.target == "labels" and len(numbers) != 1:
                raise DataError(
                    f"`answers` must be one per sequence. Received: shape {answer.shape}."
                )
            one = [self.classes[number] for number in numbers]
            found.append(one if self.target == "tags" else one[0])
        return found

    def check(self, examples: LabeledSequences, *, targets: bool = True) -> None:
        """Refuses examples of another kind.

        Args:
            examples: `LabeledSequences`.
            targets: bool, whether they must have what is to be predicted.

        Raises:
            DataError: if they are of the other kind, have other features, or lack the target.
        """
        check_instance(LabeledSequences, examples=examples)
        kind = "tokens" if self.tokens is not None else f"readings of {self.features} features"
        if examples.features != self.features:
            raise DataError(f"`examples` must be sequences of {kind}. Received: {examples!r}.")
        if targets and getattr(examples, self.target) is None:
            raise DataError(f"`examples` must have {self.target}. Received: {examples!r}.")

    def spelling_of_tokens(self) -> np.ndarray:
        """The characters of every known token, `(len(tokens), characters)`, by its number."""
        return self._spell(("", "", *self.tokens.tokens), {})

    def _inputs(self, sequences: Sequence[Any]) -> Any:
        if self.tokens is None:
            return list(sequences)
        tokens = [self.tokens.encode(sequence) for sequence in sequences]
        if self.characters is None:
            return tokens
        spelled: dict[str, np.ndarray] = {}
        return {"tokens": tokens, "characters": [self._spell(one, spelled) for one in sequences]}

    def _spell(self, tokens: Sequence[str], known: dict[str, np.ndarray]) -> np.ndarray:
        """The numbers of the characters of each token, `(time, characters)`."""
        for token in tokens:
            if token not in known:
                known[token] = self.characters.encode(token[:MAX_CHARACTERS])
        longest = max((len(known[token]) for token in tokens), default=1)
        spelled = np.zeros((len(tokens), max(longest, 1)), np.int32)
        for row, token in zip(spelled, tokens, strict=True):
            row[: len(known[token])] = known[token]
        return spelled

    def _class_weights(self, given: Any, encoded: list[np.ndarray]) -> np.ndarray:
        """The weight of each class, and 0 for those that are none."""
        weights = np.ones(len(self.classes) + 1, np.float32)
        weights[-1] = 0
        if isinstance(given, str) and given == "balanced":
            counts = np.bincount(
                np.concatenate([one[one >= 0] for one in encoded]), minlength=len(self.classes)
            )
            present = counts > 0
            weights[:-1][present] = counts.sum() / (present.sum() * counts[present])
        elif isinstance(given, Mapping):
            for name, weight in given.items():
                if name not in self.classes or not is_real(weight) or weight < 0:
                    expected = f"'balanced', or weights of at least 0 for some of {self.classes}"
                    raise ArgumentError(argument_message("class_weight", expected, {name: weight}))
                weights[self.classes.index(name)] = weight
        elif given is not None:
            raise ArgumentError(
                argument_message("class_weight", "'balanced', a dict or None", given)
            )
        return weights


def answers(model, batches: Batches) -> list[np.ndarray]:
    """What `model` answers to each sequence, in their own order, each cut to its own steps.

    Args:
        model: `keras.Model`.
        batches: `Batches`.
    """
    import keras

    from keras_seqzoo.data.batching import Batches

    check_instance(keras.Model, model=model)
    check_instance(Batches, batches=batches)
    found: list[Any] = [None] * len(batches.lengths)
    for row, answer in _answered(model, batches):
        per_step = answer.ndim > 0 and model.output_shape[1:2] == (None,)
        found[row] = answer[: batches.lengths[row]] if per_step else answer
    return found


def _answered(model, batches: Batches) -> Iterator[tuple[int, np.ndarray]]:
    for index, rows in enumerate(batches.plan):
        yield from zip(rows, model.predict_on_batch(batches[index][0]), strict=True)
