"""The tagger family: one tag, or one reading, for every step."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.models.blocks import recurrent_stack, sequence_input
from keras_seqzoo.models.identifiers import accepts_numpy_scalars, check_name, from_identifier
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_rate,
    check_size,
)

HEADS = ("softmax", "crf", "regression")
CHARACTER_ENCODERS = {"cnn": layers.CharacterCNN, "bilstm": layers.CharacterBiLSTM}


@accepts_numpy_scalars
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
    recurrent_regularizer: Any = None,
    constraints: dict[str, Any] | None = None,
    normalize: bool = True,
    mask_value: float | None = None,
    classifier_activation: Any = "softmax",
    time: int | None = None,
    name: str = "sequence_tagger",
) -> keras.Model:
    """Stacked recurrent layers, then for every step a tag, or a reading.

    Takes readings (`features`) or tokens (`vocabulary_size`), and optionally the character ids of
    each token. With `normalize`, readings are scaled inside the model, by statistics that
    `keras_seqzoo.adapt(model, x_train)` sets.

    Shapes: `(batch, time, features)` or int `(batch, time)` -> `(batch, time, classes)` with
        `head="softmax"`, tags as int `(batch, time)` with "crf", `(batch, time, features)` with
        "regression". With `character_vocabulary_size`, there is a second input, int
        `(batch, time, characters)`.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding: they do not
        change other steps, their outputs are 0, and losses leave them out.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None means 1, or none with `vocabulary_size`.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        character_vocabulary_size: int, characters with padding (0) and unknown ones (1), or None
            for no characters. Needs `vocabulary_size`.
        classes: int, at least 1, number of tags; None means 2. Must be None with
            `head="regression"`.
        head: "softmax", a probability per tag at each step; "crf", the most probable sequence of
            tags, trained by its likelihood (`fit` needs no loss); "regression", a reading per step,
            in the units of the input with `normalize` (train on the next readings to forecast).
        cell: "linear" (a SimpleRNN without activation), "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, stacked recurrent layers.
        bidirectional: bool, whether each recurrent layer reads the sequence in both directions.
        embedding_dim: int, at least 1, size of the token embeddings.
        character_encoder: "cnn" or "bilstm", encodes the characters of a token as one vector.
        character_embedding_dim: int, at least 1, size of the character embeddings.
        character_units: int, at least 1, filters of "cnn", or units per direction of "bilstm".
        word_dropout: float in [0, 1), rate of tokens replaced by the unknown token in training.
        input_dropout: float in [0, 1), rate of the dropout of the scaled or embedded inputs.
        dropout: float in [0, 1), rate of the dropout after each recurrent layer.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        constraints: dict from `layers.bio_constraints`, so that `head="crf"` predicts only valid
            sequences of tags, or None.
        normalize: bool, whether to scale each feature of readings; without effect on tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        classifier_activation: for `head="softmax"`: "softmax" for probabilities, None for logits,
            or another activation.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled; with `head="crf"`, a `layers.CRFModel`, which is
        Functional too.

    Raises:
        ArgumentError: if an argument is out of range, or does not go with another one.

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
    inputs, x, mask = sequence_input(
        features=features,
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        word_dropout=word_dropout,
        normalize=normalize,
        mask_value=mask_value,
        time=time,
    )
    if character_vocabulary_size is not None:
        characters, encoded = _encoded_characters(
            character_vocabulary_size, character_encoder, character_embedding_dim,
            character_units, vocabulary_size, time,
        )  # fmt: skip
        inputs = [inputs, characters]
        x = keras.layers.Concatenate(name="word_and_characters")([x, encoded])
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
        outputs = _regression_head(x, inputs, classes, normalize)
    else:
        num_classes = 2 if classes is None else classes
        check_size(classes=num_classes)
        if head == "crf":
            scores = keras.layers.Dense(num_classes, name="scores")(x)
            crf = layers.LinearChainCRF(num_classes, **(constraints or {}), name="crf")
            return layers.CRFModel(inputs, crf(scores, mask=mask), name=check_name(name))
        activation = from_identifier(keras.activations, classifier_activation=classifier_activation)
        outputs = keras.layers.Dense(num_classes, activation, name="tags")(x)
    if mask is not None:
        outputs = layers.ApplyMask(name="masked")([outputs, mask])
    return keras.Model(inputs, outputs, name=check_name(name))


def _encoded_characters(
    size: int,
    encoder: str,
    embedding_dim: int,
    units: int,
    vocabulary_size: int | None,
    time: int | None,
) -> tuple[Any, Any]:
    """The input of characters `(batch, time, characters)`, and one vector for each token."""
    if vocabulary_size is None:
        raise ArgumentError(
            argument_message("character_vocabulary_size", "None without `vocabulary_size`", size)
        )
    check_choice("character_encoder", encoder, CHARACTER_ENCODERS)
    check_size(
        character_vocabulary_size=size,
        character_embedding_dim=embedding_dim,
        character_units=units,
    )
    inputs = keras.Input((time, None), dtype="int32", name="characters")
    layer = CHARACTER_ENCODERS[encoder](size, units, embedding_dim=embedding_dim, name="spelling")
    return inputs, layer(inputs)


def _regression_head(x: Any, inputs: Any, classes: int | None, normalize: bool) -> Any:
    """A reading per step, in the units of the input with `normalize`."""
    if classes is not None:
        raise ArgumentError(
            argument_message(
                "classes", "None with head='regression', which outputs `features`", classes
            )
        )
    if len(getattr(inputs, "shape", ())) != 3:
        raise ArgumentError("`head='regression'` must have `features`. Received: tokens.")
    outputs = keras.layers.Dense(inputs.shape[-1], name="readout")(x)
    return layers.Normalization(invert=True, name="unscale")(outputs) if normalize else outputs
