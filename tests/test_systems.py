"""Complete use cases: shapes, training, error and leakage of whole systems."""

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import DataError
from keras_seqzoo.losses import NormalizedMeanSquaredError

# Keras supports several steps per execution on compiled backends alone.
STEPS_PER_EXECUTION = 1 if keras.backend.backend() == "torch" else 8


def readings(features, steps, rows=256, seed=0):
    """Independent raw readings between 1 and 15."""
    return np.random.default_rng(seed).uniform(1, 15, (rows, steps, features)).astype("float32")


def train_identity(x, *, epochs=40, **config):
    """A trained `simple_rnn_identity`."""
    model = zoo.get("simple_rnn_identity", features=x.shape[-1], **config)
    zoo.adapt(model, x)
    model.compile(
        keras.optimizers.Adam(0.02),
        NormalizedMeanSquaredError(x.var(axis=(0, 1))),
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    last = not config.get("return_sequences", True)
    model.fit(x, x[:, -1] if last else x, epochs=epochs, batch_size=32, verbose=0)
    return model


def test_identity_of_two_units_reconstructs_the_last_of_five_inputs():
    model = train_identity(readings(1, 5), units=2, time=5, return_sequences=False)
    assert model.output_shape == (None, 1)
    fresh = readings(1, 5, seed=1)
    assert zoo.metrics.identity_error(model, fresh) < 0.05
    assert zoo.leakage(model, fresh).index < 0.02


LAST_OF_FIVE = {"units": 5, "time": 5, "return_sequences": False}


@pytest.fixture(scope="module")
def unregularized_leakage():
    keras.utils.set_random_seed(20240229)
    model = train_identity(readings(1, 5), **LAST_OF_FIVE)
    return zoo.leakage(model, readings(1, 5, seed=1)).index


@pytest.mark.parametrize("kind", ["l1", "l2", "l1_l2"])
@pytest.mark.slow
def test_recurrent_regularizer_lowers_the_leakage(kind, unregularized_leakage):
    regularizer = {
        "l1": keras.regularizers.L1(0.01),
        "l2": keras.regularizers.L2(0.01),
        "l1_l2": keras.regularizers.L1L2(0.01, 0.01),
    }[kind]
    model = train_identity(readings(1, 5), recurrent_regularizer=regularizer, **LAST_OF_FIVE)
    assert zoo.leakage(model, readings(1, 5, seed=1)).index < 0.7 * unregularized_leakage


@pytest.mark.slow
def test_identity_reconstructs_three_features_at_every_step():
    x = readings(3, 3)
    model = train_identity(x, units=3, time=3)
    assert model.predict_on_batch(x).shape == x.shape
    fresh = readings(3, 3, seed=1)
    assert zoo.metrics.identity_error(model, fresh) < 0.05
    assert zoo.leakage(model, fresh).by_feature.max() < 0.02


@pytest.mark.slow
def test_anomaly_score_stays_within_its_leakage_budget_and_detects_the_fault():
    budget = 0.02
    record = zoo.data.synthetic_readings(steps=4000)
    train, later = record.split(0.75, 0.25)
    x, x_later = (
        zoo.data.make_windows(train, sequence_length=20),
        zoo.data.make_windows(later, sequence_length=20),
    )
    model = train_identity(
        x, units=16, recurrent_regularizer=keras.regularizers.L1(0.1), recurrent_initializer="zeros"
    )
    score = zoo.diagnostics.anomaly_score(model, x)
    assert score(x_later).shape == x_later.shape[:2]
    assert zoo.leakage(score, x_later).index < budget
    alone = zoo.diagnostics.anomaly_score(model, x, alone=True)
    assert zoo.leakage(alone, x_later).index == 0
    fault = np.zeros(len(record), bool)
    fault[zoo.data.sensor_fault(steps=4000)] = True
    scores = score(x_later).ravel()
    at_fault = fault[len(train) :][: scores.size]
    assert scores[at_fault].mean() > 1.5 * scores[~at_fault].mean()


@pytest.mark.slow
def test_raw_readings_saturate_tanh_and_scaled_readings_do_not():
    x = readings(1, 5)
    for normalize, least, most in ((False, 0.3, 1.0), (True, 0.0, 0.01)):
        saturated = []
        for _ in range(5):  # initial weights differ between backends
            model = zoo.get("simple_rnn_identity", units=8, normalize=normalize)
            if normalize:
                zoo.adapt(model, x)
            states = keras.Model(model.input, model.get_layer("recurrent").output)
            saturated.append((np.abs(states.predict_on_batch(x)) > 0.99).mean())
        assert least <= np.mean(saturated) <= most, saturated


# Output shapes of classifiers, taggers, forecasters and encoder-decoders.


@pytest.mark.slow
def test_simple_rnn_classifier_predicts_from_the_last_real_state():
    """4 sequences of 20 steps and 10 features, 20 units, 3 classes."""
    model = zoo.get("simple_rnn_classifier", features=10, units=20, classes=3, mask_value=0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 20, 10)).astype("float32")
    zoo.adapt(model, x)
    y = np.asarray(model(x))
    assert y.shape == (4, 3)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-6)
    padded = np.concatenate([x, np.zeros((4, 5, 10), "float32")], axis=1)
    np.testing.assert_allclose(np.asarray(model(padded)), y, rtol=1e-6)
    changed = np.concatenate([x[:, :-1], x[:, -1:] + 1], axis=1)
    assert np.abs(np.asarray(model(changed)) - y).max() > 1e-3


