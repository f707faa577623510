"""The checks of the conformance suite fail on models that are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import layers, registry
from keras_seqzoo.layers import ApplyMask, Normalization, step_mask
from tests.conformance.references import REFERENCES, reference_identity
from tests.conformance.table import MASKED, NAN, STEPS, TABLE, Row, arguments, build_case, prepare
from tests.conformance.test_entries import (
    DROPOUTS,
    check_causality,
    check_dropout_in_training_only,
    check_each_row_has_its_own_padding,
    check_gradients,
    check_numerics,
    check_padded_characters_are_invisible,
    check_padding_has_no_loss,
    check_padding_is_invisible,
    check_rows_do_not_affect_each_other,
    check_shapes,
    check_structure,
    padding_of,
)

pytestmark = pytest.mark.slow


def make_constructor(fault: str):
    """The constructor of an identity model with one fault."""

    def constructor(*, features: int = 2, units: int = 3, mask_value: float = NAN, name: str = "m"):
        inputs = keras.Input((None, features), name="readings")
        mask = step_mask(inputs, mask_value, name="mask")
        x = ApplyMask(name="real_steps")([inputs, mask])
        if fault == "mask computed after scaling":
            x = Normalization(name="scale")(inputs)
            mask = step_mask(x, mask_value, name="mask")
            x = ApplyMask(name="real_steps")([x, mask])
        else:
            x = Normalization(name="scale")(x)
        if fault == "rows mixed":
            x = x - keras.ops.mean(x, axis=0, keepdims=True)
        if fault == "look-ahead":
            x = x + 0.1 * keras.ops.flip(x, axis=1)
        if fault == "future of the next step":
            x = x + 1e-3 * keras.ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
        activation = "sigmoid" if fault == "another activation" else "tanh"
        rnn = keras.layers.SimpleRNN(
            units, activation, return_sequences=True, name="recurrent",
            go_backwards=fault == "time reversed", use_bias=fault != "no bias",
        )  # fmt: skip
        # Keras attaches the mask to the tensor; arithmetic drops it.
        y = rnn(x + 0.0) if fault == "mask dropped" else rnn(x, mask=mask)
        if fault == "dead weights":
            y = keras.layers.Dense(units, name="cut")(y) * 0.0 + y
        if fault != "layer left out":
            y = keras.layers.Dense(features, name="readout")(y)
        else:
            y = y[..., :features]
        y = Normalization(invert=True, name="unscale")(y)
        y = y + 0.0 if fault == "padding not zeroed" else ApplyMask(name="masked")([y, mask])
        return keras.Model(inputs, y, name=name)

    return constructor


CORRECT = Row({}, MASKED, 26, (*STEPS, 2), "the model without a fault")
IDENTITY_ARGUMENTS = registry.get_entry("simple_rnn_identity").arguments() | {"mask_value": NAN}
CHECKS = {
    "structure": lambda build: check_structure(build, CORRECT),
    "shapes": lambda build: check_shapes(build, CORRECT),
    "gradients": check_gradients,
    "padding": lambda build: check_padding_is_invisible(build, NAN),
    "loss": lambda build: check_padding_has_no_loss(build, NAN),
    "rows": check_rows_do_not_affect_each_other,
    "time": check_causality,
    "numerics": lambda build: check_numerics(build, reference_identity, IDENTITY_ARGUMENTS),
}
FAULTS = [
    ("mask dropped", "padding"),
    ("padding not zeroed", "padding"),
    ("padding not zeroed", "loss"),
    ("rows mixed", "rows"),
    ("layer left out", "structure"),
    ("no bias", "structure"),
    ("dead weights", "gradients"),
    ("look-ahead", "time"),
    ("future of the next step", "time"),
    ("time reversed", "time"),
    ("another activation", "numerics"),
    ("future of the next step", "numerics"),
]


def register_mutant(fault: str) -> Callable[[], keras.Model]:
    """Register the model as an entry, and return a function that builds it."""
    zoo.register(
        "mutant", make_constructor(fault), task="identity", summary="Broken on purpose.",
        causal=True, inputs="(batch, time, features)", outputs="(batch, time, features)",
    )  # fmt: skip
    return lambda: prepare(zoo.get("mutant"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_correct_model_passes(check):
    CHECKS[check](register_mutant("none"))


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_fails_its_check(fault, check):
    with pytest.raises(AssertionError):
        CHECKS[check](register_mutant(fault))


def test_a_mask_computed_after_scaling_fails_the_padding_check():
    register_mutant("mask computed after scaling")
    with pytest.raises(AssertionError):
        check_padding_is_invisible(lambda: prepare(zoo.get("mutant", mask_value=0.0)), 0.0)


# Broken methods of the layers of classifiers and taggers.


def mean_over_padding(self, inputs, mask=None):
    return keras.ops.mean(inputs, axis=1)


def mask_of_ones(self, inputs):
    return keras.ops.ones_like(inputs, "bool")


def dropout_in_inference(self, inputs, training=False):
    return keras.ops.where(keras.ops.arange(inputs.shape[1]) % 2 == 0, inputs, 1)


def no_dropout(self, inputs, training=False):
    return inputs


def unmasked_characters(self, inputs):
    return keras.ops.max(self.convolution(self.embedding(inputs)), axis=2)


def decode_without_transitions(self, scores, mask=None):
    return keras.ops.cast(keras.ops.argmax(scores, axis=-1), "int32")


def without_mask(method):
    return lambda self, scores, mask=None: method(self, scores)


def loss_without_mask(method):
    return lambda self, scores, tags, mask=None: method(self, scores, tags)


def mix_rows(method):
    def call(self, inputs, mask=None):
        x = method(self, inputs, mask=mask)
        return x + 1e-3 * keras.ops.mean(x, axis=0, keepdims=True)

    return call


def reverse_words(method):
    return lambda self, inputs: method(self, keras.ops.flip(inputs, axis=1))


# Method, its broken version (a wrapper, if it is in WRAPPERS), case of the table, and the check
# that must fail.
BROKEN_LAYERS = {
    "mean over padding": (
        "Pooling.call", mean_over_padding, "simple_rnn_classifier nan_padding", "padding",
    ),
    "pooling mixes rows": ("Pooling.call", mix_rows, "gru_classifier attention", "rows"),
    "uniform attention weights": (
        "Pooling.call", mean_over_padding, "gru_classifier attention", "numerics",
    ),
    "attention without gradient": (
        "Pooling.call", mean_over_padding, "gru_classifier attention", "gradients",
    ),
    "no token mask": ("TokenMask.call", mask_of_ones, "bilstm_tagger tokens", "padding"),
    "no token mask for unequal lengths": (
        "TokenMask.call", mask_of_ones, "gru_classifier attention", "own padding",
    ),
    "no token mask in the loss": ("TokenMask.call", mask_of_ones, "gru_tagger tokens", "loss"),
    "word dropout in inference": (
        "WordDropout.call", dropout_in_inference, "simple_rnn_tagger bidirectional", "dropout",
    ),
    "no word dropout": (
        "WordDropout.call", no_dropout, "simple_rnn_tagger bidirectional", "dropout",
    ),
    "no character mask": (
        "CharacterCNN.call", unmasked_characters, "char_bilstm_crf_tagger cnn", "characters",
    ),
    "characters of other words, CNN": (
        "CharacterCNN.call", reverse_words, "char_bilstm_crf_tagger cnn", "numerics",
    ),
    "characters of other words, BiLSTM": (
        "CharacterBiLSTM.call", reverse_words, "char_bilstm_crf_tagger bilstm", "numerics",
    ),
    "decoding without transitions": (
        "LinearChainCRF.decode", decode_without_transitions, "bilstm_crf_tagger constrained",
        "numerics",
    ),
    "decoding without mask": (
        "LinearChainCRF.decode", without_mask, "bilstm_crf_tagger nan_padding", "padding",
    ),
    "marginals without mask": (
        "LinearChainCRF.marginals", without_mask, "bilstm_crf_tagger nan_padding", "padding",
    ),
    "loss without mask": (
        "LinearChainCRF.step_losses", loss_without_mask, "bilstm_crf_tagger nan_padding", "loss",
    ),
}  # fmt: skip
WRAPPERS = (without_mask, loss_without_mask, mix_rows, reverse_words)


def checks_of(name: str, case: str) -> dict[str, Callable[[], None]]:
    """The checks of a case, by name."""
    build, value = build_case(name, case), padding_of(name, case)
    config = TABLE[name][case].config
    none = {key: 0.0 for key in DROPOUTS if arguments(name, case)[key]}
    return {
        "padding": lambda: check_padding_is_invisible(build, value),
        "own padding": lambda: check_each_row_has_its_own_padding(build, value),
        "loss": lambda: check_padding_has_no_loss(build, value),
        "characters": lambda: check_padded_characters_are_invisible(build),
        "rows": lambda: check_rows_do_not_affect_each_other(build),
        "gradients": lambda: check_gradients(build),
        "numerics": lambda: check_numerics(build, REFERENCES[name], arguments(name, case)),
        "dropout": lambda: check_dropout_in_training_only(
            build, lambda: zoo.get(name, **config | none)
        ),
    }


@pytest.mark.parametrize("fault", BROKEN_LAYERS)
def test_a_broken_layer_fails_its_check(fault, monkeypatch):
    target, broken, case, check = BROKEN_LAYERS[fault]
    layer, method = getattr(layers, target.split(".")[0]), target.split(".")[1]
    checks_of(*case.split())[check]()
    if broken in WRAPPERS:
        broken = broken(getattr(layer, method))
    monkeypatch.setattr(layer, method, broken)
    with pytest.raises(AssertionError):
        checks_of(*case.split())[check]()
