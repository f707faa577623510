"""Blocks of the families: inputs with their masks, and stacks of recurrent layers."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.seq2seq.decoder import CELLS
from keras_seqzoo.models.identifiers import from_identifier
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
) -> tuple[Any, Any, Any]:
    """Input of raw readings.

    Returns:
        The input `(batch, time, features)`, the same with padding set to 0 and scaled with
        `normalize`, and the mask `(batch, time)`, or None without `mask_value`.
    """
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
) -> tuple[Any, Any, Any]:
    """Input of tokens.

    Returns:
        The input `(batch, time)`, its embeddings `(batch, time, embedding_dim)`, and the mask
        `(batch, time)`, False for tokens of 0.
    """
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


def sequence_input(
    *,
    features: int | None,
    vocabulary_size: int | None,
    embedding_dim: int,
    normalize: bool,
    mask_value: float | None,
    time: int | None = None,
    word_dropout: float = 0.0,
    name: str | None = None,
) -> tuple[Any, Any, Any]:
    """`tokens_input` if `vocabulary_size` is given, else `readings_input`, of 1 feature by default.

    Raises:
        ArgumentError: if arguments of both are given.
    """
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
    recurrent_regularizer: Any,
    return_sequences: bool = True,
) -> Any:
    """Stack of `num_layers` recurrent layers, each followed by dropout.

    Shapes: `(batch, time, features)` -> `(batch, time, units)`, or `(batch, units)` without
        `return_sequences`, the last state; `2 * units` in place of `units` if `bidirectional`.
    """
    check_choice("cell", cell, CELLS)
    check_size(units=units, num_layers=num_layers)
    check_bool(bidirectional=bidirectional)
    check_rate(dropout=dropout)
    regularizer = from_identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
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
