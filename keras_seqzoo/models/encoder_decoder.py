"""The encoder-decoder family: a sequence in, one of another length out."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import check_positive, check_rate
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
    """An encoder reads the source, a decoder says the target, a token at a time.

    The model takes a source and a target so far, which begins with token 2 (START), and gives for
    each of its steps the probabilities of what comes next; token 3 (END) comes last.
    `data.ParallelEncoding` makes such batches. `generate` gives it the source alone.

    Shapes: int `(batch, source)` and int `(batch, target)` -> `(batch, target, vocabulary)`.
    Masking: source tokens of 0 are padding, and change nothing on either side; target tokens of 0
        come after the others, come out as 0 and count in no loss.
    State: none kept between calls.

    Args:
        source_vocabulary_size: int, tokens with padding (0) and unknown ones (1).
        target_vocabulary_size: int, tokens with padding (0), unknown ones (1), START and END.
        cell: "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        depth: int, at least 1, recurrent layers one upon the other, on either side.
        bidirectional: bool, whether the source is read from its end too.
        attention: what the decoder sees of the source: "additive", before each step; "dot",
            "general" or "multi_head", after it; or None, nothing but a first state.
        heads: int, at least 1, of "multi_head".
        input_feeding: bool, whether what came of one step goes into the next as it is, beside the
            token; needs attention after each step, and trains more slowly.
        embedding_size: int, at least 1, size of a token's vector, on either side.
        input_dropout: float in [0, 1), share of the vectors' entries set to 0 in training.
        dropout: float in [0, 1), the same behind recurrent layers and the decoder.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        name: str, name of the model.

    Returns:
        A Functional `layers.EncoderDecoderModel`, uncompiled.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

    Example:

    >>> from keras_seqzoo.models.encoder_decoder import encoder_decoder
    >>> model = encoder_decoder(source_vocabulary_size=9, target_vocabulary_size=7, units=8)
    >>> model([np.ones((2, 5), "int32"), np.full((2, 3), 2)]).shape
    TensorShape([2, 3, 7])
    >>> model.generate(np.ones((2, 5), "int32"), max_length=4).tokens.shape
    (2, 4)

    References: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215);
        [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179);
        [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473);
        [Luong et al., 2015](https://doi.org/10.18653/v1/D15-1166)
    """
    check_positive(target_vocabulary_size=target_vocabulary_size)
    check_rate(dropout=dropout, input_dropout=input_dropout)
    regularizer = identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    recurrent = {"cell": cell, "units": units, "depth": depth, "dropout": dropout}
    recurrent["recurrent_regularizer"] = regularizer

    source, x, mask = tokens_input(
        source_vocabulary_size,
        embedding_size=embedding_size,
        word_dropout=0.0,
        time=None,
        name="source",
    )
    x = _dropped(x, input_dropout, "source_dropout")
    looks = attention is not None
    memory = recurrent_stack(
        x, mask, bidirectional=bidirectional, return_sequences=looks, **recurrent
    )  # (batch, source, memory), or (batch, memory) if nothing looks at it
    summary = layers.Pooling("mean", name="summary")(memory, mask=mask) if looks else memory

    decoder = layers.Decoder(
        attention=attention, heads=heads, input_feeding=input_feeding, name="decoder", **recurrent
    )
    initial = [
        keras.layers.Dense(units, "tanh", name=f"initial_{number}")(summary)
        for number in range(1, decoder.states + 1)
    ]
    target = keras.Input((None,), dtype="int32", name="target")  # START and the target so far
    embedding = keras.layers.Embedding(
        target_vocabulary_size, embedding_size, name="target_embedding"
    )
    y = _dropped(embedding(target), input_dropout, "target_dropout")
    seen = {"memory": memory, "memory_mask": mask} if looks else {}
    y = decoder(y, initial_state=initial, **seen)  # (batch, target, units)
    y = _dropped(y, dropout, "decoder_dropout")
    y = keras.layers.Dense(target_vocabulary_size, name="scores")(y)
    y = keras.layers.Activation("softmax", name="probabilities")(y)
    outputs = layers.ApplyMask(name="masked")([y, layers.TokenMask(name="target_mask")(target)])
    return layers.EncoderDecoderModel([source, target], outputs, name=check_name(name))


def _dropped(x, rate: float, name: str):
    return keras.layers.Dropout(rate, name=name)(x) if rate else x
