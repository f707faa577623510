"""What several families are built of: the input and its mask, and the recurrent layers."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.seq2seq.decoder import CELLS
from keras_seqzoo.models.identifiers import identifier
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_rate,
    check_size,
)


def readings_input(
    features: int,
    *,
    mask_value: float | None,
    normalize: bool,
    time: int | None,
    name: str = "readings",
):
    """Raw readings in: the input, what a network sees of it, and the mask or None."""
    check_size(features=features, **({} if time is None else {"time": time}))
    check_bool(normalize=normalize)
    inputs = keras.Input((time, features), name=name)  # (batch, time, features)
    mask = layers.step_mask(inputs, mask_value, name="mask")  # (batch, time) or None
    x = inputs if mask is None else layers.ApplyMask(name="real_steps")([inputs, mask])
    if normalize:
        x = layers.Normalization(name="scale")(x)
    return inputs, x, mask


def tokens_input(
    vocabulary_size: int,
    *,
    embedding_dim: int,
    word_dropout: float,
    time: int | None,
    name: str = "tokens",
):
    """Tokens in: the input, their vectors, and the mask, which leaves 0 out."""
    check_size(
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        **({} if time is None else {"time": time}),
    )
    check_rate(word_dropout=word_dropout)
    inputs = keras.Input((time,), dtype="int32", name=name)  # (batch, time)
    mask = layers.TokenMask(name="mask")(inputs)
    x = layers.WordDropout(word_dropout, name="word_dropout")(inputs) if word_dropout else inputs
    x = keras.layers.Embedding(vocabulary_size, embedding_dim, name="embedding")(x)
    return inputs, x, mask


def steps_input(
    *,
    features,
    vocabulary_size,
    embedding_dim,
    word_dropout,
    normalize,
    mask_value,
    time,
    name: str | None = None,
):
    """Readings or tokens in, whichever width is given; one reading per step if none is."""
    if vocabulary_size is None:
        if word_dropout:
            raise ArgumentError(
                argument_message("word_dropout", "0 without `vocabulary_size`", word_dropout)
            )
        return readings_input(
            1 if features is None else features,
            mask_value=mask_value,
            normalize=normalize,
            time=time,
            name=name or "readings",
        )
    if features is not None:
        raise ArgumentError(
            "Either `features` or `vocabulary_size` must be given, not both. Received: "
            f"features={features!r}, vocabulary_size={vocabulary_size!r}."
        )
    if mask_value is not None:
        raise ArgumentError(
            argument_message(
                "mask_value", "None with `vocabulary_size`: token 0 is padding", mask_value
            )
        )
    return tokens_input(
        vocabulary_size,
        embedding_dim=embedding_dim,
        word_dropout=word_dropout,
        time=time,
        name=name or "tokens",
    )


def recurrent_stack(
    x,
    mask,
    *,
    cell: str,
    units: int,
    num_layers: int,
    bidirectional: bool,
    dropout: float,
    recurrent_regularizer,
    return_sequences: bool = True,
):
    """`num_layers` recurrent layers, dropout behind each.

    Shapes: `(batch, time, features)` -> `(batch, time, units)`, or `(batch, units)` without
        `return_sequences`: the last real step, of either direction where there are two, which
        doubles the units.
    """
    check_choice("cell", cell, CELLS)
    check_size(units=units, num_layers=num_layers)
    check_bool(bidirectional=bidirectional)
    check_rate(dropout=dropout)
    regularizer = identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    for index in range(1, num_layers + 1):
        recurrent = CELLS[cell](
            units,
            recurrent_regularizer=regularizer,
            return_sequences=return_sequences or index < num_layers,
            name=f"recurrent_{index}",
        )
        if bidirectional:
            recurrent = layers.Bidirectional(recurrent, name=f"both_ways_{index}")
        x = recurrent(x, mask=mask)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    return x
