"""The linear-chain CRF layer against an enumeration of all sequences, and the CRF model."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers import CRFModel, LinearChainCRF, StepMask, bio_constraints
from keras_seqzoo.layers.crf import forward_backward
from tests.helpers.marks import slow
from tests.helpers.weight_gradients import weight_gradients

BATCH, TIME, CLASSES = 4, 5, 3
BIO = ["O", "B-a", "I-a", "B-b", "I-b"]
MASKS = {
    "none": None,
    "right": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 1, 1, 1]],
    "middle": [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]],
    "empty_row": [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]],
}
by_mask = pytest.mark.parametrize("mask", MASKS)
# The PyTorch backend of Keras runs one step a call, and its compilation emits warnings.
on_graphs = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="the PyTorch backend has no compiled or multi-step calls",
)


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def make(classes: int = CLASSES, scale: float = 1.0, **options) -> LinearChainCRF:
    crf = LinearChainCRF(classes, **options)
    crf.build((None, None, classes))
    shapes = [weight.shape for weight in crf.weights]
    crf.set_weights([scale * random(*shape, seed=10 + i) for i, shape in enumerate(shapes)])
    return crf


def boolean(mask: str) -> np.ndarray | None:
    return None if MASKS[mask] is None else np.array(MASKS[mask], bool)


class Enumeration:
    """All tag sequences of the real steps of one row, with their scores, -inf where forbidden."""

    def __init__(self, crf, scores):
        transitions, start, end = (np.float64(weight) for weight in crf.get_weights())
        for weights, allowed in (
            (transitions, crf.allowed),
            (start, crf.allowed_start),
            (end, crf.allowed_end),
        ):
            if allowed is not None:
                weights[~np.array(allowed)] = -np.inf
        self.tags = list(itertools.product(range(len(start)), repeat=len(scores)))
        self.scores = np.zeros(len(self.tags))
        for place, tags in enumerate(self.tags):
            if tags:
                total = start[tags[0]] + end[tags[-1]]
                total += sum(
                    np.float64(score[tag]) for score, tag in zip(scores, tags, strict=True)
                )
                total += sum(transitions[a, b] for a, b in itertools.pairwise(tags))
                self.scores[place] = total
        self.log_partition = np.logaddexp.reduce(self.scores)
        self.probabilities = np.exp(self.scores - self.log_partition)

    def prefix_probability(self, prefix):
        """The probability of all sequences that begin with `prefix`."""
        selected = [tags[: len(prefix)] == tuple(prefix) for tags in self.tags]
        return self.probabilities[selected].sum()

    def marginals(self, classes):
        tags = np.array(self.tags)
        return [
            [self.probabilities[tags[:, step] == tag].sum() for tag in range(classes)]
            for step in range(tags.shape[1])
        ]


def enumerations(crf, scores, mask):
    real = np.ones(scores.shape[:2], bool) if mask is None else mask
    return real, [
        Enumeration(crf, row[selected]) for row, selected in zip(scores, real, strict=True)
    ]


def constrained(**options) -> LinearChainCRF:
    """Tag 1 may not follow 0, nor 2 follow 2; none starts with 2 or ends with 0.

    There is an allowed sequence of every length.
    """
    allowed = np.ones((3, 3), bool)
    allowed[0, 1] = allowed[2, 2] = False
    return make(allowed=allowed, allowed_start=[True, True, False], allowed_end=[False, True, True])


KINDS = {"free": make, "steep": lambda: make(scale=20.0), "constrained": constrained}
by_kind = pytest.mark.parametrize("kind", KINDS)


# -------------------------------------------------------------------------------------- enumeration


@by_mask
@by_kind
def test_likelihoods_marginals_and_decoding_match_the_enumeration(kind, mask):
    crf, mask, scores = KINDS[kind](), boolean(mask), random(BATCH, TIME, CLASSES) * 3
    real, rows = enumerations(crf, scores, mask)
    log_partition = [row.log_partition for row in rows]
    np.testing.assert_allclose(array(crf.log_partition(scores, mask)), log_partition, rtol=1e-5)
    marginals, actual = array(crf.marginals(scores, mask)), array(crf(scores, mask=mask))
    losses = array(crf.step_losses(scores, actual, mask))
    assert actual.dtype == "int32"
    for b, row in enumerate(rows):
        if real[b].any():
            np.testing.assert_allclose(marginals[b, real[b]], row.marginals(CLASSES), atol=1e-5)
        best = row.tags[row.scores.argmax()]
        assert tuple(actual[b, real[b]]) == best
        np.testing.assert_allclose(losses[b].sum(), -np.log(row.probabilities.max()), atol=1e-4)
    for padded in (marginals[~real], actual[~real], losses[~real]):
        np.testing.assert_array_equal(padded, 0)


@by_mask
@by_kind
def test_step_losses_are_conditional_negative_log_likelihoods(kind, mask):
    crf, mask, scores = KINDS[kind](), boolean(mask), random(BATCH, TIME, CLASSES) * 2
    real, rows = enumerations(crf, scores, mask)
    for draw in range(4):
        rng = np.random.default_rng(draw)
        tags = np.full((BATCH, TIME), -1)  # padded steps may hold anything
        for b, row in enumerate(rows):
            possible = np.flatnonzero(row.probabilities > 0)
            tags[b, real[b]] = row.tags[rng.choice(possible)]
        losses = array(crf.step_losses(scores, tags, mask))
        for b, row in enumerate(rows):
            gold = tags[b, real[b]]
            prefixes = [row.prefix_probability(gold[:n]) for n in range(len(gold) + 1)]
            expected = -np.log(np.divide(prefixes[1:], prefixes[:-1]))
            np.testing.assert_allclose(losses[b, real[b]], expected, rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(losses[~real], 0)


@by_mask
@by_kind
def test_n_best_matches_the_enumeration(kind, mask):
    crf, mask, scores, n = KINDS[kind](), boolean(mask), random(BATCH, TIME, CLASSES), 12
    real, rows = enumerations(crf, scores, mask)
    tags, log_probs = (array(x) for x in crf.n_best(scores, n, mask))
    assert tags.shape == (BATCH, n, TIME)
    for b, row in enumerate(rows):
        order = [i for i in np.argsort(-row.scores)[:n] if row.probabilities[i] > 0]
        np.testing.assert_allclose(
            log_probs[b, : len(order)], np.log(row.probabilities[order]), rtol=1e-4, atol=1e-4
        )
        assert [tuple(sequence) for sequence in tags[b, : len(order), real[b]].T] == [
            row.tags[i] for i in order
        ]
        np.testing.assert_array_equal(log_probs[b, len(order) :], -np.inf)
        np.testing.assert_array_equal(tags[b, len(order) :], 0)
        np.testing.assert_array_equal(tags[b][:, ~real[b]], 0)


def test_crf_without_transition_scores_is_a_softmax_of_each_step():
    crf, scores = LinearChainCRF(CLASSES), random(BATCH, TIME, CLASSES)
    tags = np.random.default_rng(0).integers(0, CLASSES, (BATCH, TIME))
    expected = keras.losses.sparse_categorical_crossentropy(tags, scores, from_logits=True)
    np.testing.assert_allclose(array(crf.step_losses(scores, tags)), array(expected), rtol=1e-5)
    np.testing.assert_array_equal(array(crf(scores)), scores.argmax(axis=-1))


@pytest.mark.tensorflow
@pytest.mark.parametrize("compiled", [None, slow(False), slow(True)], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize(
    "log_safe", [forward_backward.LOG_SAFE, 700.0], ids=["products", "logarithms"]
)
@by_kind
def test_gradients_match_finite_differences(kind, log_safe, compiled, monkeypatch):
    monkeypatch.setattr(forward_backward, "LOG_SAFE", log_safe)  # 700: always in log space
    base = KINDS[kind]()
    options = {"allowed": base.allowed, "allowed_end": base.allowed_end, "dtype": "float64"}
    crf = LinearChainCRF(CLASSES, **options)
    crf.build((None, None, CLASSES))
    mask, weights = boolean("middle"), random(BATCH, TIME, seed=5, dtype="float64")
    values = [random(BATCH, TIME, CLASSES, seed=6, dtype="float64"), *base.get_weights()]
    values = [np.float64(value) for value in values]
    tags = array(crf.decode(values[0], mask))

    def loss(scores):
        return tf.reduce_sum(crf.step_losses(scores, tags, mask) * weights)

    def loss_and_gradients(scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            total = loss(scores)
        return total, tape.gradient(total, [scores, *(w.value for w in crf.weights)])

    if compiled is not None:
        signature = [tf.TensorSpec((None, None, CLASSES), "float64")]
        loss_and_gradients = tf.function(
            loss_and_gradients, input_signature=signature, jit_compile=compiled
        )
    crf.set_weights(values[1:])
    actual = loss_and_gradients(tf.constant(values[0]))[1]
    rng = np.random.default_rng(1)
    for place, gradient in enumerate(actual):
        direction = rng.normal(size=values[place].shape)
        sides = []
        for sign in (1, -1):
            shifted = list(values)
            shifted[place] = values[place] + 1e-5 * sign * direction
            crf.set_weights(shifted[1:])
            sides.append(float(loss(tf.constant(shifted[0]))))
        np.testing.assert_allclose(
            (array(gradient) * direction).sum(), (sides[0] - sides[1]) / 2e-5, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e6])
def test_probability_space_matches_log_space(scale, doubles):
    crf = constrained()
    scores, mask = random(8, 20, CLASSES) * np.float32(scale), random(8, 20, seed=1) > -0.7
    scores, real, transitions, end = crf._chain(scores, mask)
    scores, transitions, end = (keras.ops.cast(x, "float64") for x in (scores, transitions, end))
    gradient = random(*scores.shape, seed=2, dtype="float64")
    actual, vjp = forward_backward.backward_messages_with_vjp(scores, transitions, end, real)
    expected = forward_backward.log_space_messages(
        scores, transitions, end, real, keras.ops.logsumexp
    )
    allowed = array(expected[0]) > forward_backward.NEG_INF / 2
    gradient = np.where(allowed, gradient, 0)
    np.testing.assert_array_equal(array(actual[0]) > forward_backward.NEG_INF / 2, allowed)
    expected_grads = forward_backward._log_space_vjp(
        gradient, scores, transitions, end, real, *expected
    )
    pairs = list(zip([*actual, *vjp(gradient)], [*expected, *expected_grads], strict=True))
    for result, reference in pairs:
        assert np.isfinite(array(result)).all()
        np.testing.assert_allclose(array(result), array(reference), rtol=1e-7, atol=1e-7)


def test_long_sequences_keep_their_precision():
    crf = make()
    scores = np.tile(random(1, 20, CLASSES), (1, 100, 1))
    tags = np.tile(np.random.default_rng(0).integers(0, CLASSES, (1, 20)), (1, 100))
    losses = array(crf.step_losses(scores, tags))[0]
    np.testing.assert_allclose(losses[1000:1020], losses[500:520], rtol=1e-6, atol=1e-6)


# ----------------------------------------------------------------------------------------- padding


@by_mask
def test_results_do_not_depend_on_padding_or_other_rows(mask):
    crf, mask = make(), boolean(mask)
    scores = random(BATCH, TIME, CLASSES) * 3
    tags = np.random.default_rng(2).integers(0, CLASSES, (BATCH, TIME))
    real = np.ones((BATCH, TIME), bool) if mask is None else mask
    nan_padded = np.where(real[..., None], scores, np.nan)

    def results(scores, tags, mask):
        return [
            crf.step_losses(scores, tags, mask),
            crf.marginals(scores, mask),
            crf.decode(scores, mask),
        ]

    whole = [array(x) for x in results(nan_padded, tags, mask)]
    for b in range(BATCH):
        selected = real[b]
        if not selected.any():
            continue
        alone = results(scores[b : b + 1, selected], tags[b : b + 1, selected], None)
        for batch_result, row_result in zip(whole, alone, strict=True):
            np.testing.assert_allclose(
                batch_result[b, selected], array(row_result)[0], rtol=1e-6, atol=1e-6
            )


def test_nan_padding_does_not_reach_gradients():
    crf, mask = make(), boolean("empty_row")
    scores = keras.Variable(np.where(mask[..., None], random(BATCH, TIME, CLASSES), np.nan))
    tags = np.zeros((BATCH, TIME), int)
    gradients = weight_gradients(
        lambda: keras.ops.sum(crf.step_losses(scores, tags, mask)), [scores, *crf.weights]
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0][~mask], 0)
    assert all(gradient.any() for gradient in gradients)


def test_empty_batch_gives_empty_results():
    crf, scores, mask = make(), random(0, TIME, CLASSES), np.zeros((0, TIME), bool)
    assert crf(scores, mask=mask).shape == (0, TIME)
    assert crf.step_losses(scores, np.zeros((0, TIME), int), mask).shape == (0, TIME)
    assert crf.marginals(scores, mask).shape == (0, TIME, CLASSES)


def test_output_carries_the_mask():
    mask = boolean("middle")
    tags = make()(random(BATCH, TIME, CLASSES), mask=mask)
    np.testing.assert_array_equal(array(tags._keras_mask), mask)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16"])
def test_half_precision_policies_compute_in_float32(policy):
    exact, half = make(), make(dtype=policy)
    scores = random(BATCH, TIME, CLASSES)
    tags = np.zeros((BATCH, TIME), int)
    assert {weight.dtype for weight in half.weights} == {"float32"}
    actual = half.step_losses(scores, tags)
    np.testing.assert_array_equal(array(actual), array(exact.step_losses(scores, tags)))


# ------------------------------------------------------------------------------------- constraints


def is_allowed(crf, tags) -> bool:
    transitions, start, end = crf._allowed()
    allowed = all(transitions[a, b] for a, b in itertools.pairwise(tags))
    return not len(tags) or bool(start[tags[0]] and end[tags[-1]] and allowed)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1e6]))
@pytest.mark.slow
def test_forbidden_sequences_are_never_predicted(scheme, seed, scale):
    names = BIO if scheme == "BIO" else [*BIO, "E-a", "S-a"]
    crf = LinearChainCRF(len(names), **bio_constraints(names, scheme))
    rng = np.random.default_rng(seed)
    # Integers, so that there are many ties.
    scores = (rng.integers(-2, 3, (3, 6, len(names))) * scale).astype("float32")
    mask = rng.random((3, 6)) < 0.7
    for b, tags in enumerate(array(crf.decode(scores, mask))):
        assert is_allowed(crf, tags[mask[b]]), tags
    tags, log_probs = (array(x) for x in crf.n_best(scores, 3, mask))
    for b, r in itertools.product(range(3), range(3)):
        assert is_allowed(crf, tags[b, r][mask[b]]) or log_probs[b, r] == -np.inf


def test_large_scores_do_not_allow_a_forbidden_sequence():
    crf = LinearChainCRF(len(BIO), **bio_constraints(BIO))
    scores = np.zeros((1, 300, len(BIO)), "float32")
    scores[0, ::2, 2] = scores[0, 1::2, 4] = 1e6  # I-a, I-b, I-a, ...
    assert is_allowed(crf, array(crf.decode(scores))[0])
    assert array(crf.marginals(scores))[0, 0, 2] == 0


def test_forbidden_gold_sequence_has_a_large_finite_loss():
    crf, scores = LinearChainCRF(len(BIO), **bio_constraints(BIO)), random(1, 4, len(BIO))
    allowed, once, twice = [[0, 1, 2, 0]], [[0, 2, 2, 0]], [[2, 0, 4, 0]]
    losses = [array(crf.step_losses(scores, np.array(y))).sum() for y in (allowed, once, twice)]
    assert losses[0] < 50
    np.testing.assert_allclose(losses[1:], [1e4, 2e4], rtol=0.01)


def test_length_without_an_allowed_sequence_gives_finite_results():
    crf = make(
        allowed=~np.eye(3, dtype=bool),
        allowed_start=[True, False, False],
        allowed_end=[False, True, False],
    )
    scores = random(2, 1, CLASSES)
    tags = np.array([[0], [1]])
    for actual in (crf.step_losses(scores, tags), crf.marginals(scores), crf.log_partition(scores)):
        assert np.isfinite(array(actual)).all()
    assert array(crf.decode(scores)).max() < CLASSES


def test_bio_constraints_follow_the_tagging_schemes():
    bio = bio_constraints(["O", "B-a", "I-a", "I-b"])
    assert bio["allowed"] == [
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, False],
        [True, True, False, True],
    ]
    assert bio["allowed_start"] == [True, True, False, False]
    assert bio["allowed_end"] == [True] * 4
    bioes = bio_constraints(["O", "B-a", "I-a", "E-a", "S-a", "E-b"], "BIOES")
    free, inside = [True, True, False, False, True, False], [False, False, True, True, False, False]
    assert bioes["allowed"] == [free, inside, inside, free, free, free]
    assert bioes["allowed_start"] == free
    assert bioes["allowed_end"] == [True, False, False, True, True, True]


# ----------------------------------------------------------------------------------------- CRFModel


def tagger(masked: bool = True, policy=None, **options) -> CRFModel:
    inputs = keras.Input((None, 2))
    mask = StepMask(float("nan"), name="mask")(inputs) if masked else None
    x = keras.ops.where(keras.ops.isnan(inputs), 0.0, inputs)
    x = keras.layers.Dense(8, activation="tanh", name="hidden", dtype=policy)(x)
    scores = keras.layers.Dense(CLASSES, name="scores", dtype=policy)(x)
    tags = LinearChainCRF(CLASSES, name="tags", dtype=policy, **options)(scores, mask=mask)
    return CRFModel(inputs, tags, name="tagger")


def cycles(rows: int, seed: int = 0):
    """Tags cycle through 0, 1, 2 from a random start; the inputs show only some of them."""
    rng = np.random.default_rng(seed)
    y = (rng.integers(0, 3, (rows, 1)) + np.arange(9)) % 3
    x = np.eye(3)[y][..., :2] * 2 + rng.normal(size=(rows, 9, 2)) * 0.2
    x[:, 1:] *= rng.random((rows, 8, 1)) < 0.3
    real = np.arange(9) < rng.integers(4, 10, (rows, 1))
    return np.where(real[..., None], x, np.nan).astype("float32"), np.where(real, y, 0), real


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=on_graphs)])
@pytest.mark.slow
def test_fit_learns_transitions(jit):
    model, (x, y, real) = tagger(), cycles(256)
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"], jit_compile=jit)
    history = model.fit(x, y, epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    x, y, real = cycles(64, seed=1)
    actual = model.predict(x, verbose=0)
    assert actual.dtype == "int32"
    accuracy = (actual == y)[real].mean()
    assert accuracy > 0.95
    report = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(report["accuracy"], accuracy, rtol=1e-5)
    losses = array(model.get_layer("tags").step_losses(scores_of(model, x), y, real))
    batches = [losses[i : i + 32].sum() / real[i : i + 32].sum() for i in (0, 32)]
    np.testing.assert_allclose(report["loss"], np.mean(batches), rtol=1e-4)


def scores_of(model, x):
    return keras.Model(model.input, model.get_layer("scores").output).predict_on_batch(x)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [None, "row", "step"])
def test_loss_is_averaged_as_in_keras(masked, weights):
    """An untrained CRF is a softmax, and the crossentropy of Keras is the reference."""
    crf, (x, y, _) = tagger(masked), cycles(32)
    x = x if masked else np.nan_to_num(x)
    scores = crf.get_layer("scores").output
    masks = {"mask": crf.get_layer("mask").output} if masked else {}
    softmax = keras.Model(crf.input, CarryMask()(scores, **masks))
    softmax.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    crf.compile()
    sample_weight = None
    if weights:
        sample_weight = np.random.default_rng(0).random((32, 1) if weights == "row" else y.shape)
    each_step = None if weights is None else np.broadcast_to(sample_weight, y.shape)
    expected = softmax.evaluate(x, y, sample_weight=each_step, verbose=0)
    rows = sample_weight[:, 0] if weights == "row" else sample_weight
    actual = crf.evaluate(x, y, sample_weight=rows, verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@keras.saving.register_keras_serializable(package="test_crf")
class CarryMask(keras.layers.Layer):
    """Passes scores on with a mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return x

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask


