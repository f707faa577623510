"""Autoencoders: encoder and decoder as models, decoder modes, masking, invalid arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers import LastState
from keras_seqzoo.layers.seq2seq.code_decoder import previous_real_step
from keras_seqzoo.models import decoder, encoder
from keras_seqzoo.tuning.vectorized.packed_model import PackedModel
from tests.conformance.table import build_case, make_inputs, pad, prepare, readings

NAN = float("nan")
SMALL = {"features": 2, "units": 3, "code_size": 2, "mask_value": NAN}


def encode_and_decode(model, x):
    """Output of the model's encoder and decoder, one after the other."""
    code = encoder(model).predict(x, verbose=0)
    if len(model.output_shape) == 2:
        return decoder(model).predict(code, verbose=0)
    real = (x != 0) if x.ndim == 2 else ~np.isnan(x).all(axis=-1)
    inputs = [code["code"], real, code["memory"]] if isinstance(code, dict) else [code, real]
    return decoder(model).predict(inputs, verbose=0)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("linear_rnn_autoencoder", "nan_padding"),
        ("lstm_autoencoder", "reversed"),
        ("attention_autoencoder", "multi_head"),
        ("attention_autoencoder", "dot"),
    ],
)
def test_encoder_then_decoder_equals_the_model(name, case):
    model = build_case(name, case)()
    (x,) = pad(make_inputs(model, 3, 6), 2, 3, NAN)
    np.testing.assert_allclose(
        encode_and_decode(model, x), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6
    )


def test_encoder_and_decoder_share_the_weights_of_the_unchanged_model(tmp_path):
    model = build_case("lstm_autoencoder", "reversed")()
    (x,) = make_inputs(model, 3, 6)
    before = model.predict(x, verbose=0)
    halves = encoder(model), decoder(model)
    expected = {id(weight) for weight in model.weights}
    assert {id(weight) for half in halves for weight in half.weights} == expected
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), before)
    np.testing.assert_allclose(encode_and_decode(loaded, x), before, rtol=1e-6)
    np.testing.assert_array_equal(model.get_layer("code").output.shape, (None, 2))


@pytest.mark.tensorflow
def test_encoder_and_decoder_export(tmp_path):
    model = build_case("attention_autoencoder", "multi_head")()
    for half in (encoder(model), decoder(model)):
        parity = zoo.export(half, tmp_path / half.name, verbose=0)
        assert parity.difference <= 1e-5
        assert {case["steps"] for case in parity.cases} == {1, 7, 50}


def test_the_decoder_of_a_teacher_forced_model_is_free_running():
    """It equals a free-running model with the same weights."""
    forced = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="teacher_forced"))
    free = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="free_running"))
    free.set_weights(forced.get_weights())
    x = readings(3, 6, 2)
    np.testing.assert_allclose(encode_and_decode(forced, x), free.predict(x, verbose=0), rtol=1e-6)
    assert not np.allclose(forced.predict(x, verbose=0), free.predict(x, verbose=0))


def test_teacher_forced_outputs_depend_on_earlier_target_steps_only():
    model = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="teacher_forced"))
    layer = model.get_layer("decoder")
    rng = np.random.default_rng(0)
    code, real = rng.normal(size=(2, 2)).astype("float32"), np.ones((2, 6), bool)
    targets = rng.normal(size=(2, 6, 2)).astype("float32")
    outputs = np.asarray(layer(code, target_mask=real, targets=targets))
    targets[:, 3] += 1
    changed = np.asarray(layer(code, target_mask=real, targets=targets)) != outputs
    assert not changed[:, :4].any() and changed[:, 4].any()


def test_previous_real_step_skips_padding():
    x = np.arange(1.0, 7.0)[None, :, None]
    real = np.array([[False, True, False, True, True, False]])
    previous = np.asarray(previous_real_step(x, real))[0, :, 0]
    np.testing.assert_array_equal(previous[real[0]], [0, 2, 4])