@pytest.mark.slow
def test_simple_rnn_tagger_learns_a_tag_for_every_step():
    """4 sequences of 20 steps and 10 features, 20 units; the tag is the largest feature."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 20, 10)).astype("float32")
    tags = x[..., :5].argmax(axis=-1)
    model = zoo.get("simple_rnn_tagger", features=10, units=20, classes=5)
    zoo.adapt(model, x)
    assert model(x[:4]).shape == (4, 20, 5)
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    history = model.fit(x, tags, epochs=30, verbose=0)
    assert history.history["accuracy"][-1] > 0.8


@pytest.mark.slow
def test_forecaster_learns_the_next_reading_at_every_step():
    """x_t = 0.9 x_(t-1) + noise of variance 0.19, the least possible error."""
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=np.sqrt(0.19), size=(256, 31, 1))
    x = np.zeros((256, 31, 1))
    x[:, 0] = rng.normal(size=(256, 1))
    for step in range(1, 31):
        x[:, step] = 0.9 * x[:, step - 1] + noise[:, step]
    model = zoo.get("gru_forecaster", features=1, units=8)
    zoo.adapt(model, x)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x[:192, :-1], x[:192, 1:], epochs=20, verbose=0)
    assert zoo.metrics.identity_error(model, x[192:, :-1], x[192:, 1:]) < 0.25


@pytest.mark.parametrize("name", ["gru_encoder_decoder", "vector_encoder_decoder"])
def test_encoder_decoder_generates_max_length_vectors(name):
    """From 4 sequences of 15 steps and 10 features to 25 steps of 5 features."""
    model = zoo.get(name, source_features=10, target_features=5, units=12)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 15, 10)), rng.normal(3, 2, size=(4, 25, 5))
    zoo.adapt(model, x, target=y)
    forced = model([x, np.concatenate([np.zeros((4, 1, 5)), y[:, :-1]], axis=1)])
    assert forced.shape == (4, 25, 5)
    generated = model.generate(x, max_length=25).sequences
    assert generated.shape == (4, 25, 5) and np.ptp(generated, axis=1).max() > 0.01
    assert model.generate(x, max_length=7).sequences.shape == (4, 7, 5)


def test_encoder_decoder_generates_tokens_until_the_end_token():
    """The decoder sets the output length of tokens."""
    model = zoo.get(
        "attention_gru_encoder_decoder", source_vocabulary_size=10, target_vocabulary_size=8,
        units=12,
    )  # fmt: skip
    source = np.random.default_rng(0).integers(1, 10, (4, 15))
    assert model([source, np.full((4, 25), 2)]).shape == (4, 25, 8)
    sequences = model.generate(source, max_length=25).sequences
    lengths = (sequences > 0).sum(axis=1)
    assert sequences.shape == (4, 25)
    for sequence, length in zip(sequences, lengths, strict=True):
        assert (sequence[:length] > 2).any() or length == 0
        assert not sequence[length:].any()


def test_leakage_of_a_multi_step_forecaster_needs_an_output_step():
    """Its outputs are not aligned with the time of the inputs."""
    preprocessor = zoo.data.PairPreprocessor(2, 1, max_length=6)
    network = zoo.get("vector_encoder_decoder", **preprocessor.model_arguments(), units=8)
    x = np.random.default_rng(0).normal(size=(32, 20, 2)).astype("float32")
    zoo.adapt(network, x, target=x[:, :6, :1])
    model = zoo.tasks.end_to_end(network, preprocessor)
    with pytest.raises(DataError, match="output_step"):
        zoo.leakage(model, x)
    report = zoo.leakage(model, x, output_step=3)
    assert 0 < report.index < 3


# Autoencoders.


def train_autoencoder(name, x, *, epochs, **config):
    """A trained autoencoder."""
    model = zoo.get(name, features=x.shape[-1], **config)
    zoo.adapt(model, x)
    model.compile(
        keras.optimizers.Adam(1e-2), NormalizedMeanSquaredError(np.nanvar(x, axis=(0, 1))),
        steps_per_execution=STEPS_PER_EXECUTION,
    )  # fmt: skip
    y = x[:, -1] if len(model.output_shape) == 2 else np.nan_to_num(x)
    model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
    return model


@pytest.mark.slow
def test_linear_autoencoder_reconstructs_the_last_of_twenty_inputs():
    """20 steps of 10 features, a linear code of size 10."""
    x, fresh = readings(10, 20, rows=512), readings(10, 20, seed=1)
    model = train_autoencoder("linear_rnn_autoencoder", x, epochs=30)
    assert zoo.models.encoder(model).output_shape == (None, 10)
    assert model.output_shape == (None, 10)
    assert zoo.metrics.identity_error(model, fresh) < 0.05


def sines(rows, steps, features, rank, seed=0):
    """Sequences of low rank, which fit into a code: sines of random phases in a few directions."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(rank, features))
    phases = rng.uniform(0, 2 * np.pi, (rows, 1, rank))
    speeds = np.linspace(0.2, 0.5, rank)
    return (np.sin(speeds * np.arange(steps)[:, None] + phases) @ mixing).astype("float32")