def test_weighted_metrics_and_regularizers_apply():
    model, (x, y, real) = tagger(transition_regularizer="l2"), cycles(32)
    model.compile(metrics=["accuracy"], weighted_metrics=["accuracy"])
    weights = np.random.default_rng(0).random(32)
    model.get_layer("tags").set_weights([random(3, 3), random(3), random(3)])
    report = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    right, each = (
        (model.predict(x, verbose=0) == y)[real],
        np.broadcast_to(weights[:, None], (32, 9)),
    )
    np.testing.assert_allclose(report["accuracy"], right.mean(), rtol=1e-5)
    expected = np.average(right, weights=each[real])
    np.testing.assert_allclose(report["weighted_accuracy"], expected, rtol=1e-5)
    losses = array(model.get_layer("tags").step_losses(scores_of(model, x), y, real))
    squares = sum((weight**2).sum() for weight in model.get_layer("tags").get_weights())
    expected = (losses * weights[:, None]).sum() / real.sum() + 0.01 * squares
    np.testing.assert_allclose(report["loss"], expected, rtol=1e-5)


def test_training_decodes_for_metrics_only_and_calls_the_network_once(monkeypatch):
    decoded, hidden = [], []
    monkeypatch.setattr(
        LinearChainCRF, "decode", lambda self, x, mask=None: decoded.append(1) or x[..., 0]
    )
    model, (x, y, _) = tagger(), cycles(8)
    layer = model.get_layer("hidden")
    call = layer.call
    monkeypatch.setattr(layer, "call", lambda *a, **k: hidden.append(1) or call(*a, **k))
    for metrics in ([], ["accuracy"]):
        model.compile("adam", metrics=metrics, run_eagerly=True)
        model.train_on_batch(x, y)  # the PyTorch backend traces the trainable weights once
        decoded.clear(), hidden.clear()
        model.train_on_batch(x, y)
        assert len(hidden) == 1
        assert bool(decoded) == bool(metrics)


