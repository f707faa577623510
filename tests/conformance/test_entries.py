"""Every entry of the catalogue keeps the same promises, in every configuration of its row.

A check is a function of `build`, which gives a fresh model with random, different weights;
test_conformance_faults.py breaks models on purpose and sees the checks fail.
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
    answer,
    arguments,
    assert_close,
    build_case,
    crf_inputs,
    given,
    is_pair,
    joined,
    one,
    output,
    pad,
    readings,
    select,
    take,
)
from tests.helpers.weight_gradients import weight_gradients

every_case = pytest.mark.parametrize(("name", "case"), CASES)


def those(wanted) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "case"), select(wanted))


def takes_tokens(config) -> bool:
    return any(config.get(f"{side}vocabulary_size") is not None for side in ("", "source_"))


def padding_of(name: str, case: str) -> float:
    return TABLE[name][case].config.get("mask_value", 0)


def is_masked(config, row) -> bool:
    return takes_tokens(config) or "mask_value" in row.config


every_masked_case = those(lambda config, row: is_masked(config, row) and not is_pair(config))
every_masked_pair = those(lambda config, row: is_masked(config, row) and is_pair(config))
every_pair = those(lambda config, row: is_pair(config))
every_scaled_case = those(
    lambda config, row: not (takes_tokens(config) or is_pair(config)) and config["normalize"]
)
# Whose answers are readings; and one row of each other entry, where each case compiles a program.
every_raw_unit_case = those(lambda config, row: "unscale" in row.layers and not is_pair(config))
some_scaled_cases = those(
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
def test_adapt_learns_from_every_real_step_and_no_other(name, case):
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
def test_training_warns_until_the_scaling_is_adapted(name, case):
    def train(adapted: bool) -> None:
        model = zoo.get(name, **TABLE[name][case].config)
        x = given(model, 4, 5)
        if adapted:
            zoo.adapt(model, *x)
        model.compile("sgd", loss_of(model), run_eagerly=True)
        model.train_on_batch(one(x), targets(model, x))

    with pytest.warns(UserWarning, match="never adapted.*keras_seqzoo.adapt"):
        train(adapted=False)
    train(adapted=True)  # a warning is an error here


@some_scaled_cases
def test_adapt_takes_effect_after_predict(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    if isinstance(model, CRFModel):
        model = keras.Model(model.input, model.get_layer("scores").output)
    x = given(model, 4, 5)
    before = model.predict(one(x), verbose=0)
    zoo.adapt(model, *x)
    after = model.predict(one(x), verbose=0)
    assert not np.allclose(after, before, atol=1e-2)
    assert_close(after, output(model, x))


@every_raw_unit_case
def test_a_constant_feature_stays_in_range(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    (x,) = given(model, 4, 9)
    x[..., 0] = 0.1 + 0.2  # not a float32: its computed variance is round-off
    zoo.adapt(model, x)
    assert statistics(model)[1][0] == 0
    assert np.abs(answer(model, (x,))[..., 0] - 0.3).max() < 10
    x[..., 0] += 1e-3  # would be divided by its deviation of 0
    assert np.abs(answer(model, (x,))[..., 0] - 0.3).max() < 10


# ------------------------------------------------------------------- the table covers the catalogue


def test_every_entry_has_a_row_and_every_row_an_entry():
    names = {entry.name for entry in catalog.ENTRIES}
    assert set(TABLE) == names == set(zoo.list_models())
    assert set(REFERENCES) == names


@pytest.mark.parametrize("name", TABLE)
def test_every_entry_has_a_default_row(name):
    assert TABLE[name]["default"].config == {}


@pytest.mark.parametrize("family", ["classifier", "tagger", "encoder_decoder", "autoencoder"])
def test_the_rows_of_a_family_cover_its_choices(family):
    """One entry may stand for all with another's argument: the constructor is the same."""
    names = zoo.list_models(family=family)
    tried = [arguments(name, case) for name, case in CASES if name in names]
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
        del choices["word_dropout"]  # of the input, which is the taggers' as well
    for argument, values in choices.items():
        if argument in tried[0]:
            assert set(values) <= {config[argument] for config in tried}, argument


