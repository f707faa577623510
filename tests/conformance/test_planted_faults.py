"""The checks of the conformance suite fail where they ought to: models broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import layers, registry
from keras_seqzoo.layers import ApplyMask, Normalization, step_mask
from tests.conformance.references import REFERENCES, reference_identity
from tests.conformance.table import MASKED, NAN, STEPS, TABLE, Row, arguments, build_case, ready
from tests.conformance.test_entries import (
    DROPOUTS,
    check_dropout_is_for_training,
    check_each_row_has_its_own_padding,
    check_gradients,
    check_numerics,
    check_padded_characters_are_invisible,
    check_padding_counts_in_no_loss,
    check_padding_is_invisible,
    check_rows_do_not_affect_each_other,
    check_shapes,
    check_structure,
    check_the_future_does_not_change_the_past,
    padding_of,
)


def mutant(fault: str):
    """An identity model with one fault, through the registry, as any entry."""

    def constructor(*, features: int = 2, units: int = 3, mask_value: float = NAN, name: str = "m"):
        inputs = keras.Input((None, features), name="readings")
        mask = step_mask(inputs, mask_value, name="mask")
        x = ApplyMask(name="real_steps")([inputs, mask])
        if fault == "mask found after scaling":
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
        # Tensors carry their mask along; arithmetic drops it.
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


HEALTHY = Row({}, MASKED, 26, (*STEPS, 2), "the mutant without a fault")
ELMAN = registry.get_entry("simple_rnn_identity").arguments() | {"mask_value": NAN}
CHECKS = {
    "structure": lambda build: check_structure(build, HEALTHY),
    "shapes": lambda build: check_shapes(build, HEALTHY),
    "gradients": check_gradients,
    "padding": lambda build: check_padding_is_invisible(build, NAN),
    "loss": lambda build: check_padding_counts_in_no_loss(build, NAN),
    "rows": check_rows_do_not_affect_each_other,
    "time": check_the_future_does_not_change_the_past,
    "numerics": lambda build: check_numerics(build, reference_identity, ELMAN),
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


def build_mutant(fault: str) -> Callable[[], keras.Model]:
    zoo.register(
        "mutant", mutant(fault), task="identity", summary="Broken on purpose.", causal=True,
        inputs="(batch, time, features)", outputs="(batch, time, features)",
    )  # fmt: skip
    return lambda: ready(zoo.get("mutant"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_model_without_a_fault_passes(check):
    CHECKS[check](build_mutant("none"))


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_is_caught(fault, check):
    with pytest.raises(AssertionError):
        CHECKS[check](build_mutant(fault))


def test_a_mask_found_after_scaling_is_caught():
    build_mutant("mask found after scaling")
    with pytest.raises(AssertionError):
        check_padding_is_invisible(lambda: ready(zoo.get("mutant", mask_value=0.0)), 0.0)


# Faults in the parts of classifiers and taggers, put in the place of a method.


def mean_of_all(self, inputs, mask=None):
    return keras.ops.mean(inputs, axis=1)


def every_token_is_real(self, inputs):
    return keras.ops.ones_like(inputs, "bool")


def forgetful(self, inputs, training=False):
    return keras.ops.where(keras.ops.arange(inputs.shape[1]) % 2 == 0, inputs, 1)


def not_forgetful(self, inputs, training=False):
    return inputs


def shown_padding(self, inputs):
    return keras.ops.max(self.convolution(self.embedding(inputs)), axis=2)


def each_step_for_itself(self, scores, mask=None):
    return keras.ops.cast(keras.ops.argmax(scores, axis=-1), "int32")


def without_mask(method):
    return lambda self, scores, mask=None: method(self, scores)


def loss_of_padding(method):
    return lambda self, scores, tags, mask=None: method(self, scores, tags)


def across_rows(method):
    def call(self, inputs, mask=None):
        x = method(self, inputs, mask=mask)
        return x + 1e-3 * keras.ops.mean(x, axis=0, keepdims=True)

    return call


def of_another_word(method):
    return lambda self, inputs: method(self, keras.ops.flip(inputs, axis=1))


# What takes the place of which method (given the old one, if it is wrapped), in which row, and the
# check that is to notice.
BROKEN_PARTS = {
    "mean over padding": (
        "Pooling.call", mean_of_all, "simple_rnn_classifier nan_padding", "padding",
    ),
    "other rows in the mean": ("Pooling.call", across_rows, "gru_classifier attention", "rows"),
    "attention to all": ("Pooling.call", mean_of_all, "gru_classifier attention", "numerics"),
    "attention untrained": ("Pooling.call", mean_of_all, "gru_classifier attention", "gradients"),
    "padding among tokens": (
        "TokenMask.call", every_token_is_real, "bilstm_tagger tokens", "padding",
    ),
    "padding in a row": (
        "TokenMask.call", every_token_is_real, "gru_classifier attention", "own padding",
    ),
    "padding in the loss": ("TokenMask.call", every_token_is_real, "gru_tagger tokens", "loss"),
    "words forgotten for good": (
        "WordDropout.call", forgetful, "simple_rnn_tagger both_ways", "dropout",
    ),
    "words never forgotten": (
        "WordDropout.call", not_forgetful, "simple_rnn_tagger both_ways", "dropout",
    ),
    "padding among characters": (
        "CharacterCNN.call", shown_padding, "char_bilstm_crf_tagger cnn", "characters",
    ),
    "characters of other words": (
        "CharacterCNN.call", of_another_word, "char_bilstm_crf_tagger cnn", "numerics",
    ),
    "characters read of other words": (
        "CharacterBiLSTM.call", of_another_word, "char_bilstm_crf_tagger bilstm", "numerics",
    ),
    "tags each for itself": (
        "LinearChainCRF.decode", each_step_for_itself, "bilstm_crf_tagger constrained", "numerics",
    ),
    "tags of padding": (
        "LinearChainCRF.decode", without_mask, "bilstm_crf_tagger nan_padding", "padding",
    ),
    "a chance of padding": (
        "LinearChainCRF.marginals", without_mask, "bilstm_crf_tagger nan_padding", "padding",
    ),
    "a loss of padding": (
        "LinearChainCRF.step_losses", loss_of_padding, "bilstm_crf_tagger nan_padding", "loss",
    ),
}  # fmt: skip
WRAPPED = (without_mask, loss_of_padding, across_rows, of_another_word)


def part_checks(name: str, case: str) -> dict[str, Callable[[], None]]:
    build, value = build_case(name, case), padding_of(name, case)
    config = TABLE[name][case].config
    none = {key: 0.0 for key in DROPOUTS if arguments(name, case)[key]}
    return {
        "padding": lambda: check_padding_is_invisible(build, value),
        "own padding": lambda: check_each_row_has_its_own_padding(build, value),
        "loss": lambda: check_padding_counts_in_no_loss(build, value),
        "characters": lambda: check_padded_characters_are_invisible(build),
        "rows": lambda: check_rows_do_not_affect_each_other(build),
        "gradients": lambda: check_gradients(build),
        "numerics": lambda: check_numerics(build, REFERENCES[name], arguments(name, case)),
        "dropout": lambda: check_dropout_is_for_training(
            build, lambda: zoo.get(name, **config | none)
        ),
    }


@pytest.mark.parametrize("fault", BROKEN_PARTS)
def test_a_broken_part_is_caught(fault, monkeypatch):
    place, broken, row, check = BROKEN_PARTS[fault]
    kind, method = getattr(layers, place.split(".")[0]), place.split(".")[1]
    part_checks(*row.split())[check]()
    monkeypatch.setattr(
        kind, method, broken(getattr(kind, method)) if broken in WRAPPED else broken
    )
    with pytest.raises(AssertionError):
        part_checks(*row.split())[check]()