def test_dropout_is_active_in_training_only():
    inputs = keras.Input((None, CLASSES))
    model = CRFModel(inputs, LinearChainCRF(CLASSES)(keras.layers.Dropout(0.9)(inputs)))
    model.compile(keras.optimizers.SGD(0.0))
    x, y = random(4, 6, CLASSES) * 5, np.zeros((4, 6), int)
    assert model.test_on_batch(x, y) == model.test_on_batch(x, y)
    assert model.train_on_batch(x, y) != model.train_on_batch(x, y)


@on_graphs
@pytest.mark.slow
def test_steps_per_execution_does_not_change_training():
    x, y, _ = cycles(64)
    losses = []
    for steps in (1, 4):
        keras.utils.set_random_seed(3)
        model = tagger()
        model.compile("adam", metrics=["accuracy"], steps_per_execution=steps)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        losses.append(model.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_model_file_and_clone_restore_the_model(tmp_path):
    options = bio_constraints(["O", "B-a", "I-a"]) | {"transition_regularizer": "l2"}
    model, (x, y, _) = tagger(**options), cycles(32)
    model.compile("adam", metrics=["accuracy"])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded, clone = (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    )
    assert type(loaded) is type(clone) is CRFModel
    clone.compile("adam", metrics=["accuracy"])
    clone.set_weights(model.get_weights())
    for other in (loaded, clone):
        np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
        actual, expected = (m.evaluate(x, y, verbose=0, return_dict=True) for m in (other, model))
        assert actual.keys() == expected.keys() == {"loss", "accuracy"}
        np.testing.assert_allclose(list(actual.values()), list(expected.values()), rtol=1e-5)
    trained = [m.train_on_batch(x, y)[0] for m in (loaded, model)]
    np.testing.assert_allclose(*trained, rtol=1e-5)
    assert loaded.get_layer("tags").get_config() == model.get_layer("tags").get_config()


@pytest.mark.tensorflow
@pytest.mark.parametrize("jit", [False, True])
def test_traced_function_predicts_tags_for_any_batch_size_and_time(jit):
    model, (x, _, _) = tagger(), cycles(16)
    signature = [tf.TensorSpec((None, None, 2))]
    serve = tf.function(
        lambda x: model(x, training=False), input_signature=signature, jit_compile=jit
    )
    for part in (x, x[:3, :4], x[:1, :1]):
        actual = serve(part)
        assert actual.dtype == tf.int32
        np.testing.assert_array_equal(array(actual), model.predict(part, verbose=0))


def test_training_works_with_a_mixed_policy():
    model, (x, y, _) = tagger(policy="mixed_float16"), cycles(32)
    model.compile("adam", metrics=["accuracy"])
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


# ------------------------------------------------------------------------------- rejected arguments


@pytest.mark.parametrize("classes", [1, 0, 2.0, True, None])
def test_invalid_number_of_classes_is_rejected(classes):
    with pytest.raises(ArgumentError, match="`classes`"):
        LinearChainCRF(classes)


@pytest.mark.parametrize("allowed", [[[True]], [[1, 0], [0, 1]], [[True], [True, False]], True])
def test_constraints_of_wrong_shape_or_dtype_are_rejected(allowed):
    with pytest.raises(ArgumentError, match="`allowed`"):
        LinearChainCRF(2, allowed=allowed)


def test_constraints_without_an_allowed_sequence_are_rejected():
    with pytest.raises(ArgumentError, match="at least one sequence"):
        LinearChainCRF(2, allowed_start=[False, False])
    with pytest.raises(ArgumentError, match="at least one sequence"):
        bio = bio_constraints(["B-a", "I-a"], "BIOES")
        LinearChainCRF(2, **bio)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5), (2, 4, 3, 1)])