def test_last_state_is_the_last_real_step_forward_and_the_first_backward():
    x = np.arange(12.0).reshape(1, 3, 4)
    mask = np.array([[False, True, True]])
    np.testing.assert_array_equal(LastState(True)(x, mask=mask)[0], [8, 9, 6, 7])
    np.testing.assert_array_equal(LastState()(x, mask=mask)[0], x[0, 2])
    np.testing.assert_array_equal(LastState()(x, mask=~mask | mask)[0], x[0, 2])
    np.testing.assert_array_equal(LastState(True)(x, mask=mask & False)[0], 0)


def test_reversed_decoder_outputs_the_steps_of_the_repeat_decoder_in_reverse():
    repeat = prepare(zoo.get("lstm_autoencoder", **SMALL))
    reverse = prepare(zoo.get("lstm_autoencoder", **SMALL, decoder="reversed"))
    (x,) = pad((readings(2, 5, 2),), 0, 3, NAN)
    forward, backward = repeat.predict(x, verbose=0), reverse.predict(x, verbose=0)
    np.testing.assert_allclose(forward[:, :5], backward[:, 4::-1], rtol=1e-6)


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
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        zoo.get("lstm_autoencoder", **arguments)


def test_encoder_and_decoder_reject_other_models():
    for half in (encoder, decoder):
        with pytest.raises(ArgumentError, match="list_models"):
            half(zoo.get("gru_tagger"))
        with pytest.raises(ArgumentError, match="list_models"):
            half(None)


def test_rows_of_a_batch_do_not_affect_each_other():
    """A sequence in a padded batch has the output that it has alone."""
    model = prepare(zoo.get("attention_autoencoder", **SMALL))
    rows = [readings(1, length, 2, seed=length) for length in (1, 4, 9)]
    batch = np.concatenate([pad((row,), 0, 9 - row.shape[1], NAN)[0] for row in rows])
    outputs = model.predict(batch, verbose=0)
    for row, output in zip(rows, outputs, strict=True):
        alone = model.predict(row, verbose=0)[0]
        np.testing.assert_allclose(output[: len(alone)], alone, rtol=1e-5)
        assert not output[len(alone) :].any()


@pytest.mark.tensorflow
@pytest.mark.slow
def test_training_compiled_by_xla_equals_eager_training():
    """XLA compiles the loop of a free-running decoder."""
    x = readings(8, 6, 2)
    losses = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        model = prepare(zoo.get("gru_autoencoder", **SMALL, decoder="free_running"))
        model.compile("sgd", zoo.layers.NormalizedMeanSquaredError(), **options)
        losses.append([float(model.train_on_batch(x, x)) for _ in range(2)])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert isinstance(model, keras.Model)


@pytest.mark.tensorflow
def test_autoencoders_do_not_support_packed_training():
    models = [zoo.get("gru_autoencoder", units=units, code_size=2) for units in (4, 8)]
    assert PackedModel.obstacle(*models) == "there is no rule for LastState"


@pytest.mark.parametrize("name", ["linear_rnn_autoencoder", "gru_autoencoder"])
@pytest.mark.slow
def test_search_minimizes_the_identity_error(name, tmp_path):
    x = readings(24, 6, 2)
    search = zoo.search(
        name, x, max_trials=2, epochs=2, directory=tmp_path, population=2, verbose=0,
        space={"units": [4, 6], "code_size": [2, 3]},
    )  # fmt: skip
    assert (search.results["state"] == "complete").all()
    errors = search.results["val_identity_error"]
    assert int(search.chosen.trial_id) == errors.idxmin()
    best = search.best_model
    assert best.output_shape == ((None, 2) if name.startswith("linear") else (None, None, 2))
    np.testing.assert_allclose(zoo.metrics.identity_error(best, x[18:]), errors.min(), rtol=1e-4)
    assert (tmp_path / "report.html").exists()