# -------------------------------------------------------------------------------- checks of shapes


def check_structure(build, row: Row) -> None:
    """Layers and parameters are the pinned ones, so that none was dropped."""
    model = build()
    assert [layer.name for layer in model.layers] == row.layers.split()
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == row.parameters


def check_shapes(build, row: Row) -> None:
    """The output has the promised shape, symbolically and for several batches and lengths."""
    model = build()
    free = {"batch": None, "time": None}
    assert model.output_shape == tuple(free.get(axis, axis) for axis in row.shape)
    for batch, time in ((1, 1), (5, 1), (1, 2), (5, 7), (3, 30)):
        sizes = {"batch": batch, "time": time}
        found = output(model, given(model, batch, time))
        assert found.shape == tuple(sizes.get(axis, axis) for axis in row.shape)
        assert found.dtype == ("int32" if isinstance(model, CRFModel) else "float32")
        assert np.isfinite(found).all()


def check_dynamic_axes(build) -> None:
    """One traced function serves every batch and length, and answers as the model does."""
    model = build()
    serve = tf.function(
        lambda *x: model(one(x), training=False),
        input_signature=[tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs],
    )
    for batch, time in ((1, 1), (3, 12), (4, 5)):
        x = given(model, batch, time)
        assert_close(np.asarray(serve(*x)), output(model, x))


@pytest.mark.parametrize("name", TABLE)
def test_an_entry_builds_without_arguments(name):
    model = zoo.get(name)
    assert model.name == name
    assert not model.compiled


@every_case
def test_layers_and_parameters_are_the_pinned_ones(name, case):
    check_structure(build_case(name, case), TABLE[name][case])


@every_case
def test_the_output_has_the_promised_shape(name, case):
    check_shapes(build_case(name, case), TABLE[name][case])


@pytest.mark.tensorflow
@every_case
def test_batch_and_time_are_dynamic(name, case):
    check_dynamic_axes(build_case(name, case))


@pytest.mark.parametrize("name", [one for one in TABLE if "time" in arguments(one, "default")])
def test_a_fixed_time_is_kept(name):
    model = zoo.get(name, time=7)
    assert all(tensor.shape[1] == 7 for tensor in model.inputs)
    sizes = {"batch": 2, "time": 7}
    shape = TABLE[name]["default"].shape
    assert output(model, given(model, 2, 7)).shape == tuple(sizes.get(axis, axis) for axis in shape)


@every_case
def test_probabilities_sum_to_one_and_scores_do_not(name, case):
    activation = arguments(name, case).get("classifier_activation", "none")
    model = build_case(name, case)()
    if activation == "none" or not {"classes", "tags"} & set(TABLE[name][case].layers.split()):
        return
    sums = output(model, given(model, 3, 5)).sum(axis=-1)
    assert np.allclose(sums, 1, atol=1e-6) == (activation == "softmax")


# ----------------------------------------------------------------------------- checks of training


def kind_of(model: keras.Model) -> str:
    """What it is trained by: "crf", "classes", "scores" of classes, or "readings"."""
    if isinstance(model, CRFModel):
        return "crf"
    last = {layer.name: layer for layer in model.layers}
    if "code" in last:
        return "classes" if "int" in model.inputs[0].dtype else "readings"
    dense = last.get("classes", last.get("tags", last.get("probabilities")))
    if dense is None:
        return "readings"
    return "classes" if dense.activation is keras.activations.softmax else "scores"


def loss_of(model: keras.Model):
    kinds = {
        "crf": lambda: None,
        "classes": crossentropy,
        "scores": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "readings": lambda: "mse",
    }
    return kinds[kind_of(model)]()


def targets(model: keras.Model, x: Inputs) -> np.ndarray:
    """What a model can learn of `x`: the reading, or one of two classes of each step."""
    if isinstance(model, EncoderDecoderModel):
        return x[1]  # to say again what was said
    y = x[0]
    if kind_of(model) != "readings":
        y = (y > 8 if y.ndim == 3 else y % 2).reshape(*y.shape[:2], -1)[..., 0].astype("int32")
    per_step = isinstance(model, CRFModel) or len(model.output_shape) == 3
    return y if per_step else y[:, -1]