def test_scores_of_wrong_shape_are_rejected(shape):
    for function in (LinearChainCRF(3), LinearChainCRF(3).marginals, make().decode):
        with pytest.raises(ArgumentError, match="`scores`"):
            function(np.zeros(shape, "float32"))


def test_invalid_tags_masks_and_n_are_rejected():
    crf, scores = make(), random(2, 4, CLASSES)
    with pytest.raises(ArgumentError, match="`tags`"):
        crf.step_losses(scores, np.zeros((2, 4, 3)))
    with pytest.raises(ArgumentError, match="`mask`"):
        crf.decode(scores, np.ones((2, 4, 1), bool))
    with pytest.raises(ArgumentError, match="`n`"):
        crf.n_best(scores, 0)


@pytest.mark.parametrize("names", [["O", "X-a"], ["O", "B"], ["O", "B-"], ["O", 3], ["O", "E-a"]])
def test_invalid_tag_names_are_rejected(names):
    with pytest.raises(ArgumentError, match="`tag_names`"):
        bio_constraints(names)


@pytest.mark.parametrize("names", [[], ["O"], ["O", "B-a", "O"]])
def test_too_few_tag_names_and_unknown_schemes_are_rejected(names):
    with pytest.raises(ArgumentError, match="`tag_names`"):
        bio_constraints(names)
    with pytest.raises(ArgumentError, match="`scheme`"):
        bio_constraints(["O", "B-a"], "IOB1")


