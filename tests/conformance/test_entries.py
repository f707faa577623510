"""Conformance suite: properties that every entry of the catalog has in every configuration.

A check is a function of `build`, which returns a model with random, different weights: a new one,
or, for checks that do not train, one that all tests of the case share.
test_planted_faults.py shows that the checks fail on models that are broken on purpose.
"""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seqzoo as zoo
from keras_seqzoo import layers
from keras_seqzoo.layers import (
    CRFModel,
    EncoderDecoderModel,
    NormalizedMeanSquaredError,
)
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.registry import catalog
from tests.conformance.references import REFERENCES
from tests.conformance.table import (
    CASES,
    TABLE,
    Inputs,
    Row,
    adapt,
    arguments,
    assert_close,
    build_case,
    cached_case,
    crf_inputs,
    is_pair,
    join_rows,
    make_inputs,
    model_input,
    output,
    pad,
    predict,
    readings,
    select,
    take_rows,
)
from tests.helpers.marks import slow_except_default
from tests.helpers.weight_gradients import weight_gradients

every_case = pytest.mark.parametrize(("name", "case"), slow_except_default(CASES))


def cases_where(wanted) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "case"), slow_except_default(select(wanted)))


def takes_tokens(config) -> bool:
    return any(config.get(f"{side}vocabulary_size") is not None for side in ("", "source_"))


def padding_of(name: str, case: str) -> float:
    return TABLE[name][case].config.get("mask_value", 0)


def is_masked(config, row) -> bool:
    return takes_tokens(config) or "mask_value" in row.config


every_masked_case = cases_where(lambda config, row: is_masked(config, row) and not is_pair(config))
every_masked_pair = cases_where(lambda config, row: is_masked(config, row) and is_pair(config))
every_pair = cases_where(lambda config, row: is_pair(config))
every_scaled_case = cases_where(
    lambda config, row: not (takes_tokens(config) or is_pair(config)) and config["normalize"]
)
# Models whose outputs are in raw units.
every_raw_unit_case = cases_where(
    lambda config, row: "unscale" in row.layers and not is_pair(config)
)
# The same, and one row of each other scaled entry: each case compiles a program.
some_scaled_cases = cases_where(
    lambda config, row: (
        "scale" in row.layers.split()
        and ("unscale" in row.layers or not row.config)
        and not is_pair(config)
    )
)

# ------------------------------------------------------------------------------------ adaptation


def statistics(model: keras.Model, layer: str = "scale") -> tuple[np.ndarray, np.ndarray]:
    mean, variance, _ = model.get_layer(layer).get_weights()
    return mean, variance