def loss_value(model: keras.Model, x: Inputs, y: np.ndarray):
    if isinstance(model, CRFModel):
        scores, mask = crf_inputs(model, x)
        return keras.ops.mean(model.get_layer("crf").step_losses(scores, y, mask))
    return keras.ops.mean(keras.losses.get(loss_of(model))(y, model(one(x))))


def check_gradients(build) -> None:
    """Every trainable weight has a finite gradient that is not zero throughout."""
    model = build()
    x = given(model, 4, 9)
    y = targets(model, given(model, 4, 9, seed=3))
    weights = model.trainable_weights
    found = weight_gradients(lambda: loss_value(model, x, y), weights)
    for weight, gradient in zip(weights, found, strict=True):
        assert gradient is not None, f"{weight.path} has no gradient"
        assert np.isfinite(gradient).all(), f"{weight.path} has a gradient that is not finite"
        assert np.abs(gradient).max() > 0, f"{weight.path} has a gradient of zero"


@every_case
def test_every_weight_gets_a_gradient(name, case):
    check_gradients(build_case(name, case))


# A program is compiled for each; what a default row trains, another row does as well.
@those(lambda config, row: row.config or "recurrent" in row.layers.split())
def test_a_few_steps_lower_the_loss(name, case):
    model = zoo.get(name, **TABLE[name][case].config)
    x = given(model, 32, 6)
    config = arguments(name, case)
    if config.get("pooling", "last") != "last" or "code_size" in config:
        x = tuple(np.repeat(part[:, :1], 6, axis=1) for part in x)  # or the last step is one of six
    y = targets(model, x)
    if "scale" in TABLE[name][case].layers.split():
        adapt(model, x)
    elif not takes_tokens(arguments(name, case)):  # as whoever builds a model without does
        scaled = tuple((one - one.mean(axis=(0, 1))) / one.std(axis=(0, 1)) for one in x)
        x, y = scaled, next((s for s, one in zip(scaled, x, strict=True) if y is one), y)
    chosen = loss_of(model)
    if chosen == "mse":
        chosen = NormalizedMeanSquaredError(y.reshape(-1, y.shape[-1]).var(axis=0))
    model.compile(keras.optimizers.Adam(0.03), chosen)
    losses = [float(model.train_on_batch(one(x), y)) for _ in range(30)]
    # The first value is before any step; Keras gives running means from then on.
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


DROPOUTS = ("dropout", "input_dropout", "word_dropout")


def check_dropout_is_for_training(build, without) -> None:
    """Answers are those of the same weights `without` any dropout; training sees others."""
    model, sure = build(), without()
    sure.set_weights([weight.numpy() for weight in model.weights if "seed" not in weight.path])
    x = given(model, 6, 8)
    np.testing.assert_array_equal(answer(model, x), answer(sure, x))
    seen = [
        np.asarray(crf_inputs(model, x, training=True)[0])
        if isinstance(model, CRFModel)
        else output(model, x, training=True)
        for _ in range(2)
    ]
    assert not np.allclose(*seen)


@those(lambda config, row: any(config.get(dropout) for dropout in DROPOUTS))
def test_dropout_is_for_training(name, case):
    config = TABLE[name][case].config
    none = {key: 0.0 for key in DROPOUTS if arguments(name, case).get(key)}
    check_dropout_is_for_training(build_case(name, case), lambda: zoo.get(name, **config | none))


@those(lambda config, row: config["recurrent_regularizer"])
def test_a_penalty_is_of_recurrent_kernels_alone(name, case):
    model = build_case(name, case)()
    kind = TABLE[name][case].config["recurrent_regularizer"]
    kernels = [
        np.asarray(w) for w in model.trainable_weights if w.path.endswith("recurrent_kernel")
    ]
    of_kind = {"l1": np.abs, "l2": np.square, "l1_l2": lambda w: np.abs(w) + np.square(w)}[kind]
    penalty = sum(0.01 * of_kind(kernel).sum() for kernel in kernels)
    found = keras.ops.convert_to_numpy(sum(model.losses))
    np.testing.assert_allclose(found, penalty, rtol=1e-6)
    assert penalty > 0


