"""Configurations and expected structure of every entry, for the conformance suite.

`TABLE` has a row for each configuration. Inputs are tuples of arrays, one for each input of the
model.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_seqzoo as zoo
from keras_seqzoo import registry
from keras_seqzoo.layers import CRFModel, Normalization, bio_constraints

NAN = float("nan")
Inputs = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration of an entry and the expected structure of its model."""

    config: dict[str, Any]
    layers: str  # layer names; Functional silently drops a layer that is not connected
    parameters: int  # number of trainable parameters
    shape: tuple[Any, ...]  # of the output
    why: str


STEPS = ("batch", "time")
PLAIN = "readings scale recurrent readout unscale"
LAST = "readings mask real_steps scale recurrent readout unscale"
MASKED = f"{LAST} masked"
SCALED = "readings mask real_steps scale"
BIO = bio_constraints(["O", "B-x", "I-x"])
SMALL = {"features": 2, "units": 3}
TOKENS = {"vocabulary_size": 11, "embedding_dim": 6, "units": 5}
# For entries with dropout by default.
NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0}
CHARACTERS = TOKENS | {
    "character_vocabulary_size": 7, "character_embedding_dim": 4, "character_units": 3,
}  # fmt: skip
SMALL_CODE = SMALL | {"code_size": 2}
TOKEN_CODE = TOKENS | {"code_size": 3}
TOKEN_PAIR = {"source_vocabulary_size": 11, "target_vocabulary_size": 7, "embedding_dim": 6}

