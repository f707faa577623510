"""The encoder-decoder family: a sequence in, one of another length out."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.normalization import TARGET
from keras_seqzoo.models.blocks import recurrent_stack, steps_input
from keras_seqzoo.models.identifiers import check_name, identifier, takes_numpy_numbers
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_rate,
    check_size,
    is_int,
)


@takes_numpy_numbers
def sequence_encoder_decoder(
    *,
    source_vocabulary_size: int | None = None,
    source_features: int | None = None,
    target_vocabulary_size: int | None = None,
    target_features: int | None = None,
    cell: str = "gru",
    units: int = 128,
    num_layers: int = 1,
    bidirectional: bool = True,
    attention: str | None = "general",
    num_heads: int = 4,
    input_feeding: bool = False,
    embedding_dim: int = 64,
    tied_embeddings: bool = False,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    scheduled_sampling: float = 0.0,
    recurrent_regularizer=None,
    normalize: bool = True,
    mask_value: float | None = None,
    name: str = "sequence_encoder_decoder",
) -> keras.Model:
    """An encoder reads the source, a decoder says the target, step by step.

    Either is tokens or readings. The model takes a source and a target so far, and gives for each
    of its steps what comes next. A target of tokens begins with 2 (START) and ends with 3 (END),
    as `data.PairPreprocessor` makes it; one of readings begins with a step of zeros. `generate`
    gives the model the source alone.

    Shapes: int `(batch, source)` or `(batch, source, features)`, and int `(batch, target)` ->
        `(batch, target, vocabulary)`, probabilities; or `(batch, target, features)` -> the same,
        in raw units with `normalize`, once `keras_seqzoo.adapt(model, x, target=y)` was called.
    Masking: source tokens of 0, or steps equal to `mask_value` in every feature, are padding, and
        change nothing on either side. Target tokens of 0 come after the others, come out as 0 and
        count in no loss.
    State: none kept between calls.

    Args:
        source_vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for
            readings.
        source_features: int, at least 1, readings per step; None stands for 1 unless
            `source_vocabulary_size` is given.
        target_vocabulary_size: int, at least 5, tokens with padding (0), unknown ones (1), START
            and END, or None for readings.
        target_features: int, at least 1, readings per step; None stands for 1 unless
            `target_vocabulary_size` is given.
        cell: "linear", a SimpleRNN without activation, "simple_rnn", "gru" or "lstm".
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, recurrent layers one upon the other, on either side.
        bidirectional: bool, whether the source is read from its end too.
        attention: what the decoder sees of the source: "additive", before each step; "dot",
            "general" or "multi_head", after it; or None, nothing but a first state.
        num_heads: int, at least 1, of "multi_head".
        input_feeding: bool, whether what came of one step goes into the next as it is, beside the
            token; needs attention after each step, and trains more slowly.
        embedding_dim: int, at least 1, size of a token's vector, on either side.
        tied_embeddings: bool, whether target tokens are scored by the vectors that they go in as,
            which takes fewer weights.
        input_dropout: float in [0, 1), share of the vectors' entries set to 0 in training.
        dropout: float in [0, 1), the same behind recurrent layers and the decoder.
        scheduled_sampling: float in [0, 1), share of the target's steps that in training are
            taken from what the model itself says, so that it learns to go on from its own
            mistakes. A step of training takes twice as long then.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, scale each feature of readings, and the answer back; of no account with
            tokens.
        mask_value: number that fills padded steps of source readings, NaN included, or None.
        name: str, name of the model.

    Returns:
        A Functional `layers.EncoderDecoderModel`, uncompiled.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

    Example:

    >>> from keras_seqzoo.models.encoder_decoder import sequence_encoder_decoder
    >>> model = sequence_encoder_decoder(source_vocabulary_size=9, target_vocabulary_size=7, units=8)
    >>> model([np.ones((2, 5), "int32"), np.full((2, 3), 2)]).shape
    TensorShape([2, 3, 7])
    >>> model.generate(np.ones((2, 5), "int32"), max_length=4).sequences.shape
    (2, 4)

    References: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215);
        [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179);
        [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473);
        [Luong et al., 2015](https://doi.org/10.18653/v1/D15-1166); of tied embeddings
        [Press & Wolf, 2017](https://aclanthology.org/E17-2025); of sampling
        [Bengio et al., 2015](https://arxiv.org/abs/1506.03099)
    """
    check_rate(dropout=dropout, input_dropout=input_dropout, scheduled_sampling=scheduled_sampling)
    check_bool(tied_embeddings=tied_embeddings)
    regularizer = identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    recurrent = {"cell": cell, "units": units, "num_layers": num_layers, "dropout": dropout}
    recurrent["recurrent_regularizer"] = regularizer

    source, x, mask = steps_input(
        features=source_features,
        vocabulary_size=source_vocabulary_size,
        embedding_dim=embedding_dim,
        word_dropout=0.0,
        normalize=normalize,
        mask_value=mask_value,
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
        attention=attention,
        num_heads=num_heads,
        input_feeding=input_feeding,
        name="decoder",
        **recurrent,
    )
    initial = [
        keras.layers.Dense(units, "tanh", name=f"initial_{number}")(summary)
        for number in range(1, decoder.states + 1)
    ]
    target, y, embedding = _target_input(
        target_vocabulary_size, target_features, embedding_dim, tied_embeddings, normalize,
        scheduled_sampling,
    )  # fmt: skip
    y = _dropped(y, input_dropout, "target_dropout")
    seen = {"memory": memory, "memory_mask": mask} if looks else {}
    y = decoder(y, initial_state=initial, **seen)  # (batch, target, units)
    y = _dropped(y, dropout, "decoder_dropout")
    if embedding is None:
        outputs = keras.layers.Dense(target.shape[-1], name="readout")(y)
        if normalize:
            outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    else:
        if tied_embeddings:
            y = keras.layers.Dense(embedding_dim, name="to_embedding")(y)
            y = embedding(y, reverse=True)
        else:
            y = keras.layers.Dense(target_vocabulary_size, name="scores")(y)
        y = keras.layers.Activation("softmax", name="probabilities")(y)
        outputs = layers.ApplyMask(name="masked")([y, layers.TokenMask(name="target_mask")(target)])
    return layers.EncoderDecoderModel([source, target], outputs, name=check_name(name))


def _target_input(
    vocabulary_size, features, embedding_dim: int, tied: bool, normalize: bool, sampling: float
):
    """The target so far, what the decoder sees of it, and its embedding, None of readings."""
    if vocabulary_size is None:
        features = 1 if features is None else features
        check_size(target_features=features)
        if tied:
            raise ArgumentError(
                argument_message("tied_embeddings", "False without `target_vocabulary_size`", tied)
            )
        inputs = keras.Input((None, features), name="target")
        x = _sampled(inputs, sampling)
        return inputs, layers.Normalization(name=TARGET)(x) if normalize else x, None
    if features is not None:
        raise ArgumentError(
            "Either `target_features` or `target_vocabulary_size` must be given, not both. "
            f"Received: {features!r} and {vocabulary_size!r}."
        )
    if not is_int(vocabulary_size) or vocabulary_size < 5:
        hint = "Padding, unknown, START and END are four of them."
        raise ArgumentError(
            argument_message(
                "target_vocabulary_size", "an integer of at least 5", vocabulary_size, hint
            )
        )
    inputs = keras.Input((None,), dtype="int32", name="target")
    kind = keras.layers.ReversibleEmbedding if tied else keras.layers.Embedding
    embedding = kind(vocabulary_size, embedding_dim, name="target_embedding")
    return inputs, embedding(_sampled(inputs, sampling)), embedding


def _sampled(target, rate: float):
    return layers.ScheduledSampling(rate, name="scheduled_sampling")(target) if rate else target


def _dropped(x, rate: float, name: str):
    return keras.layers.Dropout(rate, name=name)(x) if rate else x