# ------------------------------------------------------------------------------ checks of padding

# Of the largest answer; float32 has 1.2e-7.
ROUND_OFF = 1e-6


def check_padding_is_invisible(build, value: float) -> None:
    """Left, right and extra padding change no real step and come out as 0."""
    model = build()
    x = given(model, 4, 8)
    expected = answer(model, x)
    for left, right in ((3, 0), (0, 4), (2, 5), (0, 30)):
        found = answer(model, pad(x, left, right, value))
        assert np.isfinite(found).all()
        if found.ndim == 2:
            assert_close(found, expected, ROUND_OFF)
            continue
        real = slice(left, left + x[0].shape[1])
        assert_close(found[:, real], expected, ROUND_OFF)
        np.testing.assert_array_equal(np.delete(found, np.r_[real], axis=1), 0.0)


def check_each_row_has_its_own_padding(build, value: float) -> None:
    """Rows of different lengths in one batch answer as they do alone."""
    model = build()
    rows = [given(model, 1, length, seed=length) for length in (1, 4, 9)]
    batch = joined(*(pad(row, 0, 9 - row[0].shape[1], value) for row in rows))
    for row, found in zip(rows, answer(model, batch), strict=True):
        expected = answer(model, row)[0]
        found = found[: len(expected)] if found.ndim == 2 else found
        assert_close(found, expected, ROUND_OFF)


def check_padding_counts_in_no_loss(build, value: float) -> None:
    """Loss and gradients of padded rows are those of the rows themselves, and finite."""
    found = []
    for padding in (0, 5):
        model = build()
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout | layers.WordDropout):
                layer.rate = 0.0  # it would draw something else for another length
        x = given(model, 4, 6)
        y = targets(model, x)
        if y.shape[1:2] == (6,):
            wrong = 1e3 if y.dtype.kind == "f" else 1
            y = np.pad(y, ((0, 0), (0, padding), *((0, 0),) * (y.ndim - 2)), constant_values=wrong)
        rate = 1e-5 if kind_of(model) == "readings" else 1.0  # a step that shows
        model.compile(keras.optimizers.SGD(rate), loss_of(model), run_eagerly=True)
        loss = model.train_on_batch(one(pad(x, 0, padding, value)), y)
        found.append((loss, [np.asarray(weight) for weight in model.trainable_weights]))
    (loss, weights), (padded_loss, padded_weights) = found
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-4)
    for weight, padded in zip(weights, padded_weights, strict=True):
        np.testing.assert_allclose(padded, weight, rtol=1e-4, atol=1e-5)


@every_masked_case
def test_padding_is_invisible(name, case):
    check_padding_is_invisible(build_case(name, case), padding_of(name, case))


@every_masked_case
def test_each_row_has_its_own_padding(name, case):
    check_each_row_has_its_own_padding(build_case(name, case), padding_of(name, case))


@every_masked_case
def test_padding_counts_in_no_loss(name, case):
    check_padding_counts_in_no_loss(build_case(name, case), padding_of(name, case))


@every_masked_case
def test_a_row_of_padding_alone_stays_finite(name, case):
    model = build_case(name, case)()
    x = given(model, 2, 5)
    nothing = pad(take(x, slice(1, 2)), 0, 5, padding_of(name, case))
    x = joined(take(x, slice(0, 1)), tuple(part[:, 5:] for part in nothing))
    found = answer(model, x)
    assert np.isfinite(found).all()
    assert found.ndim == 2 or not found[1].any()


