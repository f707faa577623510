"""The tagger family: one answer for every step."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.models.blocks import recurrent_stack, steps_input
from keras_seqzoo.models.identifiers import check_name, identifier, takes_numpy_numbers
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_rate,
    check_size,
)

HEADS = ("softmax", "crf", "regression")
ENCODERS = {"cnn": layers.CharacterCNN, "bilstm": layers.CharacterBiLSTM}


@takes_numpy_numbers
def sequence_tagger(
    *,
    features: int | None = None,
    vocabulary_size: int | None = None,
    character_vocabulary_size: int | None = None,
    classes: int | None = None,
    head: str = "softmax",
    cell: str = "gru",
    units: int = 64,
    num_layers: int = 1,
    bidirectional: bool = False,
    embedding_dim: int = 100,
    character_encoder: str = "cnn",
    character_embedding_dim: int = 25,
    character_units: int = 50,
    word_dropout: float = 0.0,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    recurrent_regularizer=None,
    constraints=None,
    normalize: bool = True,
    mask_value: float | None = None,
    classifier_activation="softmax",
    time: int | None = None,
    name: str = "sequence_tagger",
) -> keras.Model:
    """Recurrent layers over the sequence and, for every step, a tag or the next reading.

    Takes readings (`features`), scaled inside once `keras_seqzoo.adapt(model, x_train)` was
    called, or tokens (`vocabulary_size`), beside which it may see the characters of each.

    Shapes: `(batch, time, features)` or int `(batch, time)` -> `(batch, time, classes)` with the
        "softmax" head, tags as int `(batch, time)` with "crf", `(batch, time, features)` with
        "regression". With `character_vocabulary_size`, a second input: int
        `(batch, time, characters)`.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding: they change
        no other step, come out as 0 and count in no loss.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None stands for 1 unless `vocabulary_size`
            is given.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        character_vocabulary_size: int, characters with padding (0) and unknown ones (1), or None
            for none. Needs `vocabulary_size`.
        classes: int, at least 1, how many tags there are; None stands for 2, and must be None
            with the head "regression".
        head: "softmax", each step for itself; "crf", the best sequence of tags as a whole, trained
            by its likelihood (`fit` needs no loss); "regression", a reading per step, in raw
            units with `normalize`: give the next readings as targets to forecast.
        cell: "linear", a SimpleRNN without activation, "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, recurrent layers one upon the other.
        bidirectional: bool, whether a second layer reads the sequence from its end.
        embedding_dim: int, at least 1, size of a token's vector.
        character_encoder: "cnn" or "bilstm", what makes a vector of a token's characters.
        character_embedding_dim: int, at least 1, size of a character's vector.
        character_units: int, at least 1, filters, or units of each direction.
        word_dropout: float in [0, 1), share of tokens taken for unknown in training.
        input_dropout: float in [0, 1), share of inputs, scaled or embedded, set to 0 in training.
        dropout: float in [0, 1), the same behind each recurrent layer.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        constraints: what `layers.bio_constraints` gives, so that a "crf" head never predicts tags
            in an illegal order, or None.
        normalize: bool, scale each feature in front; of no account with tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        classifier_activation: of the "softmax" head: "softmax" for probabilities, None for
            logits, or another activation.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled; with the head "crf" a `layers.CRFModel`, which is
        one too.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("bilstm_crf_tagger", vocabulary_size=1000, classes=5)
    >>> model(np.ones((2, 7), "int32")).shape
    TensorShape([2, 7])

    References: [Huang et al., 2015](https://arxiv.org/abs/1508.01991),
        [Lample et al., 2016](https://doi.org/10.18653/v1/N16-1030),
        [Ma & Hovy, 2016](https://doi.org/10.18653/v1/P16-1101)
    """
    check_choice("head", head, HEADS)
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
    if character_vocabulary_size is not None:
        characters, spelled = _spelled(
            character_vocabulary_size, character_encoder, character_embedding_dim,
            character_units, vocabulary_size, time,
        )  # fmt: skip
        inputs = [inputs, characters]
        x = keras.layers.Concatenate(name="word_and_characters")([x, spelled])
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
    )  # (batch, time, units)
    if head != "crf" and constraints is not None:
        raise ArgumentError(argument_message("constraints", "None without head='crf'", constraints))
    if head == "regression":
        outputs = _regression(x, inputs, classes, normalize)
    else:
        classes = 2 if classes is None else classes
        check_size(classes=classes)
    if head == "crf":
        scores = keras.layers.Dense(classes, name="scores")(x)
        crf = layers.LinearChainCRF(classes, **(constraints or {}), name="crf")
        return layers.CRFModel(inputs, crf(scores, mask=mask), name=check_name(name))
    if head == "softmax":
        activation = identifier(keras.activations, classifier_activation=classifier_activation)
        outputs = keras.layers.Dense(classes, activation, name="tags")(x)
    if mask is not None:
        outputs = layers.ApplyMask(name="masked")([outputs, mask])
    return keras.Model(inputs, outputs, name=check_name(name))


def _spelled(size, encoder, embedding_dim, units, vocabulary_size, time):
    """The input of characters, and a vector for those of each token."""
    if vocabulary_size is None:
        raise ArgumentError(
            argument_message("character_vocabulary_size", "None without `vocabulary_size`", size)
        )
    check_choice("character_encoder", encoder, ENCODERS)
    check_size(
        character_vocabulary_size=size,
        character_embedding_dim=embedding_dim,
        character_units=units,
    )
    inputs = keras.Input((time, None), dtype="int32", name="characters")
    layer = ENCODERS[encoder](size, units, embedding_dim=embedding_dim, name="spelling")
    return inputs, layer(inputs)


def _regression(x, inputs, classes, normalize: bool):
    """A reading per step, in the units of the readings where those were scaled."""
    if classes is not None:
        raise ArgumentError(
            argument_message(
                "classes", "None with head='regression', whose width is `features`", classes
            )
        )
    if len(getattr(inputs, "shape", ())) != 3:
        raise ArgumentError("`head='regression'` must have `features`. Received: tokens.")
    outputs = keras.layers.Dense(inputs.shape[-1], name="readout")(x)
    return layers.Normalization(invert=True, name="unscale")(outputs) if normalize else outputs
