"""The identity family: what goes in is to come out, owing nothing to what came before."""

from __future__ import annotations

import keras

from keras_seqzoo import layers
from keras_seqzoo.models.blocks import readings_input
from keras_seqzoo.models.identifiers import check_name, identifier, takes_numpy_numbers
from keras_seqzoo.utils.argument_validation import check_bool, check_size


@takes_numpy_numbers
def simple_rnn_identity(
    *,
    features: int = 1,
    units: int = 8,
    return_sequences: bool = True,
    activation="tanh",
    recurrent_regularizer=None,
    kernel_regularizer=None,
    recurrent_initializer="orthogonal",
    normalize: bool = True,
    mask_value: float | None = None,
    time: int | None = None,
    name: str = "simple_rnn_identity",
) -> keras.Model:
    """One SimpleRNN layer and a linear read-out, to be trained to return its input.

    Whatever the recurrent kernel carries over from earlier steps leaks into the output;
    `keras_seqzoo.leakage` measures it and `recurrent_regularizer` presses it down. With
    `normalize`, raw readings go in and come out while the activation works in its range: call
    `keras_seqzoo.adapt(model, x_train)` before training.

    Shapes: `(batch, time, features)` -> `(batch, time, features)`, both in the units of the
        readings; `(batch, features)`, the last real step, with `return_sequences=False`.
    Masking: steps equal to `mask_value` in every feature are padding: they change no other step,
        come out as 0, and count in no loss.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step.
        units: int, at least 1, size of the recurrent state.
        return_sequences: bool, every step (True) or the last real one alone (False).
        activation: Keras activation of the recurrent layer, or None for a linear one.
        recurrent_regularizer: Keras regularizer of the recurrent kernel: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        kernel_regularizer: Keras regularizer of the input kernel, or None.
        recurrent_initializer: Keras initializer of the recurrent kernel; "zeros" starts without
            any memory.
        normalize: bool, scale each feature in front and undo it behind.
        mask_value: number that fills padded steps, NaN included, or None for no padding.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument cannot be used; the message says what it must be.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("simple_rnn_identity", features=3, units=8, recurrent_regularizer="l2")
    >>> model(np.zeros((2, 50, 3))).shape
    TensorShape([2, 50, 3])

    Reference: [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """
    check_size(units=units)
    check_bool(return_sequences=return_sequences)
    inputs, x, mask = readings_input(
        features, mask_value=mask_value, normalize=normalize, time=time
    )
    x = layers.SimpleRNN(
        units,
        activation=identifier(keras.activations, activation=activation),
        recurrent_initializer=identifier(
            keras.initializers, recurrent_initializer=recurrent_initializer
        ),
        recurrent_regularizer=identifier(
            keras.regularizers, recurrent_regularizer=recurrent_regularizer
        ),
        kernel_regularizer=identifier(keras.regularizers, kernel_regularizer=kernel_regularizer),
        return_sequences=return_sequences,
        name="recurrent",
    )(x, mask=mask)  # (batch, time, units) or (batch, units)
    outputs = keras.layers.Dense(features, name="readout")(x)
    if normalize:
        outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    if mask is not None and return_sequences:
        outputs = layers.ApplyMask(name="masked")([outputs, mask])
    return keras.Model(inputs, outputs, name=check_name(name))
