"""The classifier family: one class for the whole sequence."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.layers.pooling import POOLINGS
from keras_seqzoo.models.blocks import recurrent_stack, steps_input
from keras_seqzoo.models.identifiers import check_name, identifier, takes_numpy_numbers
from keras_seqzoo.utils.argument_validation import check_choice, check_rate, check_size


@takes_numpy_numbers
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
    recurrent_regularizer=None,
    normalize: bool = True,
    mask_value: float | None = None,
    classifier_activation="softmax",
    time: int | None = None,
    name: str = "sequence_classifier",
) -> keras.Model:
    """Recurrent layers over the whole sequence, one vector of it, and a probability per class.

    Takes readings (`features`), scaled inside once `keras_seqzoo.adapt(model, x_train)` was
    called, or tokens (`vocabulary_size`).

    Shapes: `(batch, time, features)` or int `(batch, time)` -> `(batch, classes)`.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding and change
        no answer, on either side.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None stands for 1 unless `vocabulary_size`
            is given.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        classes: int, at least 1, how many there are.
        cell: "linear", a SimpleRNN without activation, "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, recurrent layers one upon the other.
        bidirectional: bool, whether a second layer reads the sequence from its end.
        pooling: what stands for the sequence: "last", the state after the last real step (and
            before the first, where it is read both ways), "mean" or "max" of all, or
            "attention", a mean whose weights are learned.
        embedding_dim: int, at least 1, size of a token's vector.
        word_dropout: float in [0, 1), share of tokens taken for unknown in training.
        input_dropout: float in [0, 1), share of inputs, scaled or embedded, set to 0 in training.
        dropout: float in [0, 1), the same behind each recurrent layer.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, scale each feature in front; of no account with tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        classifier_activation: "softmax" for probabilities, None for logits, or another activation.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

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
    inputs, x, mask = steps_input(
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
    )  # (batch, units), or (batch, time, units) if it is to be pooled
    if pooling != "last":
        x = layers.Pooling(pooling, name="pooling")(x, mask=mask)
    activation = identifier(keras.activations, classifier_activation=classifier_activation)
    outputs = keras.layers.Dense(classes, activation, name="classes")(x)
    return keras.Model(inputs, outputs, name=check_name(name))
