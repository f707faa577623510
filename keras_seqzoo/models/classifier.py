"""The classifier family: one class for the whole sequence."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.layers.pooling import POOLINGS
from keras_seqzoo.models.blocks import recurrent_stack, sequence_input
from keras_seqzoo.models.identifiers import accepts_numpy_scalars, check_name, from_identifier
from keras_seqzoo.utils.argument_validation import check_choice, check_rate, check_size


@accepts_numpy_scalars
def sequence_classifier(
    *,
    features: int | None = None,
    vocabulary_size: int | None = None,
    classes: int = 2,
    cell: str = "gru",
    units: int = 64,
    num_layers: int = 1,
    bidirectional: bool = False,
    pooling: str = "last",
    embedding_dim: int = 100,
    word_dropout: float = 0.0,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    recurrent_regularizer: Any = None,
    normalize: bool = True,
    mask_value: float | None = None,
    classifier_activation: Any = "softmax",
    time: int | None = None,
    name: str = "sequence_classifier",
) -> keras.Model:
    """Stacked recurrent layers over the whole sequence, then one probability per class.

    Takes readings (`features`) or tokens (`vocabulary_size`). With `normalize`, readings are scaled
    inside the model, by statistics that `keras_seqzoo.adapt(model, x_train)` sets.

    Shapes: `(batch, time, features)` or int `(batch, time)` -> `(batch, classes)`.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding and do not
        change the output, at either end of the sequence.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None means 1, or none with `vocabulary_size`.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        classes: int, at least 1, number of classes.
        cell: "linear" (a SimpleRNN without activation), "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, stacked recurrent layers.
        bidirectional: bool, whether each recurrent layer reads the sequence in both directions.
        pooling: "last", the state after the last real step, and, if bidirectional, the backward
            layer's state at the first; "mean" or "max" over all steps; or "attention", a mean with
            learned weights.
        embedding_dim: int, at least 1, size of the token embeddings.
        word_dropout: float in [0, 1), rate of tokens replaced by the unknown token in training.
        input_dropout: float in [0, 1), rate of the dropout of the scaled or embedded inputs.
        dropout: float in [0, 1), rate of the dropout after each recurrent layer.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, whether to scale each feature of readings; without effect on tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        classifier_activation: "softmax" for probabilities, None for logits, or another activation.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument is out of range, or does not go with another one.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("bilstm_classifier", features=12, classes=9)
    >>> model(np.zeros((2, 29, 12))).shape
    TensorShape([2, 9])

    Reference: [Graves & Schmidhuber, 2005](https://doi.org/10.1016/j.neunet.2005.06.042)
    """
    check_size(classes=classes)
    check_choice("pooling", pooling, ("last", *POOLINGS))
    check_rate(input_dropout=input_dropout)
    inputs, x, mask = sequence_input(
        features=features,
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        word_dropout=word_dropout,
        normalize=normalize,
        mask_value=mask_value,
        time=time,
    )
    if input_dropout:
        x = keras.layers.Dropout(input_dropout, name="input_dropout")(x)
    x = recurrent_stack(
        x,
        mask,
        cell=cell,
        units=units,
        num_layers=num_layers,
        bidirectional=bidirectional,
        dropout=dropout,
        recurrent_regularizer=recurrent_regularizer,
        return_sequences=pooling != "last",
    )  # (batch, units), or (batch, time, units) to be pooled
    if pooling != "last":
        x = layers.Pooling(pooling, name="pooling")(x, mask=mask)
    activation = from_identifier(keras.activations, classifier_activation=classifier_activation)
    outputs = keras.layers.Dense(classes, activation, name="classes")(x)
    return keras.Model(inputs, outputs, name=check_name(name))