def test_compile_with_a_loss_is_rejected():
    with pytest.raises(ArgumentError, match="`loss`"):
        tagger().compile("adam", "mse")


def test_outputs_of_other_layers_are_rejected():
    inputs = keras.Input((None, 3))
    with pytest.raises(ArgumentError, match="`outputs`"):
        CRFModel(inputs, keras.layers.Dense(3)(inputs))


# ---------------------------------------------------------------------------------- other backends

PROGRAM = """
import keras, numpy as np
from keras_seqzoo.layers import CRFModel, LinearChainCRF, bio_constraints
rng = np.random.default_rng(0)
crf = LinearChainCRF(3, **bio_constraints(["O", "B-a", "I-a"]))
crf.build((None, None, 3))
crf.set_weights([rng.normal(size=w.shape) for w in crf.weights])
x, mask = rng.normal(size=(4, 6, 3)).astype("float32"), rng.random((4, 6)) < 0.7
y = np.array(crf.decode(x, mask))
results = [crf.step_losses(x, y, mask), y, crf.marginals(x, mask), *crf.n_best(x, 3, mask)]
inputs, masks = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
dense = keras.layers.Dense(3, kernel_initializer="ones")
model = CRFModel([inputs, masks], crf(dense(inputs), mask=masks))
model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], jit_compile=JIT)
model.fit([x, mask], y, epochs=2, verbose=0)
results += [*model.evaluate([x, mask], y, verbose=0), *crf.get_weights()]
results.append(model.predict([x, mask], verbose=0))
np.savez(PATH, *[keras.ops.convert_to_numpy(result) for result in results])
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_match_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    results = []
    for name in ("tensorflow", backend):
        path = tmp_path / f"{name}.npz"
        code = PROGRAM.replace("PATH", repr(str(path))).replace("JIT", str(name == "jax"))
        environment = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        with np.load(path) as arrays:
            results.append([arrays[name] for name in arrays.files])
    for result, reference in zip(*results, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5)