@pytest.mark.slow
def test_attention_autoencoder_reconstructs_sequences_of_any_length():
    """Unequal lengths, loss over the real steps; padding changes no output."""
    x, fresh = sines(256, 12, 10, 3), sines(256, 12, 10, 3, seed=1)
    lengths = np.random.default_rng(0).integers(4, 13, len(x))
    x[np.arange(12) >= lengths[:, None]] = np.nan
    model = train_autoencoder("attention_autoencoder", x, units=32, mask_value=np.nan, epochs=30)
    assert zoo.metrics.identity_error(model, fresh[:, :7]) < 0.1
    short = np.asarray(model(fresh[:, :7]))
    padded = np.pad(fresh[:, :7], ((0, 0), (2, 9), (0, 0)), constant_values=np.nan)
    outputs = np.asarray(model(padded))
    np.testing.assert_allclose(outputs[:, 2:9], short, rtol=1e-4, atol=1e-4)
    assert not outputs[:, :2].any() and not outputs[:, 9:].any()


@pytest.mark.slow
def test_lstm_autoencoder_reconstructs_every_step_from_one_code():
    """20 steps of 10 features."""
    x, fresh = sines(256, 20, 10, 3), sines(256, 20, 10, 3, seed=1)
    model = train_autoencoder("lstm_autoencoder", x, units=48, code_size=16, epochs=30)
    assert zoo.models.encoder(model).output_shape == (None, 16)
    assert model.output_shape == (None, None, 10)
    assert zoo.metrics.identity_error(model, fresh) < 0.1
