"""The autoencoder family: a sequence into one code, and out of it again."""

from __future__ import annotations

import keras
from keras import tree

from keras_seqzoo import layers
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.seq2seq.code_decoder import MODES
from keras_seqzoo.models.blocks import recurrent_stack, steps_input
from keras_seqzoo.models.identifiers import check_name, identifier, takes_numpy_numbers
from keras_seqzoo.utils.argument_validation import argument_message, check_choice, check_size

RECONSTRUCTIONS = ("sequence", "last")


@takes_numpy_numbers
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
    recurrent_regularizer=None,
    normalize: bool = True,
    mask_value: float | None = None,
    time: int | None = None,
    name: str = "sequence_autoencoder",
) -> keras.Model:
    """Recurrent layers make one code of a sequence; others say it again from the code.

    Takes readings (`features`), scaled inside and back once `keras_seqzoo.adapt(model, x_train)`
    was called, or tokens (`vocabulary_size`). The code is a linear map of the encoder's last real
    state; it gives the decoder's first state and goes into each of its steps. The input is the
    target. `keras_seqzoo.models.encoder` and `decoder` give the halves.

    Shapes: `(batch, time, features)` -> the same, in raw units with `normalize`; int
        `(batch, time)` -> `(batch, time, vocabulary)`, probabilities; without the time axis, the
        last real step, with `reconstruct="last"`.
    Masking: steps equal to `mask_value` in every feature, or tokens of 0, are padding: they change
        no other step, come out as 0, and count in no loss. As many steps come out as went in.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step; None stands for 1 unless `vocabulary_size`
            is given.
        vocabulary_size: int, tokens with padding (0) and unknown ones (1), or None for readings.
        cell: "linear", a SimpleRNN without activation, "simple_rnn", "gru" or "lstm"; of either
            half.
        units: int, at least 1, size of each recurrent state, per direction.
        code_size: int, at least 1, numbers in the code.
        num_layers: int, at least 1, recurrent layers one upon the other, of either half.
        bidirectional: bool, whether the encoder reads the sequence from its end too.
        reconstruct: "sequence", every step, or "last", the last real step alone, by one step of
            the decoder.
        decoder: what its steps are given beside the code: "repeat", nothing; "reversed", nothing,
            and the last step is said first; "free_running", what was said of the step before, in
            training too; "teacher_forced", what that step truly was, which tells more of the
            sequence than the code does wherever neighbours are alike: what the code holds,
            `decoder(model)` says, which runs freely.
        attention: what the decoder sees of the encoder's states beside the code, which then no
            longer holds all that is known: "additive", before each step; "dot", "general" or
            "multi_head", after it; or None.
        num_heads: int, at least 1, of "multi_head".
        embedding_dim: int, at least 1, size of a token's vector.
        dropout: float in [0, 1), share of units behind each recurrent layer of the encoder, and
            between those of the decoder, set to 0 in training.
        recurrent_regularizer: Keras regularizer of the recurrent kernels: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        normalize: bool, scale each feature in front and undo it behind; of no account with tokens.
        mask_value: number that fills padded steps of readings, NaN included, or None.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

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
        [Cho et al., 2014](https://doi.org/10.3115/v1/D14-1179), of the code in every step;
        [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), of attention
    """
    check_size(code_size=code_size)
    _check_modes(reconstruct, decoder, attention)
    recurrent = {"cell": cell, "units": units, "num_layers": num_layers, "dropout": dropout}
    recurrent["recurrent_regularizer"] = identifier(
        keras.regularizers, recurrent_regularizer=recurrent_regularizer
    )
    inputs, x, mask = steps_input(
        features=features,
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        word_dropout=0.0,
        normalize=normalize,
        mask_value=mask_value,
        time=time,
    )
    memory = recurrent_stack(x, mask, bidirectional=bidirectional, **recurrent)
    last = layers.LastState(bidirectional, name="last_state")(memory, mask=mask)
    code = keras.layers.Dense(code_size, name="code")(last)  # (batch, code)

    tokens = vocabulary_size is not None
    say = layers.CodeDecoder(
        vocabulary_size if tokens else inputs.shape[-1],
        mode=decoder,
        activation="softmax" if tokens else None,
        attention=attention,
        num_heads=num_heads,
        name="decoder",
        **recurrent,
    )
    seen = {}
    if reconstruct == "sequence":
        seen["real"] = layers.AllSteps(name="all_steps")(inputs) if mask is None else mask
    if attention is not None:
        seen["memory"] = memory
    if decoder == "teacher_forced":
        seen["given"] = inputs if tokens else x
    outputs = say(code, **seen)  # (batch, time, features) or (batch, features)
    if normalize and not tokens:
        outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    if reconstruct == "sequence":
        outputs = layers.ApplyMask(name="masked")([outputs, seen["real"]])
    return keras.Model(inputs, outputs, name=check_name(name))