def check_padding_of_a_source_is_invisible(build, value: float) -> None:
    """On either side, also where another row is longer."""
    model = build()
    source, target = given(model, 4, 8)
    expected = answer(model, (source, target))
    for left, right in ((3, 0), (0, 4), (2, 30)):
        (padded,) = pad((source,), left, right, value)
        assert_close(answer(model, (padded, target)), expected, ROUND_OFF)


@every_masked_pair
def test_padding_of_a_source_is_invisible(name, case):
    check_padding_of_a_source_is_invisible(build_case(name, case), padding_of(name, case))


@every_masked_pair
def test_a_source_of_padding_alone_stays_finite(name, case):
    model = build_case(name, case)()
    source, target = given(model, 2, 5)
    source[1] = padding_of(name, case)
    assert np.isfinite(answer(model, (source, target))).all()


@every_pair
def test_what_comes_later_in_a_target_changes_nothing_before(name, case):
    model = build_case(name, case)()
    source, target = given(model, 4, 9)
    y = answer(model, (source, target))
    for cut in (1, 5, 8):
        changed = target.copy()
        changed[:, cut:] = given(model, 4, 9, seed=7)[1][:, cut:]
        found = answer(model, (source, changed))
        np.testing.assert_array_equal(found[:, :cut], y[:, :cut])
        assert not np.allclose(found[:, cut], y[:, cut])


@every_pair
def test_a_target_has_a_length_of_its_own(name, case):
    model = build_case(name, case)()
    (source, _), (_, target) = given(model, 3, 4), given(model, 3, 9)
    found = answer(model, (source, target))
    assert found.shape == (3, 9, TABLE[name][case].shape[-1])
    np.testing.assert_allclose(answer(model, (source, target[:, :5])), found[:, :5], atol=1e-5)


def check_padded_characters_are_invisible(build) -> None:
    """A longer word in the batch adds characters of 0 to all others."""
    model = build()
    tokens, characters = given(model, 4, 8)
    longer = np.pad(characters, ((0, 0), (0, 0), (0, 7)))
    assert_close(answer(model, (tokens, longer)), answer(model, (tokens, characters)), ROUND_OFF)


@those(lambda config, row: "characters" in row.layers)
def test_padded_characters_are_invisible(name, case):
    check_padded_characters_are_invisible(build_case(name, case))


# ---------------------------------------------------------------------- checks of rows and of time


def check_rows_do_not_affect_each_other(build) -> None:
    """A row answers the same alone, in company and in another order, within round-off."""
    model = build()
    x = given(model, 6, 9)
    together = answer(model, x)
    alone = np.concatenate([answer(model, take(x, slice(row, row + 1))) for row in range(6)])
    assert_close(together, alone, ROUND_OFF)
    order = np.array([3, 0, 5, 1, 4, 2])
    assert_close(answer(model, take(x, order)), together[order], ROUND_OFF)
    other_company = joined(take(x, slice(2)), given(model, 4, 9, seed=9))
    assert_close(answer(model, other_company)[:2], together[:2], ROUND_OFF)


def check_the_future_does_not_change_the_past(build) -> None:
    """Exactly: other later inputs leave every earlier output as it was."""
    model = build()
    x = given(model, 4, 12)
    y = answer(model, x)
    for cut in (1, 5, 11):
        later = given(model, 4, 12 - cut, seed=7)
        changed = tuple(
            np.concatenate([part[:, :cut], other], axis=1)
            for part, other in zip(x, later, strict=True)
        )
        found = answer(model, changed)
        np.testing.assert_array_equal(found[:, :cut], y[:, :cut])
        assert not np.allclose(found[:, cut], y[:, cut])  # or there would be nothing to see


@every_case
def test_rows_do_not_affect_each_other(name, case):
    check_rows_do_not_affect_each_other(build_case(name, case))


def is_causal(name: str, case: str) -> bool:
    """The card is of the entry; a row may read both ways all the same."""
    config = arguments(name, case)
    looks_ahead = config.get("bidirectional") or config.get("reconstruct") == "sequence"
    return zoo.describe(name).causal and not looks_ahead


PER_STEP = [(name, case) for name, case in CASES if TABLE[name][case].shape[1] == "time"]


