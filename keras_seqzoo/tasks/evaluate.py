"""Scores of a trained model."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.metrics import LabelScores, Seq2SeqScores
from keras_seqzoo.tasks.lookup import task_of_model
from keras_seqzoo.tasks.seq2seq import ForecastScores
from keras_seqzoo.tasks.window_scores import WindowScores
from keras_seqzoo.utils.argument_validation import check_positive


def evaluate(
    model: keras.Model, x: Any, y: Any = None, *, batch_size: int | None = None
) -> LabelScores | Seq2SeqScores | ForecastScores | WindowScores:
    """Scores of a trained model, with the metrics of its task.

    Args:
        model: what `train`, `search` or `load` returned.
        x: data of the kind that the model was trained on: `data.LabeledSequences`,
            `data.SequencePairs`, a `data.TimeSeries` or windows `(windows, time, features)`, or the
            path of a file.
        y: targets of windows; default the windows themselves.
        batch_size: int, at least 1, examples per call of the model.

    Returns:
        `LabelScores` of labels or tags; `Seq2SeqScores` of decoded sequences, `ForecastScores` of
        generated readings; `WindowScores` of windows. All have `to_dict()` and print well.

    Raises:
        ArgumentError: if the data is of another kind, or `batch_size` is out of range.
        DataError: if the data does not fit the model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(32, 20, 1))
    >>> model = zoo.get("simple_rnn_identity")
    >>> zoo.adapt(model, x)
    >>> zoo.evaluate(model, x).to_dict().keys()
    dict_keys(['normalized_mse', 'leakage'])
    """
    if batch_size is not None:
        check_positive(batch_size=batch_size)
    return task_of_model(model).evaluate(model, x, y, batch_size=batch_size)
