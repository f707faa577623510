"""The identity family: models that output their input, independent of earlier steps."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.models.blocks import readings_input
from keras_seqzoo.models.identifiers import accepts_numpy_scalars, check_name, from_identifier
from keras_seqzoo.utils.argument_validation import check_bool, check_size


@accepts_numpy_scalars
def simple_rnn_identity(
    *,
    features: int = 1,
    units: int = 8,
    return_sequences: bool = True,
    activation: Any = "tanh",
    recurrent_regularizer: Any = None,
    kernel_regularizer: Any = None,
    recurrent_initializer: Any = "orthogonal",
    normalize: bool = True,
    mask_value: float | None = None,
    time: int | None = None,
    name: str = "simple_rnn_identity",
) -> keras.Model:
    """One SimpleRNN layer and a linear read-out, to be trained with its input as the target.

    The recurrent kernel makes the output depend on earlier steps. `keras_seqzoo.leakage` measures
    this dependence, and `recurrent_regularizer` reduces it. With `normalize`, input and output are
    in the units of the readings, and scaled inside the model, by statistics that
    `keras_seqzoo.adapt(model, x_train)` sets.

    Shapes: `(batch, time, features)` -> `(batch, time, features)`; with `return_sequences=False`,
        `(batch, features)`, the last real step.
    Masking: steps equal to `mask_value` in every feature are padding: they do not change other
        steps, their outputs are 0, and losses leave them out.
    State: none kept between calls.

    Args:
        features: int, at least 1, readings per step.
        units: int, at least 1, size of the recurrent state.
        return_sequences: bool, whether to output every step, or the last real one alone.
        activation: Keras activation of the recurrent layer, or None for a linear one.
        recurrent_regularizer: Keras regularizer of the recurrent kernel: "l1", "l2", "l1_l2", a
            config, a `Regularizer`, or None.
        kernel_regularizer: Keras regularizer of the input kernel, or None.
        recurrent_initializer: Keras initializer of the recurrent kernel; with "zeros", training
            starts from a model without memory.
        normalize: bool, whether to scale each feature of the input, and the output back.
        mask_value: number that fills padded steps, NaN included, or None for no padding.
        time: int, at least 1, to fix the number of steps, or None for any number.
        name: str, name of the model.

    Returns:
        A Functional `keras.Model`, uncompiled.

    Raises:
        ArgumentError: if an argument is out of range.

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
        activation=from_identifier(keras.activations, activation=activation),
        recurrent_initializer=from_identifier(
            keras.initializers, recurrent_initializer=recurrent_initializer
        ),
        recurrent_regularizer=from_identifier(
            keras.regularizers, recurrent_regularizer=recurrent_regularizer
        ),
        kernel_regularizer=from_identifier(
            keras.regularizers, kernel_regularizer=kernel_regularizer
        ),
        return_sequences=return_sequences,
        name="recurrent",
    )(x, mask=mask)  # (batch, time, units) or (batch, units)
    outputs = keras.layers.Dense(features, name="readout")(x)
    if normalize:
        outputs = layers.Normalization(invert=True, name="unscale")(outputs)
    if mask is not None and return_sequences:
        outputs = layers.ApplyMask(name="masked")([outputs, mask])
    return keras.Model(inputs, outputs, name=check_name(name))