TABLE = {
    "simple_rnn_identity": {
        "default": Row({}, PLAIN, 89, (*STEPS, 1), "no arguments"),
        "wide_input": Row(
            {"features": 3, "units": 5}, PLAIN, 63, (*STEPS, 3),
            "sizes different from each other and from the defaults",
        ),
        "nan_padding": Row(
            SMALL | {"mask_value": NAN}, MASKED, 26, (*STEPS, 2),
            "NaN does not equal itself",
        ),
        "zero_padding": Row(
            SMALL | {"mask_value": 0.0}, MASKED, 26, (*STEPS, 2),
            "the mask is computed before the scaling, which moves 0",
        ),
        "last_step": Row(
            SMALL | {"mask_value": NAN, "return_sequences": False},
            LAST, 26, ("batch", 2), "the last real step, not the last padded one",
        ),
        "raw": Row(
            SMALL | {"normalize": False}, "readings recurrent readout", 26, (*STEPS, 2),
            "no scaling",
        ),
        "linear": Row(
            SMALL | {"activation": None}, PLAIN, 26, (*STEPS, 2),
            "None is the linear activation, not the default",
        ),
        "regularized": Row(
            SMALL | {"recurrent_regularizer": "l1_l2"}, PLAIN, 26, (*STEPS, 2),
            "a regularizer changes the loss, not the output",
        ),
    },
    "simple_rnn_classifier": {
        "default": Row(
            {}, "readings scale recurrent_1 classes", 4354, ("batch", 2), "no arguments",
        ),
        "wide_input": Row(
            {"features": 3, "units": 5, "classes": 4}, "readings scale recurrent_1 classes",
            69, ("batch", 4), "different sizes",
        ),
        "nan_padding": Row(
            SMALL | {"classes": 3, "mask_value": NAN, "pooling": "mean"},
            f"{SCALED} recurrent_1 pooling classes", 30, ("batch", 3), "the mean of real steps",
        ),
        "bidirectional": Row(
            TOKENS | {"bidirectional": True, "pooling": "max"},
            "tokens embedding mask both_ways_1 pooling classes", 208, ("batch", 2),
            "the maximum over real steps in both directions",
        ),
    },
    "gru_classifier": {
        "default": Row(
            {}, "readings scale recurrent_1 classes", 12994, ("batch", 2), "no arguments",
        ),
        "zero_padding": Row(
            SMALL | {"classes": 3, "mask_value": 0.0}, f"{SCALED} recurrent_1 classes",
            75, ("batch", 3), "the state after the last real step",
        ),
        "attention": Row(
            TOKENS | {"classes": 3, "num_layers": 2, "pooling": "attention"},
            "tokens embedding mask recurrent_1 recurrent_2 pooling classes", 494, ("batch", 3),
            "attention weights of real steps",
        ),
        "logits": Row(
            SMALL | {"classifier_activation": None, "normalize": False,
                     "recurrent_regularizer": "l2"},
            "readings recurrent_1 classes", 71, ("batch", 2), "logits without scaling",
        ),
    },
    "bilstm_classifier": {
        "default": Row(
            {}, "readings scale input_dropout both_ways_1 dropout_1 pooling classes", 50690,
            ("batch", 2),
            "no arguments",
        ),
        "nan_padding": Row(
            SMALL | {"classes": 3, "mask_value": NAN, "pooling": "last"},
            f"{SCALED} input_dropout both_ways_1 dropout_1 classes",
            165, ("batch", 3), "the last real step and, backward, the first",
        ),
        "deep": Row(
            TOKENS | NO_DROPOUT | {"num_layers": 2, "pooling": "mean"},
            "tokens embedding mask both_ways_1 both_ways_2 pooling classes", 1208, ("batch", 2),
            "the second layer has both directions of the first as input",
        ),
    },
    "simple_rnn_tagger": {
        "default": Row({}, "readings scale recurrent_1 tags", 4354, (*STEPS, 2), "no arguments"),
        "nan_padding": Row(
            SMALL | {"classes": 4, "mask_value": NAN}, f"{SCALED} recurrent_1 tags masked",
            34, (*STEPS, 4), "padded steps leave the state unchanged",
        ),
        "bidirectional": Row(
            TOKENS | {"bidirectional": True, "word_dropout": 0.8},
            "tokens word_dropout embedding mask both_ways_1 tags masked", 208, (*STEPS, 2),
            "word dropout in training alone",
        ),
    },
    "gru_tagger": {
        "default": Row({}, "readings scale recurrent_1 tags", 12994, (*STEPS, 2), "no arguments"),
        "wide_input": Row(
            {"features": 3, "units": 5, "classes": 4}, "readings scale recurrent_1 tags",
            174, (*STEPS, 4), "different sizes",
        ),
        "tokens": Row(
            TOKENS | {"classes": 3, "num_layers": 2, "dropout": 0.4},
            "tokens embedding mask recurrent_1 dropout_1 recurrent_2 dropout_2 tags masked",
            459, (*STEPS, 3), "token 0 is padding",
        ),
        "logits": Row(
            SMALL | {"classifier_activation": None, "mask_value": 0.0,
                     "recurrent_regularizer": "l1"},
            f"{SCALED} recurrent_1 tags masked", 71, (*STEPS, 2), "logits",
        ),
    },
    "bilstm_tagger": {
        "default": Row(
            {}, "readings scale input_dropout both_ways_1 dropout_1 tags", 82002, (*STEPS, 2),
            "no arguments",
        ),
        "nan_padding": Row(
            SMALL | {"classes": 3, "mask_value": NAN, "num_layers": 2},
            f"{SCALED} input_dropout both_ways_1 dropout_1 both_ways_2 dropout_2 tags masked",
            405, (*STEPS, 3), "padding on both sides, in both directions",
        ),
        "tokens": Row(
            TOKENS | {"classes": 3},
            "tokens embedding input_dropout mask both_ways_1 dropout_1 tags masked",
            579, (*STEPS, 3), "dropout on embeddings",
        ),
    },
    "bilstm_crf_tagger": {
        "default": Row(
            {}, "readings scale input_dropout both_ways_1 dropout_1 scores crf", 82010, STEPS,
            "no arguments",
        ),
        "nan_padding": Row(
            SMALL | {"classes": 4, "mask_value": NAN},
            f"{SCALED} input_dropout both_ways_1 dropout_1 scores crf",
            196, STEPS, "transitions skip padded steps",
        ),
        "constrained": Row(
            TOKENS | NO_DROPOUT | {"classes": 3, "num_layers": 2, "constraints": BIO},
            "tokens embedding mask both_ways_1 both_ways_2 scores crf",
            1234, STEPS, "no I- tag without a B- tag",
        ),
    },
    "char_bilstm_crf_tagger": {
        "default": Row(
            {},
            "tokens word_dropout characters embedding spelling word_and_characters input_dropout "
            "mask both_ways_1 dropout_1 scores crf",
            1_207_510, STEPS, "no arguments",
        ),
        "cnn": Row(
            CHARACTERS | {"classes": 3},
            "tokens word_dropout characters embedding spelling word_and_characters input_dropout "
            "mask both_ways_1 dropout_1 scores crf",
            781, STEPS, "convolutional character encoder",
        ),
        "bilstm": Row(
            CHARACTERS | NO_DROPOUT | {"classes": 4, "character_encoder": "bilstm",
                                       "word_dropout": 0.0},
            "tokens characters embedding spelling word_and_characters mask both_ways_1 scores crf",
            1074, STEPS, "bidirectional character encoder",
        ),
    },
    "gru_forecaster": {
        "default": Row(
            {}, "readings scale recurrent_1 readout unscale", 12929, (*STEPS, 1), "no arguments",
        ),
        "nan_padding": Row(
            SMALL | {"mask_value": NAN, "num_layers": 2},
            f"{SCALED} recurrent_1 recurrent_2 readout unscale masked",
            143, (*STEPS, 2), "output in raw units, 0 at padding",
        ),
        "raw": Row(
            SMALL | {"normalize": False, "dropout": 0.3},
            "readings recurrent_1 dropout_1 readout", 71, (*STEPS, 2), "no scaling",
        ),
    },
    "simple_rnn_encoder_decoder": {
        "default": Row(
            {}, "source scale target recurrent_1 target_scale initial_1 decoder readout unscale",
            198145, (*STEPS, 1), "no arguments",
        ),
        "tokens": Row(
            TOKEN_PAIR | {"units": 5},
            "source embedding mask target recurrent_1 target_embedding initial_1 decoder scores "
            "probabilities target_mask masked",
            300, (*STEPS, 7), "tokens as source and target",
        ),
    },
    "gru_encoder_decoder": {
        "default": Row(
            {}, "source scale target recurrent_1 target_scale initial_1 decoder readout unscale",
            463873, (*STEPS, 1), "no arguments",
        ),
        "tied": Row(
            TOKEN_PAIR | {"units": 5, "num_layers": 2, "tied_embeddings": True,
                          "recurrent_regularizer": "l2"},
            "source embedding mask recurrent_1 target recurrent_2 target_embedding initial_1 "
            "initial_2 decoder to_embedding probabilities target_mask masked",
            954, (*STEPS, 7), "logits by the target embedding",
        ),
    },
    "attention_gru_encoder_decoder": {
        "default": Row(
            {},
            "source scale source_dropout both_ways_1 target dropout_1 target_scale summary "
            "target_dropout initial_1 decoder decoder_dropout readout unscale",
            1056257, (*STEPS, 1), "no arguments",
        ),
        "tokens": Row(
            TOKEN_PAIR | {"units": 5},
            "source embedding source_dropout mask both_ways_1 target dropout_1 target_embedding "
            "summary target_dropout initial_1 decoder decoder_dropout scores probabilities "
            "target_mask masked",
            920, (*STEPS, 7), "attention after each step, bidirectional memory",
        ),
        "additive": Row(
            TOKEN_PAIR | NO_DROPOUT | {"units": 5, "attention": "additive", "num_layers": 2},
            "source embedding mask both_ways_1 both_ways_2 target summary target_embedding "
            "initial_1 initial_2 decoder scores probabilities target_mask masked",
            1880, (*STEPS, 7),
            "attention before each step, queried by the state of the upper layer",
        ),
        "input_feeding": Row(
            TOKEN_PAIR | NO_DROPOUT | {"units": 4, "attention": "multi_head", "num_heads": 2,
                           "input_feeding": True},
            "source embedding mask both_ways_1 target summary target_embedding initial_1 decoder "
            "scores probabilities target_mask masked",
            823, (*STEPS, 7), "the output of a step is an input of the next",
        ),
    },
    "attention_lstm_encoder_decoder": {
        "default": Row(
            {},
            "source scale source_dropout both_ways_1 target dropout_1 target_scale summary "
            "target_dropout initial_1 initial_2 decoder decoder_dropout readout unscale",
            1383425, (*STEPS, 1), "no arguments",
        ),
        "dot": Row(
            TOKEN_PAIR | NO_DROPOUT | {"units": 4, "attention": "dot", "bidirectional": False,
                           "scheduled_sampling": 0.3},
            "source embedding mask target recurrent_1 scheduled_sampling summary target_embedding "
            "initial_1 initial_2 decoder scores probabilities target_mask masked",
            571, (*STEPS, 7), "both LSTM states, memory of the decoder's width",
        ),
    },
    "vector_encoder_decoder": {
        "default": Row(
            {},
            "source target scale scheduled_sampling recurrent_1 target_scale initial_1 "
            "decoder readout unscale",
            29953, (*STEPS, 1), "no arguments",
        ),
        "nan_padding": Row(
            {"source_features": 2, "target_features": 3, "units": 4, "mask_value": NAN},
            "source mask real_steps target scale scheduled_sampling recurrent_1 target_scale "
            "initial_1 decoder readout unscale",
            239, (*STEPS, 3), "different features of source and target, padded sources",
        ),
        "raw": Row(
            {"source_features": 2, "target_features": 2, "units": 4, "normalize": False,
             "attention": "general"},
            "source recurrent_1 target summary scheduled_sampling initial_1 decoder readout",
            274, (*STEPS, 2), "no scaling",
        ),
    },
    "linear_rnn_autoencoder": {
        "default": Row(
            {}, "readings scale recurrent_1 last_state code decoder unscale", 3179,
            ("batch", 1), "no arguments",
        ),
        "nan_padding": Row(
            SMALL_CODE | {"mask_value": NAN},
            f"{SCALED} recurrent_1 last_state code decoder unscale",
            61, ("batch", 2), "reconstructs the last real step",
        ),
    },
    "lstm_autoencoder": {
        "default": Row(
            {}, "readings scale recurrent_1 last_state code all_steps decoder unscale masked",
            161_697, (*STEPS, 1), "no arguments",
        ),
        "reversed": Row(
            SMALL_CODE | {"mask_value": NAN, "decoder": "reversed"},
            f"{SCALED} recurrent_1 last_state code decoder unscale masked",
            178, (*STEPS, 2), "decodes the last real step first",
        ),
    },
    "gru_autoencoder": {
        "default": Row(
            {}, "readings scale recurrent_1 last_state code all_steps decoder unscale masked",
            120_993, (*STEPS, 1), "no arguments",
        ),
        "teacher_forced": Row(
            SMALL_CODE | {"mask_value": NAN, "decoder": "teacher_forced"},
            f"{SCALED} recurrent_1 last_state code decoder unscale masked",
            169, (*STEPS, 2), "the input is the true reading of the previous real step",
        ),
        "raw": Row(
            SMALL_CODE | {"cell": "simple_rnn", "normalize": False, "num_layers": 2, "dropout": 0.4,
                   "recurrent_regularizer": "l2"},
            "readings recurrent_1 dropout_1 recurrent_2 dropout_2 last_state code all_steps "
            "decoder masked",
            112, (*STEPS, 2), "dropout, no scaling",
        ),
    },
    "attention_autoencoder": {
        "default": Row(
            {}, "readings scale both_ways_1 last_state code all_steps decoder unscale masked",
            65_233, (*STEPS, 1), "no arguments",
        ),
        "additive": Row(
            TOKEN_CODE | {"attention": "additive", "decoder": "teacher_forced",
                          "cell": "simple_rnn"},
            "tokens embedding mask both_ways_1 last_state code decoder masked",
            690, (*STEPS, 11), "attention before each step, in a masked loop",
        ),
        "dot": Row(
            TOKEN_CODE | {"attention": "dot", "decoder": "free_running", "cell": "lstm",
                          "num_layers": 2, "bidirectional": False},
            "tokens embedding mask recurrent_1 recurrent_2 last_state code decoder masked",
            1365, (*STEPS, 11), "the attended context decides the output that is fed back",
        ),
        "multi_head": Row(
            SMALL_CODE | {"units": 4, "attention": "multi_head", "num_heads": 2,
                          "decoder": "reversed", "mask_value": NAN},
            f"{SCALED} both_ways_1 last_state code decoder unscale masked",
            492, (*STEPS, 2), "the memory keeps its order",
        ),
    },
}  # fmt: skip
CASES = [(name, case) for name, rows in TABLE.items() for case in rows]


