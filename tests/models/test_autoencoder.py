"""Autoencoders: their halves, what their decoders are given, and what cannot be."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers import LastState
from keras_seqzoo.layers.seq2seq.code_decoder import step_before
from keras_seqzoo.models import decoder, encoder
from keras_seqzoo.tuning.vectorized.packed_model import Packed
from tests.conformance.table import build_case, make_inputs, pad, prepare, readings

NAN = float("nan")
SMALL = {"features": 2, "units": 3, "code_size": 2, "mask_value": NAN}


def halves(model, x):
    """What the halves say one after the other."""
    code = encoder(model).predict(x, verbose=0)
    if len(model.output_shape) == 2:
        return decoder(model).predict(code, verbose=0)
    real = (x != 0) if x.ndim == 2 else ~np.isnan(x).all(axis=-1)
    seen = [code["code"], real, code["memory"]] if isinstance(code, dict) else [code, real]
    return decoder(model).predict(seen, verbose=0)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("linear_rnn_autoencoder", "nan_padding"),
        ("lstm_autoencoder", "reversed"),
        ("attention_autoencoder", "multi_head"),
        ("attention_autoencoder", "dot"),
    ],
)
def test_the_halves_say_together_what_the_model_says(name, case):
    model = build_case(name, case)()
    (x,) = pad(make_inputs(model, 3, 6), 2, 3, NAN)
    np.testing.assert_allclose(halves(model, x), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


def test_the_halves_share_the_weights_of_the_model_and_leave_it_as_it_was(tmp_path):
    model = build_case("lstm_autoencoder", "reversed")()
    (x,) = make_inputs(model, 3, 6)
    before = model.predict(x, verbose=0)
    first, second = encoder(model), decoder(model)
    ours = {id(weight) for weight in model.weights}
    assert {id(weight) for half in (first, second) for weight in half.weights} == ours
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), before)
    np.testing.assert_allclose(halves(loaded, x), before, rtol=1e-6)
    np.testing.assert_array_equal(model.get_layer("code").output.shape, (None, 2))


@pytest.mark.tensorflow
def test_both_halves_export(tmp_path):
    model = build_case("attention_autoencoder", "multi_head")()
    for half in (encoder(model), decoder(model)):
        parity = zoo.export(half, tmp_path / half.name, verbose=0)
        assert parity.difference <= 1e-5
        assert {one["steps"] for one in parity.cases} == {1, 7, 50}


def test_a_decoder_taught_by_the_truth_runs_freely_alone():
    """With the weights of one that is fed what it says, it says the same."""
    taught = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="teacher_forced"))
    free = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="free_running"))
    free.set_weights(taught.get_weights())
    x = readings(3, 6, 2)
    np.testing.assert_allclose(halves(taught, x), free.predict(x, verbose=0), rtol=1e-6)
    assert not np.allclose(taught.predict(x, verbose=0), free.predict(x, verbose=0))


def test_a_decoder_that_is_given_the_truth_sees_the_step_before_and_none_after():
    model = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="teacher_forced"))
    inside = model.get_layer("decoder")
    rng = np.random.default_rng(0)
    code, real = rng.normal(size=(2, 2)).astype("float32"), np.ones((2, 6), bool)
    truth = rng.normal(size=(2, 6, 2)).astype("float32")
    said = np.asarray(inside(code, real=real, given=truth))
    truth[:, 3] += 1
    changed = np.asarray(inside(code, real=real, given=truth)) != said
    assert not changed[:, :4].any() and changed[:, 4].any()


def test_the_step_before_is_the_real_one():
    x = np.arange(1.0, 7.0)[None, :, None]
    real = np.array([[False, True, False, True, True, False]])
    found = np.asarray(step_before(x, real))[0, :, 0]
    np.testing.assert_array_equal(found[real[0]], [0, 2, 4])


def test_the_last_state_is_that_of_either_direction():
    x = np.arange(12.0).reshape(1, 3, 4)
    mask = np.array([[False, True, True]])
    np.testing.assert_array_equal(LastState(True)(x, mask=mask)[0], [8, 9, 6, 7])
    np.testing.assert_array_equal(LastState()(x, mask=mask)[0], x[0, 2])
    np.testing.assert_array_equal(LastState()(x, mask=~mask | mask)[0], x[0, 2])
    np.testing.assert_array_equal(LastState(True)(x, mask=mask & False)[0], 0)


def test_reversed_saying_is_saying_of_what_was_turned():
    """From a code alone, the reversed decoder says what "repeat" says, from the other end."""
    there = prepare(zoo.get("lstm_autoencoder", **SMALL))
    back = prepare(zoo.get("lstm_autoencoder", **SMALL, decoder="reversed"))
    (x,) = pad((readings(2, 5, 2),), 0, 3, NAN)
    said, turned = there.predict(x, verbose=0), back.predict(x, verbose=0)
    np.testing.assert_allclose(said[:, :5], turned[:, 4::-1], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "relu"}, "'linear', 'simple_rnn'"),
        ({"code_size": 0}, "`code_size`"),
        ({"decoder": "forced"}, "'teacher_forced'"),
        ({"reconstruct": "first"}, "'sequence', 'last'"),
        ({"reconstruct": "last", "decoder": "reversed"}, "'repeat'"),
        ({"reconstruct": "last", "attention": "dot"}, "`attention` must be None"),
        ({"attention": "dot", "bidirectional": True}, "as wide as the memory"),
        ({"features": 2, "vocabulary_size": 5}, "not both"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.get("lstm_autoencoder", **arguments)


def test_other_models_have_no_halves():
    for half in (encoder, decoder):
        with pytest.raises(ArgumentError, match="list_models"):
            half(zoo.get("gru_tagger"))
        with pytest.raises(ArgumentError, match="list_models"):
            half(None)


def test_every_row_alone_says_what_it_says_in_company():
    """Lengths of a batch differ; each sequence is as good as alone, also in training's loss."""
    model = prepare(zoo.get("attention_autoencoder", **SMALL))
    rows = [readings(1, length, 2, seed=length) for length in (1, 4, 9)]
    batch = np.concatenate([pad((row,), 0, 9 - row.shape[1], NAN)[0] for row in rows])
    said = model.predict(batch, verbose=0)
    for row, found in zip(rows, said, strict=True):
        alone = model.predict(row, verbose=0)[0]
        np.testing.assert_allclose(found[: len(alone)], alone, rtol=1e-5)
        assert not found[len(alone) :].any()


