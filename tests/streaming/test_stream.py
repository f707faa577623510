"""Streams: step by step is the whole sequence; states are the clients' own; NaN poisons nothing."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers as k
from keras import ops

import keras_seqzoo as zoo
from keras_seqzoo import registry
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.streaming.stream import streamer_of
from tests.conformance.table import TABLE

NAN = float("nan")
ROWS, STEPS = 3, 1_000


def seeded(model: keras.Model) -> keras.Model:
    """Weights of moderate size, none of them 0."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        size = 0.9 / np.sqrt(weight.shape[0]) if len(weight.shape) > 1 else 0.3
        weight.assign(size * rng.normal(size=weight.shape))
    return model


@functools.cache
def built(name: str, **config) -> keras.Model:
    model = seeded(zoo.get(name, **config))
    if any(layer.name == "scale" for layer in model.layers):
        rng = np.random.default_rng(5)
        zoo.adapt(model, 3.0 + 2.0 * rng.normal(size=(50, 9, model.inputs[0].shape[-1])))
    return model


def drawn(model: keras.Model, rows: int = ROWS, steps: int = STEPS) -> np.ndarray:
    rng = np.random.default_rng(1)
    tensor = model.inputs[0]
    if tensor.dtype.startswith("int"):
        return rng.integers(1, 7, (rows, steps)).astype(tensor.dtype)
    return (3.0 + 2.0 * rng.normal(size=(rows, steps, tensor.shape[-1]))).astype("float32")


def padded(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """The first rows with padding on the left, in the middle and on the right, if there is any."""
    for layer in model.layers:
        value = getattr(layer, "mask_value", None)
        if value is not None:
            x = x.copy()
            x[0, :3], x[1, 5:9], x[2, -4:] = value, value, value
            return x
    return x


def taken(streamer, x, state=None):
    """The outputs of all steps, and the last state."""
    state = streamer.initial_state(len(x)) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        y, state = streamer.step(x[:, t], state)
        outputs.append(ops.convert_to_numpy(y))
    return np.stack(outputs, 1), state


def close(received, expected, tolerance: float = 1e-5) -> None:
    size = max(np.nanmax(np.abs(expected)), 1.0)
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * size)


# ------------------------------------------------------------------------------------ the catalogue

STREAMS = [
    (name, title)
    for name, rows in TABLE.items()
    for title in rows
    if (
        name.startswith(("simple_rnn_", "gru_"))
        and "coder" not in name
        and title != "bidirectional"
    )
    or name == "linear_rnn_autoencoder"
]


def test_every_causal_entry_streams_as_it_comes():
    causal = {name for name in zoo.list_models() if registry.get_entry(name).causal}
    assert causal
    assert causal <= {name for name, title in STREAMS if title == "default"}


@pytest.mark.parametrize(("name", "title"), STREAMS)
def test_a_thousand_steps_are_the_whole_sequence(name, title):
    model = built(name, **TABLE[name][title].config)
    x = padded(model, drawn(model))
    expected = ops.convert_to_numpy(model(x, training=False))
    received, _ = taken(zoo.stream(model), x)
    close(received if expected.ndim == 3 else received[:, -1], expected)


@pytest.mark.parametrize("name", sorted(set(TABLE) - {name for name, _ in STREAMS}))
def test_other_entries_say_which_layer_and_why(name):
    model = zoo.get(name, **TABLE[name]["default"].config)
    with pytest.raises(ArgumentError, match=r"step by step\. Received: .* whose layer '\w+' \("):
        zoo.stream(model)
    assert streamer_of(model) is None


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_layers_upon_layers_of_any_cell_stream(cell):
    config = {"cell": cell, "num_layers": 2, "units": 4, "features": 3, "mask_value": NAN}
    model = built("gru_forecaster", **config)
    x = padded(model, drawn(model, steps=50))
    close(taken(zoo.stream(model), x)[0], ops.convert_to_numpy(model(x)))


# ------------------------------------------------------------------------------- any Keras model


def pooled(layer, **options):
    x = k.Input((None, 3))
    return keras.Model(x, layer(**options)(k.GRU(4, return_sequences=True)(x)))


