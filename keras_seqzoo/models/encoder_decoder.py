"""The encoder-decoder family: a sequence in, one of another length out."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import check_choice, check_positive, check_rate
from keras_seqzoo.models.arguments import check_name, identifier
from keras_seqzoo.models.blocks import recurrent_stack, tokens_input


def encoder_decoder(
    *,
    source_vocabulary_size: int = 100,
    target_vocabulary_size: int = 100,
    cell: str = "gru",
    units: int = 128,
    depth: int = 1,
    bidirectional: bool = True,
    attention: str | None = "general",
    heads: int = 4,
    input_feeding: bool = False,
    embedding_size: int = 64,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    recurrent_regularizer=None,
    name: str = "encoder_decoder",
) -> keras.Model:
    check_choice("cell", cell, layers.decoder.CELLS)
    check_positive(units=units, depth=depth, target_vocabulary_size=target_vocabulary_size)
    check_rate(dropout=dropout, input_dropout=input_dropout)
    regularizer = identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    source, x, mask = tokens_input(
        source_vocabulary_size,
        embedding_size=embedding_size,
        word_dropout=0.0,
        time=None,
        name="source",
    )
    if input_dropout:
        x = keras.layers.Dropout(input_dropout, name="source_dropout")(x)
    memory = recurrent_stack(
        x,
        mask,
        cell=cell,
        units=units,
        depth=depth,
        bidirectional=bidirectional,
        dropout=dropout,
        recurrent_regularizer=regularizer,
        return_sequences=attention is not None,
    )  # (batch, source, memory), or (batch, memory) if nothing looks at it
    summary = (
        memory if attention is None else layers.Pooling("mean", name="summary")(memory, mask=mask)
    )
    count = depth * (2 if cell == "lstm" else 1)
    initial = [
        keras.layers.Dense(units, "tanh", name=f"initial_{number}")(summary)
        for number in range(1, count + 1)
    ]
    target = keras.Input((None,), dtype="int32", name="target")  # begins with START
    y = keras.layers.Embedding(target_vocabulary_size, embedding_size, name="target_embedding")(
        target
    )
    if input_dropout:
        y = keras.layers.Dropout(input_dropout, name="target_dropout")(y)
    y = layers.Decoder(
        units,
        cell=cell,
        depth=depth,
        attention=attention,
        heads=heads,
        input_feeding=input_feeding,
        dropout=dropout,
        recurrent_regularizer=regularizer,
        name="decoder",
    )(
        y,
        memory=None if attention is None else memory,
        initial_state=initial,
        memory_mask=None if attention is None else mask,
    )  # (batch, target, units)
    if dropout:
        y = keras.layers.Dropout(dropout, name="decoded_dropout")(y)
    y = keras.layers.Dense(target_vocabulary_size, name="scores")(y)
    y = keras.layers.Activation("softmax", name="probabilities")(y)
    outputs = layers.ApplyMask(name="masked")([y, layers.TokenMask(name="target_mask")(target)])
    return layers.EncoderDecoderModel([source, target], outputs, name=check_name(name))