def select(wanted: Callable[[dict[str, Any], Row], bool]) -> list[tuple[str, str]]:
    """The cases for which `wanted(arguments, row)` holds."""
    return [
        (name, case) for name, case in CASES if wanted(arguments(name, case), TABLE[name][case])
    ]


def arguments(name: str, case: str) -> dict[str, Any]:
    """All constructor arguments of a case: the entry's defaults and the row's."""
    return registry.get_entry(name).arguments() | TABLE[name][case].config


# ---------------------------------------------------------------------------------------- inputs


def readings(rows: int, steps: int, features: int, seed: int = 0) -> np.ndarray:
    """Raw readings without zeros: features are alternately in 1..15 and 20..110."""
    rng = np.random.default_rng(seed)
    low, high = np.array([1.0, 20.0]), np.array([15.0, 110.0])
    odd = np.arange(features) % 2
    return rng.uniform(low[odd], high[odd], (rows, steps, features)).astype("float32")


def make_inputs(model: keras.Model, rows: int, steps: int, seed: int = 0) -> Inputs:
    """Arrays without padded steps for each input; a token has 0 to 5 characters."""
    rng = np.random.default_rng(seed)
    inputs = []
    for index, tensor in enumerate(model.inputs):
        if "int" not in tensor.dtype:
            inputs.append(readings(rows, steps, tensor.shape[-1], seed + 50 * index))
        elif len(tensor.shape) == 2:
            name = "target_embedding" if tensor.name == "target" else "embedding"
            size = model.get_layer(name).input_dim
            inputs.append(rng.integers(1, size, (rows, steps)).astype("int32"))
        else:
            size = model.get_layer("spelling").vocabulary_size
            characters = rng.integers(1, size, (rows, steps, 5)).astype("int32")
            inputs.append(characters * (np.arange(5) < rng.integers(0, 6, (rows, steps, 1))))
    return tuple(inputs)