@pytest.mark.parametrize(("name", "case"), [one for one in PER_STEP if is_causal(*one)])
def test_the_future_does_not_change_the_past(name, case):
    check_the_future_does_not_change_the_past(build_case(name, case))


@pytest.mark.parametrize(("name", "case"), [one for one in PER_STEP if not is_causal(*one)])
def test_the_future_changes_the_past_of_the_others(name, case):
    with pytest.raises(AssertionError):
        check_the_future_does_not_change_the_past(build_case(name, case))


# ----------------------------------------------------------------------------- checks of numerics


def check_numerics(build, reference, config) -> None:
    """The output is that of a NumPy reference written from the equations."""
    model = build()
    x = given(model, 3, 8)
    padding = 0 if takes_tokens(config) else config["mask_value"]
    if padding is not None:  # in front, behind, and in between
        for row, steps in ((1, slice(0, 2)), (1, slice(6, 8)), (2, slice(3, 5))):
            for part in x[:1] if is_pair(config) else x:
                part[row, steps] = 0 if part.dtype.kind == "i" else padding
    assert_close(answer(model, x), reference(model, x, config))


@every_case
def test_the_output_is_that_of_the_equations(name, case):
    check_numerics(build_case(name, case), REFERENCES[name], arguments(name, case))


# -------------------------------------------------------------------- files, configs and artifacts


@every_case
def test_a_model_file_gives_the_same_answers(name, case, tmp_path):
    model = build_case(name, case)()
    x = given(model, 3, 8)
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(answer(loaded, x), answer(model, x))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@every_case
def test_a_config_builds_the_same_model(name, case):
    model = build_case(name, case)()
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    again.set_weights(model.get_weights())
    x = given(model, 3, 8)
    np.testing.assert_array_equal(answer(again, x), answer(model, x))
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())  # NaN equals NaN here


LOADERS = {
    "zoo.load alone": "import keras_seqzoo as zoo; load = zoo.load",
    "keras alone, after importing the layers": (
        "import keras, keras_seqzoo.layers; load = keras.saving.load_model"
    ),
}
COMPARE = """
import keras, sys, pathlib, numpy as np
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    with np.load(path.with_suffix(".npz")) as known:
        x = [known[key] for key in known.files if key != "y"]
        found = load(path)(x if len(x) > 1 else x[0], training=False)
        found = keras.ops.convert_to_numpy(found)
        np.testing.assert_array_equal(found, known["y"], err_msg=path.name)
    print(path.stem)
"""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """A model file for every row, and what its model answers."""
    folder = tmp_path_factory.mktemp("models")
    for name, case in CASES:
        model = build_case(name, case)()
        x = given(model, 3, 8)
        model.save(folder / f"{name}-{case}.keras")
        np.savez(folder / f"{name}-{case}.npz", *x, y=output(model, x))
    return folder


@pytest.mark.parametrize("how", LOADERS)
def test_a_fresh_process_gives_the_same_answers(how, model_files):
    done = subprocess.run(
        [sys.executable, "-c", LOADERS[how] + COMPARE, str(model_files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == sorted(f"{name}-{case}" for name, case in CASES)


# Some rows stand for all: each export starts a process of its own.
EXPORTED = [
    ("simple_rnn_identity", "wide_input"),
    ("simple_rnn_identity", "nan_padding"),
    ("gru_classifier", "attention"),
    ("bilstm_classifier", "nan_padding"),
    ("char_bilstm_crf_tagger", "cnn"),
    ("char_bilstm_crf_tagger", "bilstm"),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "case"), EXPORTED)
def test_an_artifact_answers_as_the_model_does(name, case, tmp_path):
    parity = zoo.export(build_case(name, case)(), tmp_path / "served", verbose=0)
    assert 0 <= parity.difference <= 1e-5
    paddings = {one["padding"] for one in parity.cases}
    assert paddings == ({"none"} if case == "wide_input" else {"none", "left", "right"})
    assert len({one["batch"] for one in parity.cases}) > 1
    assert len({one["steps"] for one in parity.cases}) > 1
