"""Scores of a model with its names inside."""

from __future__ import annotations

import keras

from keras_seqzoo.callbacks import PairMetrics, SequenceMetrics
from keras_seqzoo.data import LabeledSequences, PairPreprocessor, SequencePairs
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.inspection.model_graph import generator_layer
from keras_seqzoo.metrics import LabelScores, Seq2SeqScores
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.wrapping import inner_model, preprocessor_of


def evaluate(
    model: keras.Model, examples: LabeledSequences | SequencePairs, *, batch_size: int = 64
) -> LabelScores | Seq2SeqScores | float:
    """The scores of a model with its names inside; an encoder-decoder decodes as it is to.

    Args:
        model: what `end_to_end` or `train` gave, or `load` read.
        examples: `LabeledSequences` with labels or tags, or `SequencePairs`.
        batch_size: int, at least 1.

    Returns:
        `LabelScores`; of pairs `Seq2SeqScores`, or of readings the error over their variance.

    Raises:
        ArgumentError: if the model has no names inside, or examples are of another kind.
        DataError: if the examples do not have what it predicts.
    """
    preprocessor = preprocessor_of(model)
    kind = SequencePairs if isinstance(preprocessor, PairPreprocessor) else LabeledSequences
    if not isinstance(examples, kind):
        expected = f"{kind.__name__}, as {model.name!r} was trained on"
        raise ArgumentError(argument_message("examples", expected, type(examples).__name__))
    if kind is LabeledSequences:
        return SequenceMetrics(preprocessor, examples, batch_size=batch_size).measure(
            inner_model(model)
        )
    options = {"batch_size": batch_size}
    answers = generator_layer(model)
    if preprocessor.generates_tokens:
        options |= {"max_length": answers.max_length, "strategy": "beam"}
        options |= {"num_beams": answers.num_beams, "length_penalty": answers.length_penalty}
    return PairMetrics(preprocessor, examples, **options).measure(inner_model(model))
