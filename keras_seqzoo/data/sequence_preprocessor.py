"""Preprocessing of labeled sequences: arrays for a model, and labels or tags of its predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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
from keras_seqzoo.utils.array_validation import as_array, as_ids, as_mask_value

if TYPE_CHECKING:
    import keras

    from keras_seqzoo.data.batching import Batches

TARGETS = ("labels", "tags")
# Per token; further characters are cut. Words are shorter, and a batch is padded to its longest
# token, which may be a long address.
MAX_CHARACTERS = 24


@dataclasses.dataclass(frozen=True)
class SequencePreprocessor:
    """Vocabulary, character vocabulary and classes of a classifier's or tagger's data.

    Args:
        target: "labels", one per sequence, or "tags", one per step.
        classes: tuple of str, the labels or tags in the order of their class ids.
        tokens: `Vocabulary`, or None for readings.
        characters: `Vocabulary` of the characters of tokens, or None for no character features.
        features: int, values per reading, or None for tokens.
        mask_value: float at padded steps of readings; None where sequences are of one length and
            nothing is padded. The default is NaN, which no reading is.

    Raises:
        ArgumentError: if neither tokens nor features are given, or both.

    Example:

    >>> from keras_seqzoo.data import SequencePreprocessor, LabeledSequences
    >>> text = LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> preprocessor = SequencePreprocessor.from_data(text)
    >>> preprocessor.model_arguments()
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
    def from_data(
        cls,
        examples: LabeledSequences,
        *,
        target: str | None = None,
        characters: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
    ) -> SequencePreprocessor:
        """Create a preprocessor with the vocabulary and classes of training examples.

        Args:
            examples: `LabeledSequences` with labels or tags.
            target: "labels" or "tags"; None takes the one that the examples have.
            characters: bool, whether the model has character features of tokens as an input.
            min_count: int, at least 1, the minimum number of occurrences of a token in the
                vocabulary.
            max_size: int, the vocabulary size including padding and unknown, or None for no limit.

        Raises:
            ArgumentError: if the examples lack the target, or have both and `target` is None.
        """
        check_instance(LabeledSequences, examples=examples)
        check_bool(characters=characters)
        available = [name for name in TARGETS if getattr(examples, name) is not None]
        if target is None and len(available) == 1:
            target = available[0]
        if not isinstance(target, str) or target not in available:
            expected = f"what the examples have: {', '.join(available) or 'none'}"
            hint = "" if available else "Examples without any cannot be learned from."
            raise ArgumentError(argument_message("target", expected, target, hint))
        classes = examples.unique_labels if target == "labels" else examples.unique_tags
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
            Vocabulary.from_data(examples.sequences, min_count=min_count, max_size=max_size),
            Vocabulary.from_data(sorted(words)) if characters else None,
        )

    def model_arguments(self) -> dict[str, Any]:
        """The constructor arguments that follow from the data, for `keras_seqzoo.get`."""
        arguments: dict[str, Any] = {"classes": len(self.classes)}
        if self.tokens is None:
            return arguments | {"features": self.features, "mask_value": self.mask_value}
        arguments["vocabulary_size"] = len(self.tokens)
        if self.characters is not None:
            arguments["character_vocabulary_size"] = len(self.characters)
        return arguments

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
            class_weight: dict of class to weight (default 1), "balanced" for weights inversely
                proportional to class frequencies, or None.
            targets: bool, whether batches have targets.
            **options: of `Batches`: batch_size, shuffle, seed, pad_to_multiple_of, pool.

        Raises:
            ArgumentError: if a class in `class_weight` is unknown.
            DataError: if the examples do not fit the preprocessor.
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
        class_ids = self._class_ids(examples)
        weights = None
        if class_weight is not None or any((ids < 0).any() for ids in class_ids):
            weight_of_class = self._class_weights(class_weight, class_ids)
            weights = [weight_of_class[ids] for ids in class_ids]  # id -1 has the last weight, 0
        class_ids = [np.maximum(ids, 0) for ids in class_ids]
        if self.target == "labels":
            class_ids = [ids[0] for ids in class_ids]
            weights = weights and [weight[0] for weight in weights]
        return Batches(inputs, class_ids, weights=weights, **options)

    def decode(self, predictions: Sequence[Any]) -> list[Any]:
        """Labels, one str per sequence, or tags, one list of str per sequence.

        Args:
            predictions: per sequence, probabilities `(..., classes)` or class ids.

        Raises:
            DataError: if `predictions` are neither.
        """
        check_sequence(predictions=predictions)
        decoded: list[Any] = []
        for prediction in predictions:
            prediction = as_array("predictions", prediction)
            if prediction.dtype.kind == "f" and prediction.shape[-1:] == (len(self.classes),):
                prediction = prediction.argmax(-1)
            class_ids = as_ids("predictions", prediction, len(self.classes)).reshape(-1)
            if self.target == "labels" and len(class_ids) != 1:
                raise DataError(
                    f"`predictions` must be one per sequence. Received: shape {prediction.shape}."
                )
            classes = [self.classes[class_id] for class_id in class_ids]
            decoded.append(classes if self.target == "tags" else classes[0])
        return decoded

    def check(self, examples: LabeledSequences, *, targets: bool = True) -> None:
        """Check that examples fit the preprocessor.

        Args:
            examples: `LabeledSequences`.
            targets: bool, whether they must have labels or tags.

        Raises:
            DataError: if they are tokens where readings are expected or the reverse, have another
                number of features, or lack the target.
        """
        check_instance(LabeledSequences, examples=examples)
        kind = "tokens" if self.tokens is not None else f"readings of {self.features} features"
        if examples.features != self.features:
            raise DataError(f"`examples` must be sequences of {kind}. Received: {examples!r}.")
        if targets and getattr(examples, self.target) is None:
            raise DataError(f"`examples` must have {self.target}. Received: {examples!r}.")

    def character_ids(self) -> np.ndarray:
        """Character ids of every token in the vocabulary, `(len(tokens), characters)`."""
        if self.tokens is None or self.characters is None:
            raise ArgumentError("`character_ids` needs a preprocessor with `characters`.")
        return _character_features(("", "", *self.tokens.tokens), self.characters, {})

    def _inputs(self, sequences: Sequence[Any]) -> Any:
        if self.tokens is None:
            return list(sequences)
        tokens = [self.tokens.encode(sequence) for sequence in sequences]
        if self.characters is None:
            return tokens
        cache: dict[str, np.ndarray] = {}
        characters = [_character_features(tokens, self.characters, cache) for tokens in sequences]
        return {"tokens": tokens, "characters": characters}

    def _class_ids(self, examples: LabeledSequences) -> list[np.ndarray]:
        """Class ids of each sequence, `(1,)` for a label or `(time,)` for tags; -1 if unknown."""
        ids = {name: class_id for class_id, name in enumerate(self.classes)}
        if self.target == "labels":
            targets = [[label] for label in examples.labels or ()]
        else:
            targets = examples.tags or ()
        return [np.array([ids.get(name, -1) for name in names], np.int32) for names in targets]

    def _class_weights(
        self, class_weight: str | Mapping[str, float] | None, class_ids: list[np.ndarray]
    ) -> np.ndarray:
        """The weight of each class, then 0 for unknown ones, float32 `(classes + 1,)`."""
        weights = np.ones(len(self.classes) + 1, np.float32)
        weights[-1] = 0
        if isinstance(class_weight, str) and class_weight == "balanced":
            counts = np.bincount(
                np.concatenate([ids[ids >= 0] for ids in class_ids]), minlength=len(self.classes)
            )
            present = counts > 0
            weights[:-1][present] = counts.sum() / (present.sum() * counts[present])
        elif isinstance(class_weight, Mapping):
            for name, weight in class_weight.items():
                if name not in self.classes or not is_real(weight) or weight < 0:
                    expected = f"'balanced', or weights of at least 0 for some of {self.classes}"
                    raise ArgumentError(argument_message("class_weight", expected, {name: weight}))
                weights[self.classes.index(name)] = weight
        elif class_weight is not None:
            raise ArgumentError(
                argument_message("class_weight", "'balanced', a dict or None", class_weight)
            )
        return weights