def take_rows(x: Inputs, rows: Any) -> Inputs:
    return tuple(part[rows] for part in x)


def join_rows(*parts: Inputs) -> Inputs:
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def pad(x: Inputs, left: int, right: int, value: float) -> Inputs:
    """Add padded steps on both sides: `value` in readings, 0 in tokens and characters."""
    return tuple(
        np.pad(
            part, ((0, 0), (left, right), *((0, 0),) * (part.ndim - 2)),
            constant_values=0 if part.dtype.kind == "i" else value,
        )
        for part in x
    )  # fmt: skip


# ------------------------------------------------------------------------- models and predictions


def is_pair(config: dict[str, Any]) -> bool:
    """Whether arguments are of an encoder-decoder, whose inputs are source and target."""
    return "target_features" in config


def adapt(model: keras.Model, x: Inputs) -> None:
    """Adapt the scaling to the first input, and that of an encoder-decoder also to its target."""
    targets = [t for t in model.inputs if t.name == "target" and "float" in t.dtype]
    zoo.adapt(model, x[0], **({"target": x[1]} if targets else {}))


def prepare(model: keras.Model, seed: int = 1) -> keras.Model:
    """Adapt a model to readings, and set all weights, biases too, to different random values."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        # Wide layers get smaller weights: chaotic states would amplify the round-off of float32.
        size = 1.0 if "embedding" in weight.path else min(1.0, (8 / weight.shape[0]) ** 0.5)
        weight.assign(0.5 * size * rng.normal(size=weight.shape))
    if any(isinstance(layer, Normalization) for layer in model.layers):
        adapt(model, tuple(readings(64, 20, t.shape[-1] or 1, seed=2) for t in model.inputs))
    elif "float" in model.inputs[0].dtype:
        kernel = model.trainable_weights[0]
        kernel.assign(kernel / 100)  # raw readings would saturate the activation
    return model


def build_case(name: str, case: str) -> Callable[[], keras.Model]:
    """A function that returns a new model of a case, the same weights in every call."""
    return lambda: prepare(zoo.get(name, **TABLE[name][case].config))


@functools.cache
def _cached_model(name: str, case: str) -> keras.Model:
    return build_case(name, case)()


def cached_case(name: str, case: str) -> Callable[[], keras.Model]:
    """`build_case` with one model for all tests, which must not change its weights."""
    return lambda: _cached_model(name, case)


def model_input(x: Inputs) -> Any:
    """The argument of a model call: an array, or a list of several."""
    return x[0] if len(x) == 1 else list(x)


def output(model: keras.Model, x: Inputs, *, training: bool = False) -> np.ndarray:
    return np.asarray(model(model_input(x), training=training))


def crf_inputs(model: keras.Model, x: Inputs, *, training: bool = False):
    """The scores and the mask (or None) that a CRF layer gets."""
    scores = model.get_layer("scores").output
    if all(layer.name != "mask" for layer in model.layers):
        return keras.Model(model.input, scores)(model_input(x), training=training), None
    wanted = [scores, model.get_layer("mask").output]
    return keras.Model(model.input, wanted)(model_input(x), training=training)


def predict(model: keras.Model, x: Inputs) -> np.ndarray:
    """The output of the model; of a CRF the tags and, along the last axis, their marginals."""
    outputs = output(model, x)
    if not isinstance(model, CRFModel):
        return outputs
    marginals = np.asarray(model.get_layer("crf").marginals(*crf_inputs(model, x)))
    return np.concatenate([outputs[..., None], marginals], axis=-1)


def assert_close(actual, expected, rtol: float = 1e-5) -> None:
    """Assert equality within `rtol` of the largest expected value of each feature."""
    size = np.abs(expected).max(axis=tuple(range(expected.ndim - 1)))
    size = np.where(size > 0, size, 1)
    np.testing.assert_allclose(actual / size, expected / size, rtol=0, atol=rtol)
