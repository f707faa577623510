"""The autoencoder family: an encoder from a sequence to one code, and a decoder back."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.seq2seq.code_decoder import MODES
from keras_seqzoo.models.blocks import recurrent_stack, sequence_input
from keras_seqzoo.models.identifiers import accepts_numpy_scalars, check_name, from_identifier
from keras_seqzoo.utils.argument_validation import argument_message, check_choice, check_size

RECONSTRUCTIONS = ("sequence", "last")


@accepts_numpy_scalars
def sequence_autoencoder(
    *,
    features: int | None = None,
    vocabulary_size: int | None = None,
    cell: str = "lstm",
    units: int = 64,
    code_size: int = 16,
    num_layers: int = 1,
    bidirectional: bool = False,
    reconstruct: str = "sequence",
    decoder: str = "repeat",
    attention: str | None = None,
    num_heads: int = 4,
    embedding_dim: int = 64,
    dropout: float = 0.0,
    recurrent_regularizer: Any = None,
    normalize: bool = True,
    mask_value: float | None = None,
    time: int | None = None,
    name: str = "sequence_autoencoder",
) -> keras.Model:
    """Stacked recurrent layers, one code per sequence, and a recurrent decoder of the code.

    Takes readings (`features`) or tokens (`vocabulary_size`); the target is the input. The code is
    a linear map of the encoder's last state. It gives the initial state of the decoder and is an
    input of each of its steps. `keras_seqzoo.models.encoder` and `keras_seqzoo.models.decoder`
    return the two halves. With `normalize`, readings are scaled inside the model and the output is
    scaled back, by statistics that `keras_seqzoo.adapt(model, x_train)` sets.

    Shapes: `(batch, time, features)` -> the same; int `(batch, time)` ->
        `(batch, time, vocabulary)`, probabilities; with `reconstruct="last"`, the last real step
        alone, without the time axis.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding: they do not
        change other steps, their outputs are 0, and losses leave them out.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None means 1, or none with `vocabulary_size`.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        cell: "linear" (a SimpleRNN without activation), "simple_rnn", "gru" or "lstm", of encoder
            and decoder.
        units: int, at least 1, size of each recurrent state, per direction.
        code_size: int, at least 1, size of the code.
        num_layers: int, at least 1, stacked recurrent layers of the encoder, and of the decoder.
        bidirectional: bool, whether the encoder reads the sequence in both directions.
        reconstruct: "sequence", every step, or "last", the last real step, with a decoder of one
            step.
        decoder: what a decoder step takes in addition to the code: "repeat", nothing; "reversed",
            nothing, and the last step is decoded first; "free_running", the output of the step
            before, in training too; "teacher_forced", the true step before. Where adjacent steps
            are alike, the true step is more informative than the code. To evaluate the code, use
            `models.decoder(model)`, which is free-running.
        attention: None, or attention of the decoder to the encoder's states: "additive", before
            each step; "dot", "general" or "multi_head", after it. With attention the output does
            not depend on the code alone.
        num_heads: int, at least 1, for "multi_head".
        embedding_dim: int, at least 1, size of the token embeddings.
        dropout: float in [0, 1), rate of the dropout after each recurrent layer of the encoder, and
            between those of the decoder.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, whether to scale each feature of readings, and the output back; without
            effect on tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument is out of range, or does not go with another one.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("lstm_autoencoder", features=3, units=8, code_size=4)
    >>> code = zoo.models.encoder(model).predict(np.zeros((2, 20, 3)), verbose=0)
    >>> code.shape
    (2, 4)
    >>> zoo.models.decoder(model)([code, np.ones((2, 20), bool)]).shape
    TensorShape([2, 20, 3])

    References: [Goodfellow et al., 2016](https://www.deeplearningbook.org), chapters 10 and 14;
        [Srivastava et al., 2015](https://arxiv.org/abs/1502.04681);
        [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179), the code in every step;
        [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), attention
    """
    check_size(code_size=code_size)
    _check_modes(reconstruct, decoder, attention)
    regularizer = from_identifier(keras.regularizers, recurrent_regularizer=recurrent_regularizer)
    recurrent: dict[str, Any] = {
        "cell": cell, "units": units, "num_layers": num_layers, "dropout": dropout,
        "recurrent_regularizer": regularizer,
    }  # fmt: skip
    inputs, x, mask = sequence_input(
        features=features,
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        normalize=normalize,
        mask_value=mask_value,
        time=time,
    )
    memory = recurrent_stack(x, mask, bidirectional=bidirectional, **recurrent)
    summary = layers.LastState(bidirectional, name="last_state")(memory, mask=mask)
    code = keras.layers.Dense(code_size, name="code")(summary)  # (batch, code_size)

    is_tokens = vocabulary_size is not None
    code_decoder = layers.CodeDecoder(
        vocabulary_size if is_tokens else inputs.shape[-1],
        mode=decoder,
        activation="softmax" if is_tokens else None,
        attention=attention,
        num_heads=num_heads,
        name="decoder",
        **recurrent,
    )
    arguments = {}
    if reconstruct == "sequence":
        mask = layers.AllSteps(name="all_steps")(inputs) if mask is None else mask
        arguments["target_mask"] = mask
    if attention is not None:
        arguments["memory"] = memory
    if decoder == "teacher_forced":
        arguments["targets"] = inputs if is_tokens else x
    outputs = code_decoder(code, **arguments)  # (batch, time, features) or (batch, features)
    if normalize and not is_tokens:
        outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    if reconstruct == "sequence":
        outputs = layers.ApplyMask(name="masked")([outputs, mask])
    return keras.Model(inputs, outputs, name=check_name(name))


def encoder(model: keras.Model) -> keras.Model:
    """The encoder of an autoencoder, from a sequence to its code; shares the model's weights.

    Shapes: the model's input -> `(batch, code_size)`; with attention, a dict of "code" and
        "memory", `(batch, time, units)`, which the decoder attends to.
    Masking: that of the model.
    State: none.

    Args:
        model: a model of the family "autoencoder", from `keras_seqzoo.get` or loaded.

    Returns:
        A Functional `keras.Model`.

    Raises:
        ArgumentError: if it is another model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("gru_autoencoder", vocabulary_size=9, units=8, code_size=4)
    >>> zoo.models.encoder(model)(np.ones((2, 5), "int32")).shape
    TensorShape([2, 4])
    """
    code_decoder, code = _decoder_and_code(model)
    outputs = {"code": code, "memory": _memory(model)} if code_decoder.has_attention else code
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_encoder")


def decoder(model: keras.Model) -> keras.Model:
    """The decoder of an autoencoder, from a code to the sequence; shares the model's weights.

    The decoder of a model with `decoder="teacher_forced"` is free-running here: each step takes the
    output of the one before.

    Shapes: `[(batch, code_size), (batch, time)]`, the second bool, True for the steps to decode ->
        the model's output. With attention, the memory is a third input. With `reconstruct="last"`,
        the code is the only input.
    Masking: the second input is the mask; other steps are 0 in the output.
    State: none.

    Args:
        model: a model of the family "autoencoder", from `keras_seqzoo.get` or loaded.

    Returns:
        A Functional `keras.Model`.

    Raises:
        ArgumentError: if it is another model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("linear_rnn_autoencoder", features=3, units=8, code_size=4)
    >>> zoo.models.decoder(model)(np.zeros((2, 4))).shape
    TensorShape([2, 3])
    """
    code_decoder, code = _decoder_and_code(model)
    code = keras.Input(code.shape[1:], name="code")
    arguments = {}
    if len(model.output_shape) == 3:
        time = model.inputs[0].shape[1:2]
        arguments["target_mask"] = keras.Input(time, dtype="bool", name="real")
    if code_decoder.has_attention:
        arguments["memory"] = keras.Input(_memory(model).shape[1:], name="memory")
    outputs = code_decoder(code, **arguments)
    names = {layer.name for layer in model.layers}
    if "unscale" in names:
        outputs = model.get_layer("unscale")(outputs)
    if "masked" in names:
        outputs = model.get_layer("masked")([outputs, arguments["target_mask"]])
    inputs = [code, *arguments.values()] if arguments else code
    return keras.Model(inputs, outputs, name=f"{model.name}_decoder")


def _check_modes(reconstruct: str, decoder: str, attention: str | None) -> None:
    check_choice("reconstruct", reconstruct, RECONSTRUCTIONS)
    check_choice("decoder", decoder, MODES)
    if reconstruct == "last" and decoder != "repeat":
        hint = "Only one step is decoded, so there is none before it."
        raise ArgumentError(
            argument_message("decoder", "'repeat' with reconstruct='last'", decoder, hint)
        )
    if reconstruct == "last" and attention is not None:
        raise ArgumentError(
            argument_message("attention", "None with reconstruct='last'", attention)
        )


def _decoder_and_code(model: keras.Model) -> tuple[layers.CodeDecoder, Any]:
    """The decoder layer of an autoencoder, and its symbolic code."""
    by_name = {layer.name: layer for layer in getattr(model, "layers", [])}
    code_decoder = by_name.get("decoder")
    if not isinstance(code_decoder, layers.CodeDecoder) or "code" not in by_name:
        hint = "`list_models(family='autoencoder')` returns the names of the available ones."
        raise ArgumentError(
            argument_message("model", "an autoencoder of this package", model, hint)
        )
    return code_decoder, by_name["code"].output


def _memory(model: keras.Model) -> Any:
    """The symbolic states of the encoder at each step, `(batch, time, units)`."""
    return tree.flatten(model.get_layer("last_state").input)[0]