def encoder(model: keras.Model) -> keras.Model:
    """The first half of an autoencoder, with the same weights: from a sequence to its code.

    Shapes: the model's input -> `(batch, code)`; with attention a dict of it, "code", and of what
        the decoder looks at, "memory", `(batch, time, units)`.
    Masking: as of the model.
    State: none.

    Args:
        model: what `keras_seqzoo.get` gave of the family "autoencoder", or loaded.

    Raises:
        ArgumentError: if it is another model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("gru_autoencoder", vocabulary_size=9, units=8, code_size=4)
    >>> zoo.models.encoder(model)(np.ones((2, 5), "int32")).shape
    TensorShape([2, 4])
    """
    say, code = _halves(model)
    outputs = {"code": code, "memory": _memory(model)} if say.looks else code
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_encoder")


def decoder(model: keras.Model) -> keras.Model:
    """The second half of an autoencoder, with the same weights: from a code to the sequence.

    Of a model that was taught by the true step before, it runs freely: the code is all it knows.

    Shapes: `[(batch, code), (batch, time)]`, the latter bool, True for the steps to be said -> the
        model's output; with attention, the memory is a third input; with `reconstruct="last"`, the
        code is the only one.
    Masking: the second input; other steps come out as 0.
    State: none.

    Args:
        model: what `keras_seqzoo.get` gave of the family "autoencoder", or loaded.

    Raises:
        ArgumentError: if it is another model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("linear_rnn_autoencoder", features=3, units=8, code_size=4)
    >>> zoo.models.decoder(model)(np.zeros((2, 4))).shape
    TensorShape([2, 3])
    """
    say, code = _halves(model)
    code = keras.Input(code.shape[1:], name="code")
    seen = {}
    if len(model.output_shape) == 3:
        seen["real"] = keras.Input(model.inputs[0].shape[1:2], dtype="bool", name="real")
    if say.looks:
        seen["memory"] = keras.Input(_memory(model).shape[1:], name="memory")
    outputs = say(code, **seen)
    known = {layer.name for layer in model.layers}
    if "unscale" in known:
        outputs = model.get_layer("unscale")(outputs)
    if "masked" in known:
        outputs = model.get_layer("masked")([outputs, seen["real"]])
    inputs = [code, *seen.values()] if seen else code
    return keras.Model(inputs, outputs, name=f"{model.name}_decoder")


def _check_modes(reconstruct, decoder, attention) -> None:
    check_choice("reconstruct", reconstruct, RECONSTRUCTIONS)
    check_choice("decoder", decoder, MODES)
    if reconstruct == "last" and decoder != "repeat":
        hint = "There is no step before the only one that is said."
        raise ArgumentError(
            argument_message("decoder", "'repeat' with reconstruct='last'", decoder, hint)
        )
    if reconstruct == "last" and attention is not None:
        raise ArgumentError(
            argument_message(
                "attention", "None with reconstruct='last', said from the code", attention
            )
        )


def _halves(model):
    """The decoder, and the code that it is given."""
    named = {layer.name: layer for layer in getattr(model, "layers", [])}
    say = named.get("decoder")
    if not isinstance(say, layers.CodeDecoder) or "code" not in named:
        hint = "`list_models(family='autoencoder')` names those that there are."
        raise ArgumentError(
            argument_message("model", "an autoencoder of this package", model, hint)
        )
    return say, named["code"].output


def _memory(model):
    """What the encoder's layers give at each step."""
    return tree.flatten(model.get_layer("last_state").input)[0]
