"""The encoder-decoder family: from a source sequence to a target of another length."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.normalization import TARGET
from keras_seqzoo.models.blocks import recurrent_stack, sequence_input
from keras_seqzoo.models.identifiers import accepts_numpy_scalars, check_name, from_identifier
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_rate,
    check_size,
    is_int,
)


@accepts_numpy_scalars
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
    recurrent_regularizer: Any = None,
    normalize: bool = True,
    mask_value: float | None = None,
    name: str = "sequence_encoder_decoder",
) -> layers.EncoderDecoderModel:
    """Recurrent encoder of the source, and a recurrent decoder with attention for the target.

    Source and target are each tokens or readings. The model takes the source and the target so
    far, and predicts the next step after each step of the target. A target of tokens begins with 2
    (START) and ends with 3 (END), as `data.PairPreprocessor` prepares it; a target of readings
    begins with a step of zeros. `generate` takes the source alone. With `normalize`, readings are
    scaled inside the model and the output is scaled back, by statistics that
    `keras_seqzoo.adapt(model, x, target=y)` sets.

    Shapes: source int `(batch, source)` or `(batch, source, features)`, and target int
        `(batch, target)` -> `(batch, target, vocabulary)`, probabilities; or target
        `(batch, target, features)` -> the same.
    Masking: source tokens of 0, or steps equal to `mask_value` in every feature, are padding and do
        not change the output, at either end of the source. Target tokens of 0 must come last; their
        outputs are 0, and losses leave them out.
    State: none kept between calls.

    Args:
        source_vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for
            readings.
        source_features: int, at least 1, readings per step; None means 1 unless
            `source_vocabulary_size` is given.
        target_vocabulary_size: int, at least 5, tokens with padding (0), unknown ones (1), START
            and END, or None for readings.
        target_features: int, at least 1, readings per step; None means 1 unless
            `target_vocabulary_size` is given.
        cell: "linear" (a SimpleRNN without activation), "simple_rnn", "gru" or "lstm", of encoder
            and decoder.
        units: int, at least 1, size of each recurrent state, per direction.
        num_layers: int, at least 1, stacked recurrent layers of the encoder, and of the decoder.
        bidirectional: bool, whether the encoder reads the source in both directions.
        attention: "additive", before each step; "dot", "general" or "multi_head", after it; or
            None, where the decoder gets an initial state alone.
        num_heads: int, at least 1, for "multi_head".
        input_feeding: bool, whether the decoder's output is an input of the next step; needs
            attention "dot", "general" or "multi_head", and trains more slowly.
        embedding_dim: int, at least 1, size of the token embeddings of source and target.
        tied_embeddings: bool, whether the output layer shares the weights of the target embedding.
        input_dropout: float in [0, 1), rate of the dropout of the scaled or embedded inputs.
        dropout: float in [0, 1), rate of the dropout after recurrent layers and the decoder.
        scheduled_sampling: float in [0, 1), rate of target steps replaced by the model's own
            predictions in training, so that it learns to recover from its errors; doubles the time
            of a training step.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, whether to scale each feature of readings, and the output back; without
            effect on tokens.
        mask_value: number that fills padded steps of source readings, NaN included, or None.
        name: str, name of the model.

    Returns:
        A Functional `layers.EncoderDecoderModel`, uncompiled.

    Raises:
        ArgumentError: if an argument is out of range, or does not go with another one.

    Example:

    >>> from keras_seqzoo.models import sequence_encoder_decoder
    >>> sizes = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 8}
    >>> model = sequence_encoder_decoder(**sizes)
    >>> model([np.ones((2, 5), "int32"), np.full((2, 3), 2)]).shape
    TensorShape([2, 3, 7])
    >>> model.generate(np.ones((2, 5), "int32"), max_length=4).sequences.shape
    (2, 4)

    References: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215);
        [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179);
        [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473);
        [Luong et al., 2015](https://doi.org/10.18653/v1/D15-1166);
        [Press & Wolf, 2017](https://aclanthology.org/E17-2025), tied embeddings;
        [Bengio et al., 2015](https://arxiv.org/abs/1506.03099), scheduled sampling
    """
    check_rate(dropout=dropout, input_dropout=input_dropout, scheduled_sampling=scheduled_sampling)
    check_bool(tied_embeddings=tied_embeddings)
    regularizer = from_identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    recurrent: dict[str, Any] = {
        "cell": cell, "units": units, "num_layers": num_layers, "dropout": dropout,
        "recurrent_regularizer": regularizer,
    }  # fmt: skip
    source, x, mask = sequence_input(
        features=source_features,
        vocabulary_size=source_vocabulary_size,
        embedding_dim=embedding_dim,
        normalize=normalize,
        mask_value=mask_value,
        name="source",
    )
    x = _dropout(x, input_dropout, "source_dropout")
    has_attention = attention is not None
    memory = recurrent_stack(
        x, mask, bidirectional=bidirectional, return_sequences=has_attention, **recurrent
    )  # (batch, source, memory), or (batch, memory) without attention
    summary = memory
    if has_attention:
        summary = layers.Pooling("mean", name="summary")(memory, mask=mask)

    decoder = layers.Decoder(
        attention=attention,
        num_heads=num_heads,
        input_feeding=input_feeding,
        name="decoder",
        **recurrent,
    )
    initial_state = [
        keras.layers.Dense(units, "tanh", name=f"initial_{number}")(summary)
        for number in range(1, decoder.num_states + 1)
    ]
    target, y, embedding = _target_input(
        target_vocabulary_size, target_features, embedding_dim, tied_embeddings, normalize,
        scheduled_sampling,
    )  # fmt: skip
    y = _dropout(y, input_dropout, "target_dropout")
    attended = {"memory": memory, "memory_mask": mask} if has_attention else {}
    y = decoder(y, initial_state=initial_state, **attended)  # (batch, target, units)
    y = _dropout(y, dropout, "decoder_dropout")
    if embedding is None:
        outputs = keras.layers.Dense(target.shape[-1], name="readout")(y)
        if normalize:
            outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    else:
        if tied_embeddings:
            y = keras.layers.Dense(embedding_dim, name="to_embedding")(y)
            scores = embedding(y, reverse=True)
        else:
            scores = keras.layers.Dense(target_vocabulary_size, name="scores")(y)
        outputs = keras.layers.Activation("softmax", name="probabilities")(scores)
        target_mask = layers.TokenMask(name="target_mask")(target)
        outputs = layers.ApplyMask(name="masked")([outputs, target_mask])
    return layers.EncoderDecoderModel([source, target], outputs, name=check_name(name))


def _target_input(
    vocabulary_size: int | None,
    features: int | None,
    embedding_dim: int,
    tied_embeddings: bool,
    normalize: bool,
    scheduled_sampling: float,
) -> tuple[Any, Any, Any]:
    """The target so far, the inputs of the decoder, and the embedding, None for readings."""
    if vocabulary_size is None:
        features = 1 if features is None else features
        check_size(target_features=features)
        if tied_embeddings:
            expected = "False without `target_vocabulary_size`"
            raise ArgumentError(argument_message("tied_embeddings", expected, tied_embeddings))
        inputs = keras.Input((None, features), name="target")
        x = _scheduled_sampling(inputs, scheduled_sampling)
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
    layer = keras.layers.ReversibleEmbedding if tied_embeddings else keras.layers.Embedding
    embedding = layer(vocabulary_size, embedding_dim, name="target_embedding")
    return inputs, embedding(_scheduled_sampling(inputs, scheduled_sampling)), embedding


def _scheduled_sampling(target: Any, rate: float) -> Any:
    return layers.ScheduledSampling(rate, name="scheduled_sampling")(target) if rate else target


def _dropout(x: Any, rate: float, name: str) -> Any:
    return keras.layers.Dropout(rate, name=name)(x) if rate else x