@every_scaled_case
def test_adapt_uses_every_real_step_and_no_padded_step(name, case):
    config = TABLE[name][case].config
    model = zoo.get(name, **config)
    x = readings(5, 12, model.input_shape[-1])
    real = np.ones(x.shape[:2], bool)
    for row, length in enumerate((12, 3, 7, 1, 10)):
        real[row, length:] = False
    with_padding = x.copy()
    with_padding[~real] = config.get("mask_value", 1e6)
    zoo.adapt(model, with_padding, mask=None if "mask_value" in config else real)
    for layer in {"scale", "unscale"} & set(TABLE[name][case].layers.split()):
        mean, variance = statistics(model, layer)
        np.testing.assert_allclose(mean, x[real].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(variance, x[real].var(axis=0), rtol=1e-5)


@every_scaled_case
@pytest.mark.slow
def test_training_warns_until_the_scaling_is_adapted(name, case):
    def train(adapted: bool) -> None:
        model = zoo.get(name, **TABLE[name][case].config)
        x = make_inputs(model, 4, 5)
        if adapted:
            zoo.adapt(model, *x)
        model.compile("sgd", loss_of(model), run_eagerly=True)
        model.train_on_batch(model_input(x), targets(model, x))

    with pytest.warns(UserWarning, match="never adapted.*keras_seqzoo.adapt"):
        train(adapted=False)
    train(adapted=True)  # a warning would be an error


@some_scaled_cases
@pytest.mark.slow
def test_adapt_takes_effect_after_predict(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    if isinstance(model, CRFModel):
        model = keras.Model(model.input, model.get_layer("scores").output)
    x = make_inputs(model, 4, 5)
    unadapted = model.predict(model_input(x), verbose=0)
    zoo.adapt(model, *x)
    adapted = model.predict(model_input(x), verbose=0)
    assert not np.allclose(adapted, unadapted, atol=1e-2)
    assert_close(adapted, output(model, x))


@every_raw_unit_case
def test_outputs_of_a_constant_feature_stay_in_range(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    (x,) = make_inputs(model, 4, 9)
    x[..., 0] = 0.1 + 0.2  # no float32 has this value: the computed variance is round-off
    zoo.adapt(model, x)
    assert statistics(model)[1][0] == 0
    assert np.abs(predict(model, (x,))[..., 0] - 0.3).max() < 10
    x[..., 0] += 1e-3  # a division by the standard deviation of 0 would show here
    assert np.abs(predict(model, (x,))[..., 0] - 0.3).max() < 10


# --------------------------------------------------------------------- the table covers the catalog


def test_every_entry_has_a_row_and_every_row_an_entry():
    names = {entry.name for entry in catalog.ENTRIES}
    assert set(TABLE) == names == set(zoo.list_models())
    assert set(REFERENCES) == names


@pytest.mark.parametrize("name", TABLE)
def test_every_entry_has_a_default_row(name):
    assert TABLE[name]["default"].config == {}


@pytest.mark.parametrize("family", ["classifier", "tagger", "encoder_decoder", "autoencoder"])
def test_the_rows_of_a_family_cover_all_argument_choices(family):
    """Over all entries of the family together: they share a constructor."""
    names = zoo.list_models(family=family)
    configs = [arguments(name, case) for name, case in CASES if name in names]
    choices = {
        "cell": ("simple_rnn", "gru", "lstm"),
        "bidirectional": (True, False),
        "num_layers": (1, 2),
        "normalize": (True, False),
        "classifier_activation": ("softmax", None),
        "word_dropout": (0.0, 0.8),
        "pooling": ("last", "mean", "max", "attention"),
        "head": ("softmax", "crf", "regression"),
        "character_encoder": ("cnn", "bilstm"),
        "attention": (None, "additive", "dot", "general", "multi_head"),
        "input_feeding": (True, False),
        "tied_embeddings": (True, False),
        "scheduled_sampling": (0.0, 0.3),
        "reconstruct": ("sequence", "last"),
        "decoder": ("repeat", "reversed", "free_running", "teacher_forced"),
    }
    if family == "autoencoder":
        choices["cell"] += ("linear",)
    if family == "classifier":
        del choices["word_dropout"]  # the taggers cover it, with the same input block
    for argument, values in choices.items():
        if argument in configs[0]:
            assert set(values) <= {config[argument] for config in configs}, argument


# ---------------------------------------------------------------------------- structure and shapes


def check_structure(build, row: Row) -> None:
    """Layers and parameter count are the pinned ones."""
    model = build()
    assert [layer.name for layer in model.layers] == row.layers.split()
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == row.parameters


def check_shapes(build, row: Row) -> None:
    """The output has the pinned shape, symbolically and for several batches and lengths."""
    model = build()
    dynamic = {"batch": None, "time": None}
    assert model.output_shape == tuple(dynamic.get(axis, axis) for axis in row.shape)
    for batch, time in ((1, 1), (5, 1), (1, 2), (5, 7), (3, 30)):
        sizes = {"batch": batch, "time": time}
        outputs = output(model, make_inputs(model, batch, time))
        assert outputs.shape == tuple(sizes.get(axis, axis) for axis in row.shape)
        assert outputs.dtype == ("int32" if isinstance(model, CRFModel) else "float32")
        assert np.isfinite(outputs).all()


def check_dynamic_axes(build) -> None:
    """One traced function serves every batch and length, with the outputs of the model."""
    model = build()
    serve = tf.function(
        lambda *x: model(model_input(x), training=False),
        input_signature=[tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs],
    )
    for batch, time in ((1, 1), (3, 12), (4, 5)):
        x = make_inputs(model, batch, time)
        assert_close(np.asarray(serve(*x)), output(model, x))


@pytest.mark.parametrize("name", TABLE)
def test_an_entry_builds_without_arguments(name):
    model = zoo.get(name)
    assert model.name == name
    assert not model.compiled


@every_case
def test_layers_and_parameters_are_pinned(name, case):
    check_structure(cached_case(name, case), TABLE[name][case])


@every_case
def test_the_output_has_the_pinned_shape(name, case):
    check_shapes(cached_case(name, case), TABLE[name][case])


@pytest.mark.tensorflow
@every_case
def test_batch_and_time_are_dynamic(name, case):
    check_dynamic_axes(cached_case(name, case))


@pytest.mark.parametrize("name", [name for name in TABLE if "time" in arguments(name, "default")])
def test_time_fixes_the_number_of_steps(name):
    model = zoo.get(name, time=7)
    assert all(tensor.shape[1] == 7 for tensor in model.inputs)
    sizes = {"batch": 2, "time": 7}
    shape = TABLE[name]["default"].shape
    assert output(model, make_inputs(model, 2, 7)).shape == tuple(
        sizes.get(axis, axis) for axis in shape
    )


@every_case
def test_probabilities_sum_to_one_and_logits_do_not(name, case):
    activation = arguments(name, case).get("classifier_activation", "none")
    model = cached_case(name, case)()
    if activation == "none" or not {"classes", "tags"} & set(TABLE[name][case].layers.split()):
        return
    sums = output(model, make_inputs(model, 3, 5)).sum(axis=-1)
    assert np.allclose(sums, 1, atol=1e-6) == (activation == "softmax")


# ---------------------------------------------------------------------------------------- training


def kind_of(model: keras.Model) -> str:
    """The kind of output: "crf", "probabilities", "logits" or "readings"."""
    if isinstance(model, CRFModel):
        return "crf"
    layers_by_name = {layer.name: layer for layer in model.layers}
    if "code" in layers_by_name:
        return "probabilities" if "int" in model.inputs[0].dtype else "readings"
    for name in ("classes", "tags", "probabilities"):
        if name in layers_by_name:
            softmax = layers_by_name[name].activation is keras.activations.softmax
            return "probabilities" if softmax else "logits"
    return "readings"


def loss_of(model: keras.Model):
    kinds = {
        "crf": lambda: None,
        "probabilities": crossentropy,
        "logits": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "readings": lambda: "mse",
    }
    return kinds[kind_of(model)]()


def targets(model: keras.Model, x: Inputs) -> np.ndarray:
    """Targets that a model can learn from `x`: the reading, or one of two classes of each step."""
    if isinstance(model, EncoderDecoderModel):
        return x[1]  # the decoder's own input
    y = x[0]
    if kind_of(model) != "readings":
        y = (y > 8 if y.ndim == 3 else y % 2).reshape(*y.shape[:2], -1)[..., 0].astype("int32")
    per_step = isinstance(model, CRFModel) or len(model.output_shape) == 3
    return y if per_step else y[:, -1]


def loss_value(model: keras.Model, x: Inputs, y: np.ndarray):
    if isinstance(model, CRFModel):
        scores, mask = crf_inputs(model, x)
        return keras.ops.mean(model.get_layer("crf").step_losses(scores, y, mask))
    return keras.ops.mean(keras.losses.get(loss_of(model))(y, model(model_input(x))))


def check_gradients(build) -> None:
    """Every trainable weight has a finite gradient that is not zero throughout."""
    model = build()
    x = make_inputs(model, 4, 9)
    y = targets(model, make_inputs(model, 4, 9, seed=3))
    weights = model.trainable_weights
    gradients = weight_gradients(lambda: loss_value(model, x, y), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, f"{weight.path} has no gradient"
        assert np.isfinite(gradient).all(), f"{weight.path} has a gradient that is not finite"
        assert np.abs(gradient).max() > 0, f"{weight.path} has a gradient of zero"


@every_case
@pytest.mark.slow
def test_every_weight_has_a_gradient(name, case):
    check_gradients(cached_case(name, case))


# Each case compiles a program; the other rows of an entry train what its default row would.
@cases_where(lambda config, row: row.config or "recurrent" in row.layers.split())
def test_thirty_training_steps_lower_the_loss(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    x = make_inputs(model, 32, 6)
    config = arguments(name, case)
    if config.get("pooling", "last") != "last" or "code_size" in config:
        # Six equal steps: the target, which is the last step, is easy to learn.
        x = tuple(np.repeat(part[:, :1], 6, axis=1) for part in x)
    y = targets(model, x)
    if "scale" in TABLE[name][case].layers.split():
        adapt(model, x)
    elif not takes_tokens(arguments(name, case)):  # standardize outside of the model
        scaled = tuple((part - part.mean(axis=(0, 1))) / part.std(axis=(0, 1)) for part in x)
        x, y = scaled, next((s for s, part in zip(scaled, x, strict=True) if y is part), y)
    loss = loss_of(model)
    if loss == "mse":
        loss = NormalizedMeanSquaredError(y.reshape(-1, y.shape[-1]).var(axis=0))
    model.compile(keras.optimizers.Adam(0.03), loss)
    losses = [float(model.train_on_batch(model_input(x), y)) for _ in range(30)]
    # The first value is the loss before any step; the others are running means.
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


DROPOUTS = ("dropout", "input_dropout", "word_dropout")


def check_dropout_in_training_only(build, build_without) -> None:
    """Inference equals that of the same weights without dropout; training passes differ."""
    model, without = build(), build_without()
    without.set_weights([weight.numpy() for weight in model.weights if "seed" not in weight.path])
    x = make_inputs(model, 6, 8)
    np.testing.assert_array_equal(predict(model, x), predict(without, x))
    passes = [
        np.asarray(crf_inputs(model, x, training=True)[0])
        if isinstance(model, CRFModel)
        else output(model, x, training=True)
        for _ in range(2)
    ]
    assert not np.allclose(*passes)


@cases_where(lambda config, row: any(config.get(dropout) for dropout in DROPOUTS))
def test_dropout_is_active_in_training_only(name, case):
    config = TABLE[name][case].config
    none = {key: 0.0 for key in DROPOUTS if arguments(name, case).get(key)}
    check_dropout_in_training_only(build_case(name, case), lambda: zoo.get(name, **config | none))


@cases_where(lambda config, row: config["recurrent_regularizer"])
def test_recurrent_regularizer_penalizes_recurrent_kernels_only(name, case):
    model = cached_case(name, case)()
    kind = TABLE[name][case].config["recurrent_regularizer"]
    kernels = [
        np.asarray(w) for w in model.trainable_weights if w.path.endswith("recurrent_kernel")
    ]
    penalty_of = {"l1": np.abs, "l2": np.square, "l1_l2": lambda w: np.abs(w) + np.square(w)}[kind]
    expected = sum(0.01 * penalty_of(kernel).sum() for kernel in kernels)
    penalty = keras.ops.convert_to_numpy(sum(model.losses))
    np.testing.assert_allclose(penalty, expected, rtol=1e-6)
    assert expected > 0


# ----------------------------------------------------------------------------------------- padding

# Relative to the largest output; float32 has 1.2e-7.
ROUND_OFF = 1e-6


def check_padding_is_invisible(build, value: float) -> None:
    """Left, right and extra padding change no real step; outputs at padded steps are 0."""
    model = build()
    x = make_inputs(model, 4, 8)
    expected = predict(model, x)
    for left, right in ((3, 0), (0, 4), (2, 5), (0, 30)):
        outputs = predict(model, pad(x, left, right, value))
        assert np.isfinite(outputs).all()
        if outputs.ndim == 2:
            assert_close(outputs, expected, ROUND_OFF)
            continue
        real = slice(left, left + x[0].shape[1])
        assert_close(outputs[:, real], expected, ROUND_OFF)
        np.testing.assert_array_equal(np.delete(outputs, np.r_[real], axis=1), 0.0)


def check_each_row_has_its_own_padding(build, value: float) -> None:
    """Rows of different lengths in one batch have the outputs that they have alone."""
    model = build()
    rows = [make_inputs(model, 1, length, seed=length) for length in (1, 4, 9)]
    batch = join_rows(*(pad(row, 0, 9 - row[0].shape[1], value) for row in rows))
    for row, outputs in zip(rows, predict(model, batch), strict=True):
        expected = predict(model, row)[0]
        outputs = outputs[: len(expected)] if outputs.ndim == 2 else outputs
        assert_close(outputs, expected, ROUND_OFF)


def check_padding_has_no_loss(build, value: float) -> None:
    """Loss and gradients of padded rows equal those of the rows without padding."""
    results = []
    for padding in (0, 5):
        model = build()
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout | layers.WordDropout):
                layer.rate = 0.0  # random numbers depend on the length
        x = make_inputs(model, 4, 6)
        y = targets(model, x)
        if y.shape[1:2] == (6,):
            wrong = 1e3 if y.dtype.kind == "f" else 1
            y = np.pad(y, ((0, 0), (0, padding), *((0, 0),) * (y.ndim - 2)), constant_values=wrong)
        rate = 1e-5 if kind_of(model) == "readings" else 1.0  # a visible step for each loss
        model.compile(keras.optimizers.SGD(rate), loss_of(model), run_eagerly=True)
        loss = model.train_on_batch(model_input(pad(x, 0, padding, value)), y)
        results.append((loss, [np.asarray(weight) for weight in model.trainable_weights]))
    (loss, weights), (padded_loss, padded_weights) = results
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-4)
    for weight, padded in zip(weights, padded_weights, strict=True):
        np.testing.assert_allclose(padded, weight, rtol=1e-4, atol=1e-5)


@every_masked_case
def test_padding_is_invisible(name, case):
    check_padding_is_invisible(cached_case(name, case), padding_of(name, case))


@every_masked_case
def test_each_row_has_its_own_padding(name, case):
    check_each_row_has_its_own_padding(cached_case(name, case), padding_of(name, case))


@every_masked_case
def test_padding_has_no_loss(name, case):
    check_padding_has_no_loss(build_case(name, case), padding_of(name, case))


@every_masked_case
def test_a_row_of_only_padding_has_finite_outputs(name, case):
    model = cached_case(name, case)()
    x = make_inputs(model, 2, 5)
    padded = pad(take_rows(x, slice(1, 2)), 0, 5, padding_of(name, case))
    x = join_rows(take_rows(x, slice(0, 1)), tuple(part[:, 5:] for part in padded))
    outputs = predict(model, x)
    assert np.isfinite(outputs).all()
    assert outputs.ndim == 2 or not outputs[1].any()


def check_padding_of_a_source_is_invisible(build, value: float) -> None:
    """Left, right and extra padding of the source change no output."""
    model = build()
    source, target = make_inputs(model, 4, 8)
    expected = predict(model, (source, target))
    for left, right in ((3, 0), (0, 4), (2, 30)):
        (padded,) = pad((source,), left, right, value)
        assert_close(predict(model, (padded, target)), expected, ROUND_OFF)


@every_masked_pair
def test_padding_of_a_source_is_invisible(name, case):
    check_padding_of_a_source_is_invisible(cached_case(name, case), padding_of(name, case))


@every_masked_pair
def test_a_source_of_only_padding_has_finite_outputs(name, case):
    model = cached_case(name, case)()
    source, target = make_inputs(model, 2, 5)
    source[1] = padding_of(name, case)
    assert np.isfinite(predict(model, (source, target))).all()


@every_pair
def test_later_target_steps_change_no_earlier_output(name, case):
    model = cached_case(name, case)()
    source, target = make_inputs(model, 4, 9)
    expected = predict(model, (source, target))
    for cut in (1, 5, 8):
        changed = target.copy()
        changed[:, cut:] = make_inputs(model, 4, 9, seed=7)[1][:, cut:]
        outputs = predict(model, (source, changed))
        np.testing.assert_array_equal(outputs[:, :cut], expected[:, :cut])
        assert not np.allclose(outputs[:, cut], expected[:, cut])


@every_pair
def test_source_and_target_may_have_different_lengths(name, case):
    model = cached_case(name, case)()
    (source, _), (_, target) = make_inputs(model, 3, 4), make_inputs(model, 3, 9)
    outputs = predict(model, (source, target))
    assert outputs.shape == (3, 9, TABLE[name][case].shape[-1])
    np.testing.assert_allclose(predict(model, (source, target[:, :5])), outputs[:, :5], atol=1e-5)


def check_padded_characters_are_invisible(build) -> None:
    """Padding of characters, as by a longer word in the batch, changes no output."""
    model = build()
    tokens, characters = make_inputs(model, 4, 8)
    longer = np.pad(characters, ((0, 0), (0, 0), (0, 7)))
    assert_close(predict(model, (tokens, longer)), predict(model, (tokens, characters)), ROUND_OFF)


@cases_where(lambda config, row: "characters" in row.layers)
def test_padded_characters_are_invisible(name, case):
    check_padded_characters_are_invisible(cached_case(name, case))


# ----------------------------------------------------------------------------------- rows and time


def check_rows_do_not_affect_each_other(build) -> None:
    """The outputs of a row do not depend on the other rows or their order, up to round-off."""
    model = build()
    x = make_inputs(model, 6, 9)
    batch = predict(model, x)
    alone = np.concatenate([predict(model, take_rows(x, slice(row, row + 1))) for row in range(6)])
    assert_close(batch, alone, ROUND_OFF)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert_close(predict(model, take_rows(x, order)), batch[order], ROUND_OFF)
    other_rows = join_rows(take_rows(x, slice(2)), make_inputs(model, 4, 9, seed=9))
    assert_close(predict(model, other_rows)[:2], batch[:2], ROUND_OFF)


def check_causality(build) -> None:
    """Later inputs do not change earlier outputs, exactly."""
    model = build()
    x = make_inputs(model, 4, 12)
    expected = predict(model, x)
    for cut in (1, 5, 11):
        later = make_inputs(model, 4, 12 - cut, seed=7)
        changed = tuple(
            np.concatenate([part[:, :cut], new], axis=1) for part, new in zip(x, later, strict=True)
        )
        outputs = predict(model, changed)
        np.testing.assert_array_equal(outputs[:, :cut], expected[:, :cut])
        assert not np.allclose(outputs[:, cut], expected[:, cut])  # the change has an effect


@every_case
def test_rows_do_not_affect_each_other(name, case):
    check_rows_do_not_affect_each_other(cached_case(name, case))


def is_causal(name: str, case: str) -> bool:
    """Whether a case is causal: a row of a causal entry may be bidirectional."""
    config = arguments(name, case)
    look_ahead = config.get("bidirectional") or config.get("reconstruct") == "sequence"
    return zoo.describe(name).causal and not look_ahead


PER_STEP = [(name, case) for name, case in CASES if TABLE[name][case].shape[1] == "time"]


@pytest.mark.parametrize(
    ("name", "case"), slow_except_default(pair for pair in PER_STEP if is_causal(*pair))
)
def test_causal_models_do_not_look_ahead(name, case):
    check_causality(cached_case(name, case))


@pytest.mark.parametrize(
    ("name", "case"), slow_except_default(pair for pair in PER_STEP if not is_causal(*pair))
)
def test_non_causal_models_look_ahead(name, case):
    with pytest.raises(AssertionError):
        check_causality(cached_case(name, case))


# ---------------------------------------------------------------------------------------- numerics


def check_numerics(build, reference, config) -> None:
    """The output equals that of a NumPy reference written from the equations."""
    model = build()
    x = make_inputs(model, 3, 8)
    padding = 0 if takes_tokens(config) else config["mask_value"]
    if padding is not None:  # on the left, on the right, and in the middle
        for row, steps in ((1, slice(0, 2)), (1, slice(6, 8)), (2, slice(3, 5))):
            for part in x[:1] if is_pair(config) else x:
                part[row, steps] = 0 if part.dtype.kind == "i" else padding
    assert_close(predict(model, x), reference(model, x, config))


@every_case
def test_the_output_equals_the_reference(name, case):
    check_numerics(cached_case(name, case), REFERENCES[name], arguments(name, case))


# -------------------------------------------------------------------- files, configs and artifacts


@every_case
def test_a_loaded_model_predicts_the_same(name, case, tmp_path):
    model = cached_case(name, case)()
    x = make_inputs(model, 3, 8)
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(predict(loaded, x), predict(model, x))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@every_case
def test_a_config_builds_the_same_model(name, case):
    model = cached_case(name, case)()
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    again.set_weights(model.get_weights())
    x = make_inputs(model, 3, 8)
    np.testing.assert_array_equal(predict(again, x), predict(model, x))
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())  # as text: NaN == NaN


LOADERS = {
    "zoo.load alone": "import keras_seqzoo as zoo; load = zoo.load",
    "keras alone, after importing the layers": (
        "import keras, keras_seqzoo.layers; load = keras.saving.load_model"
    ),
}
COMPARE = """
import keras, sys, pathlib, numpy as np
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    with np.load(path.with_suffix(".npz")) as arrays:
        x = [arrays[key] for key in arrays.files if key != "y"]
        outputs = load(path)(x if len(x) > 1 else x[0], training=False)
        outputs = keras.ops.convert_to_numpy(outputs)
        np.testing.assert_array_equal(outputs, arrays["y"], err_msg=path.name)
    print(path.stem)
"""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """A model file for every row, with inputs and outputs of the model."""
    folder = tmp_path_factory.mktemp("models")
    for name, case in CASES:
        model = cached_case(name, case)()
        x = make_inputs(model, 3, 8)
        model.save(folder / f"{name}-{case}.keras")
        np.savez(folder / f"{name}-{case}.npz", *x, y=output(model, x))
    return folder


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.slow
def test_models_loaded_in_a_new_process_predict_the_same(loader, model_files):
    process = subprocess.run(
        [sys.executable, "-c", LOADERS[loader] + COMPARE, str(model_files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.split() == sorted(f"{name}-{case}" for name, case in CASES)


# Every entry, and a selection of other rows, because each export runs a verification.
EXPORTED = [
    *[(name, "default") for name in TABLE],
    ("simple_rnn_identity", "wide_input"),
    ("simple_rnn_identity", "nan_padding"),
    ("gru_classifier", "attention"),
    ("bilstm_classifier", "nan_padding"),
    ("char_bilstm_crf_tagger", "cnn"),
    ("char_bilstm_crf_tagger", "bilstm"),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "case"), slow_except_default(EXPORTED))
def test_an_exported_artifact_equals_its_model(name, case, tmp_path):
    parity = zoo.export(cached_case(name, case)(), tmp_path / "served", verbose=0)
    assert 0 <= parity.difference <= 1e-5
    paddings = {verified["padding"] for verified in parity.cases}
    masked = is_masked(arguments(name, case), TABLE[name][case])
    assert paddings == ({"none", "left", "right"} if masked else {"none"})
    assert len({verified["batch"] for verified in parity.cases}) > 1
    assert len({verified["steps"] for verified in parity.cases}) > 1