def cell_of_an_attention_free_kind():
    class Counting(keras.Layer):
        """Says the state before the step, which no padded step can say again from its state."""

        state_size, output_size = 2, 2

        def call(self, x, states, training=None):
            return states[0], [states[0] + x[:, :2]]

        def get_initial_state(self, batch_size=None):
            return [ops.zeros((batch_size, 2))]

    x = k.Input((None, 3))
    return keras.Model(x, k.RNN(Counting(), return_sequences=True)(k.Masking(0.0)(x)))


def joined():
    x = k.Input((None, 3))
    y = k.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)
    y = k.LayerNormalization()(y)
    y = ops.tanh(y) * 2.0 + k.Dense(4)(x)
    y = k.LSTM(5, return_sequences=True)(k.Concatenate()([x, y]))
    return keras.Model(x, k.TimeDistributed(k.Dense(2))(y))


MODELS = {
    "joined": joined,
    "sequential": lambda: keras.Sequential([k.Input((None, 3)), k.SimpleRNN(4), k.Dense(2)]),
    "average": lambda: pooled(k.GlobalAveragePooling1D),
    "maximum": lambda: pooled(k.GlobalMaxPooling1D, keepdims=True),
    "cell": cell_of_an_attention_free_kind,
    "nested": lambda: keras.Sequential(
        [k.Input((None, 3)), keras.Sequential([k.Masking(0.0), k.GRU(4, return_sequences=True)])]
    ),
    "no state": lambda: keras.Sequential([k.Input((None, 3)), k.Dense(2)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_causal_keras_model_streams(name):
    model = seeded(MODELS[name]())
    x = drawn(model, steps=40)
    if name in ("cell", "nested"):
        x[0, :3], x[1, 5:9], x[2, -4:] = 0.0, 0.0, 0.0
    expected = ops.convert_to_numpy(model(x, training=False))
    received, _ = taken(zoo.stream(model), x)
    close(received if received.ndim == expected.ndim else received[:, -1], expected)


def looks_ahead(layer, **options):
    x = k.Input((None, 3))
    return keras.Model(x, layer(x, **options))


REFUSED = {
    "flip": (lambda: looks_ahead(ops.flip, axis=1), "Flip.*not known"),
    "same": (lambda: looks_ahead(k.Conv1D(2, 3, padding="same")), "padding='same'"),
    "backwards": (lambda: looks_ahead(k.GRU(2, go_backwards=True)), "from its end"),
    "mean": (lambda: looks_ahead(ops.mean, axis=1), "axis of time"),
    "last of padded": (
        lambda: looks_ahead(lambda x: k.Masking(0.0)(x)[:, -1]),
        "may be padding",
    ),
    "some step": (lambda: looks_ahead(lambda x: x[:, 0]), "picks steps"),
    "stateful": (
        lambda: keras.Sequential([k.Input((None, 3), 2), k.GRU(2, stateful=True)]),
        "stateful=False",
    ),
    "without time": (lambda: keras.Sequential([k.Input((3,)), k.Dense(2)]), "second axis"),
    "lambda": (lambda: looks_ahead(k.Lambda(lambda x: x)), "code of which nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_step_by_step_says_why(name):
    build, why = REFUSED[name]
    with pytest.raises(ArgumentError, match=why):
        zoo.stream(build())


def test_a_layer_that_counts_steps_is_found_out():
    """It claims to act on each step alone; only trying shows that it does not."""

    class Cumulative(k.Dense):
        def call(self, x):
            return ops.cumsum(super().call(x), axis=1) if len(x.shape) == 3 else super().call(x)

    x = k.Input((None, 3))
    with pytest.raises(ArgumentError, match="differs by"):
        zoo.stream(seeded(keras.Model(x, Cumulative(2)(x))))


# ------------------------------------------------------------------------------ states and clients


def forecaster(**config) -> keras.Model:
    return built("gru_forecaster", features=2, units=3, **config)


def test_clients_that_take_turns_keep_their_own_state():
    model = forecaster()
    streamer = zoo.stream(model)
    xs = [drawn(model, rows, steps=12)[:, :, ::way] for rows, way in ((1, 1), (2, -1), (3, 1))]
    states = [streamer.initial_state(len(x)) for x in xs]
    answers = [[] for _ in xs]
    for t in range(12):
        for client in np.random.default_rng(t).permutation(3):
            y, states[client] = streamer.step(xs[client][:, t], states[client])
            answers[client].append(ops.convert_to_numpy(y))
    for x, found in zip(xs, answers, strict=True):
        close(np.stack(found, 1), ops.convert_to_numpy(model(x)))


def test_a_state_is_not_changed_by_the_step_that_it_is_given_to():
    streamer = zoo.stream(forecaster())
    x = drawn(streamer.model, steps=4)
    _, state = taken(streamer, x)
    before = {name: np.array(ops.convert_to_numpy(one)) for name, one in state.items()}
    first, _ = streamer.step(x[:, 0], state)
    again, _ = streamer.step(x[:, 0], state)
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (first, again)))
    for name, one in state.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(one), before[name])


def test_a_row_steps_alone_as_in_company():
    streamer = zoo.stream(forecaster())
    x = drawn(streamer.model, steps=20)
    together, _ = taken(streamer, x)
    close(taken(streamer, x[1:2])[0], together[1:2], 1e-6)


def test_weights_set_later_are_seen():
    model = zoo.get("gru_forecaster", features=2, units=3)
    streamer = zoo.stream(model)
    x = drawn(model, steps=5)
    before, _ = taken(streamer, x)
    seeded(model)
    after, _ = taken(streamer, x)
    assert np.abs(after - before).max() > 1e-3
    close(after, ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize("config", [{}, {"mask_value": NAN}, {"mask_value": 0.0}])
@pytest.mark.parametrize("bad", [NAN, np.inf])
def test_a_reading_that_is_not_finite_is_skipped(config, bad):
    model = forecaster(**config)
    streamer = zoo.stream(model)
    x = drawn(model, steps=10)
    spoiled = x.copy()
    spoiled[1, 4, 0] = bad
    received, _ = taken(streamer, spoiled)
    close(received[[0, 2]], taken(streamer, x)[0][[0, 2]], 1e-6)  # other rows know nothing of it
    assert np.isnan(received[1, 4]).all()
    kept = [t for t in range(10) if t != 4]
    close(received[1:2, kept], taken(streamer, x[1:2, kept])[0], 1e-6)  # as if it had not been


def test_nan_may_pass_or_be_refused():
    model = forecaster()
    x = drawn(model, steps=6)
    x[1, 2] = NAN
    passed, _ = taken(zoo.stream(model, nan="propagate"), x)
    assert np.isnan(passed[1, 2:]).all()
    assert np.isfinite(passed[[0, 2]]).all()
    strict = zoo.stream(model, nan="raise")
    _, state = taken(strict, x[:, :2])
    with pytest.raises(DataError, match="in 1 rows, the first of them 1"):
        strict.step(x[:, 2], state)
    assert np.isfinite(ops.convert_to_numpy(strict.step(x[:, 3], state)[0])).all()


def test_padding_that_is_nan_is_padding_and_no_bad_reading():
    model = forecaster(mask_value=NAN)
    strict = zoo.stream(model, nan="raise")
    x = drawn(model, steps=6)
    x[1, 2] = NAN  # all features: a padded step
    close(taken(strict, x)[0], ops.convert_to_numpy(model(x)))
    x[1, 2, 0] = 1.0
    with pytest.raises(DataError, match="finite"):
        taken(strict, x)


# ------------------------------------------------------------------------------------- bad input


def test_a_step_may_be_a_list():
    streamer = zoo.stream(forecaster())
    rows = [[0.5, -1.0], [2.0, 0.0]]
    listed, _ = streamer.step(rows, streamer.initial_state(2))
    array, _ = streamer.step(np.array(rows), streamer.initial_state(2))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (listed, array)))


def test_bad_steps_and_states_are_refused():
    streamer = zoo.stream(forecaster())
    state = streamer.initial_state(2)
    for x in (np.zeros((2, 5, 2)), np.zeros((2, 3)), np.zeros(2), np.zeros((0, 2)), 1.0):
        with pytest.raises(DataError, match="without an axis of time"):
            streamer.step(x, state)
    for other in ({}, None, streamer.initial_state(3), {"state": 0}, list(state.values())):
        with pytest.raises(ArgumentError, match="`state` must be what `initial_state`"):
            streamer.step(np.zeros((2, 2)), other)
    for batch in (0, -1, 1.5, None, True):
        with pytest.raises(ArgumentError, match="batch"):
            streamer.initial_state(batch)
    for x in ([["a", "b"]] * 2, [[1.0], [1.0, 2.0]], [[None, None]] * 2, {1: 0, "a": 0}):
        with pytest.raises(DataError, match=r"numbers|one array|`x` must"):
            streamer.step(x, state)
    with pytest.raises(ArgumentError, match="nan"):
        zoo.stream(streamer.model, nan="ignore")
    with pytest.raises(ArgumentError, match="model"):
        zoo.stream("gru_forecaster")


@pytest.mark.parametrize("word_dropout", [0.0, 0.1])
def test_tokens_that_the_model_does_not_know_are_refused(word_dropout):
    """Keras takes -1 for the last token, and 2**40 for padding."""
    options = {"vocabulary_size": 5, "classes": 2, "units": 3, "word_dropout": word_dropout}
    streamer = zoo.stream(zoo.get("gru_tagger", **options))
    state = streamer.initial_state(2)
    for x in ([1, 5], [1, -1], [1, 2**40], [1.5, 2.0], [True, False]):
        with pytest.raises(DataError, match="ints from 0 to 4"):
            streamer.step(x, state)
    whole, floats = (streamer.step(x, state)[0] for x in ([0, 4], [0.0, 4.0]))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (whole, floats)))