@pytest.mark.tensorflow
def test_training_in_one_program_is_training_step_by_step():
    """XLA compiles the loop of a decoder that is fed what it says."""
    x = readings(8, 6, 2)
    losses = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        model = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="free_running"))
        model.compile("sgd", zoo.layers.NormalizedMeanSquaredError(), **options)
        losses.append([float(model.train_on_batch(x, x)) for _ in range(2)])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert isinstance(model, keras.Model)


@pytest.mark.tensorflow
def test_trials_of_autoencoders_are_not_trained_together():
    models = [zoo.get("gru_autoencoder", units=units, code_size=2) for units in (4, 8)]
    assert Packed.obstacle(*models) == "there is no rule for LastState"


@pytest.mark.parametrize("name", ["linear_rnn_autoencoder", "gru_autoencoder"])
def test_a_search_minimizes_the_error_alone(name, tmp_path):
    """An autoencoder is to remember."""
    x = readings(24, 6, 2)
    found = zoo.search(
        name, x, max_trials=2, epochs=2, directory=tmp_path, population=2, verbose=0,
        space={"units": [4, 6], "code_size": [2, 3]},
    )  # fmt: skip
    assert (found.results["state"] == "complete").all()
    errors = found.results["val_identity_error"]
    assert int(found.chosen.trial_id) == errors.idxmin()
    best = found.best_model
    assert best.output_shape == ((None, 2) if name.startswith("linear") else (None, None, 2))
    np.testing.assert_allclose(zoo.metrics.identity_error(best, x[18:]), errors.min(), rtol=1e-4)
    assert (tmp_path / "report.html").exists()
