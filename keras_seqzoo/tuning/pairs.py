"""Searches of encoder-decoders: pairs in place of rows, free answers in place of leakage."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import keras
import keras_tuner

from keras_seqzoo import errors
from keras_seqzoo.data import PairPreprocessor, SequencePairs
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.tasks import seq2seq as recipe
from keras_seqzoo.tuning.sequences import SequenceHyperModel
from keras_seqzoo.utils.argument_validation import argument_message, check_fraction

OBJECTIVES = ("val_token_error_rate", "val_error")  # to be minimized; accuracy is known already


@dataclasses.dataclass(frozen=True)
class PairRows:
    """What a search trains on and chooses by, with the tokens that it learned.

    Attributes:
        examples: to train on.
        validation: to choose by.
        preprocessor: the tokens of both.
    """

    examples: SequencePairs
    validation: SequencePairs
    preprocessor: PairPreprocessor

    obstacle = "pairs are in batches of similar lengths"  # to be trained together

    @property
    def count(self) -> int:
        """How many pairs are trained on."""
        return len(self.examples)

    def fingerprint(self) -> str:
        """Hash of everything in it."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.examples, self.validation):
            for sequence in (*part.sources, *part.targets):
                known = isinstance(sequence, tuple)
                text = repr(sequence) if known else sequence.tobytes().hex()
                digest.update(text.encode() + b"\n")
            digest.update(repr((len(part), part.source_units, part.target_units)).encode())
        return digest.hexdigest()


def pair_rows(
    name: str,
    examples: SequencePairs,
    validation: Any,
    validation_split: float,
    seed: int,
    **masked: Any,
) -> PairRows:
    """Pairs split, and their tokens learned; `masked` may have the `mask_value` of readings.

    Raises:
        ArgumentError: if the entry is for another task, or validation pairs are no
            `SequencePairs`.
    """
    recipe.check(name)
    if validation is None:
        check_fraction(validation_split=validation_split)
        examples, validation = examples.split(validation_split, seed=seed)
    if not isinstance(validation, SequencePairs):
        raise errors.ArgumentError(
            argument_message("validation_data", "SequencePairs, as `x` is", type(validation))
        )
    preprocessor = recipe.learn(name, examples, **masked)
    preprocessor.check(validation)
    return PairRows(examples, validation, preprocessor)


class PairHyperModel(SequenceHyperModel):
    """An encoder-decoder; its arguments are those of `hypermodel`, and what `PairRows` has.

    `fit` takes `PairRows`, whose scores are then in every epoch's logs, or what `keras.Model.fit`
    takes: source and target so far in, what comes next out.
    """

    recipe = recipe

    @property
    def objective(self) -> keras_tuner.Objective:
        """The share of right answers, to be maximized, or the error of readings; the loss where no
        pairs are known.
        """
        if self.preprocessor is None:
            return keras_tuner.Objective("val_loss", "min")
        return super().objective

    def _loss(self, model: keras.Model):
        if self.preprocessor is None:
            return crossentropy() if model.generates_tokens else "mse"
        return super()._loss(model)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, x: Any, *args, **kwargs):
        """Trains one trial on what `keras.Model.fit` takes; scaling is to be adapted before."""
        return model.fit(x, *args, **kwargs)