def _character_features(
    tokens: Sequence[str], vocabulary: Vocabulary, cache: dict[str, np.ndarray]
) -> np.ndarray:
    """Character ids of each token, `(time, characters)`; `cache` holds those of seen tokens."""
    for token in tokens:
        if token not in cache:
            cache[token] = vocabulary.encode(token[:MAX_CHARACTERS])
    longest = max((len(cache[token]) for token in tokens), default=1)
    features = np.zeros((len(tokens), max(longest, 1)), np.int32)
    for row, token in zip(features, tokens, strict=True):
        row[: len(cache[token])] = cache[token]
    return features


def predict_batches(model: keras.Model, batches: Batches) -> list[np.ndarray]:
    """Predictions for each sequence, in the order of the examples, without padded steps.

    Args:
        model: `keras.Model`.
        batches: `Batches`.
    """
    import keras

    from keras_seqzoo.data.batching import Batches

    check_instance(keras.Model, model=model)
    check_instance(Batches, batches=batches)
    predictions: list[Any] = [None] * len(batches.lengths)
    for index, rows in enumerate(batches.batch_rows):
        outputs = model.predict_on_batch(batches[index][0])
        for row, prediction in zip(rows, outputs, strict=True):
            per_step = prediction.ndim > 0 and model.output_shape[1:2] == (None,)
            predictions[row] = prediction[: batches.lengths[row]] if per_step else prediction
    return predictions