def test_dicts_of_inputs_go_by_name():
    a, b = k.Input((None, 2), name="a"), k.Input((None, 3), name="b")
    model = seeded(keras.Model([a, b], k.GRU(4, return_sequences=True)(k.Concatenate()([a, b]))))
    streamer = zoo.stream(model)
    rng = np.random.default_rng(0)
    x = {"b": rng.normal(size=(2, 3)), "a": rng.normal(size=(2, 2))}
    by_name, _ = streamer.step(x, streamer.initial_state(2))
    by_place, _ = streamer.step([x["a"], x["b"]], streamer.initial_state(2))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (by_name, by_place)))
    for other in (x["a"], [x["a"]], [x["a"], x["b"], x["b"]], {"a": x["a"], "c": x["b"]}):
        with pytest.raises(DataError, match="`x` must"):
            streamer.step(other, streamer.initial_state(2))


# -------------------------------------------------------------------------------- the artifact

ALONE = """
    import sys
    import numpy as np
    import tensorflow as tf

    artifact = tf.saved_model.load(sys.argv[1])
    x = np.load(sys.argv[2])
    whole = artifact.serve(x).numpy()
    clients = [artifact.initial_state(len(x)), artifact.initial_state(len(x))]
    for t in range(x.shape[1]):
        for client, rows in enumerate((x, x[::-1])):
            answer = artifact.step(rows[:, t], **clients[client])
            y = answer.pop("output").numpy()
            clients[client] = answer
            expected = (whole if client == 0 else whole[::-1])[:, t]
            assert np.abs(y - expected).max() < 1e-5, (t, client)
    answer = artifact.step(np.full_like(x[:, 0], np.nan), **clients[0])
    assert np.isnan(answer.pop("output")).all()
    for name, state in answer.items():
        assert (state.numpy() == clients[0][name].numpy()).all(), name
    assert "keras_seqzoo" not in sys.modules
"""


@pytest.mark.tensorflow
def test_an_artifact_steps_without_keras(tmp_path):
    model = forecaster(num_layers=2)
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert any("step" in str(case) for case in parity.cases)
    np.save(tmp_path / "x.npy", drawn(model, steps=30))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE), tmp_path / "served", tmp_path / "x.npy"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.tensorflow
def test_an_artifact_of_what_looks_ahead_has_no_step(tmp_path):
    zoo.export(zoo.get("bilstm_tagger", units=2), tmp_path / "served", verify=False)
    artifact = zoo.load(tmp_path / "served")
    assert hasattr(artifact, "serve")
    assert not hasattr(artifact, "step")
