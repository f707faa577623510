"""Scores of a model with its names inside."""

from __future__ import annotations

import keras

from keras_seqzoo.callbacks import PairScores, SequenceScores
from keras_seqzoo.data import Examples, ParallelEncoding, ParallelExamples
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.metrics import Scores, TransductionScores
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.wrapping import answers_layer, encoding_of, network_of


def evaluate(
    model: keras.Model, examples: Examples | ParallelExamples, *, batch_size: int = 64
) -> Scores | TransductionScores | float:
    """The scores of a model with its names inside; an encoder-decoder decodes as it is to.

    Args:
        model: what `with_names` or `train` gave, or `load` read.
        examples: `Examples` with labels or tags, or `ParallelExamples`.
        batch_size: int, at least 1.

    Returns:
        `Scores`; of pairs `TransductionScores`, or of readings the error over their variance.

    Raises:
        ArgumentError: if the model has no names inside, or examples are of another kind.
        DataError: if the examples do not have what it predicts.
    """
    encoding = encoding_of(model)
    kind = ParallelExamples if isinstance(encoding, ParallelEncoding) else Examples
    if not isinstance(examples, kind):
        expected = f"{kind.__name__}, as {model.name!r} was trained on"
        raise ArgumentError(argument_message("examples", expected, type(examples).__name__))
    if kind is Examples:
        return SequenceScores(encoding, examples, batch_size=batch_size).measure(network_of(model))
    options = {"batch_size": batch_size}
    answers = answers_layer(model)
    if encoding.says_tokens:
        options |= {"max_length": answers.max_length, "strategy": "beam"}
        options |= {"beam_width": answers.beam_width, "length_penalty": answers.length_penalty}
    return PairScores(encoding, examples, **options).measure(network_of(model))
