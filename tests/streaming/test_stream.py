"""Streaming: outputs equal those of the whole sequence, independent states, handling of NaN."""

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
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.streaming import CannotStep
from tests.conformance.table import TABLE
from tests.helpers.marks import slow_except_default

NAN = float("nan")
ROWS, STEPS = 3, 1_000


def seeded(model: keras.Model) -> keras.Model:
    """Sets weights of moderate size, none of them 0."""
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


def random_inputs(model: keras.Model, rows: int = ROWS, steps: int = STEPS) -> np.ndarray:
    rng = np.random.default_rng(1)
    tensor = model.inputs[0]
    if tensor.dtype.startswith("int"):
        return rng.integers(1, 7, (rows, steps)).astype(tensor.dtype)
    return (3.0 + 2.0 * rng.normal(size=(rows, steps, tensor.shape[-1]))).astype("float32")


def padded(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Inputs with padding on the left, in the middle and on the right, if the model masks it."""
    for layer in model.layers:
        value = getattr(layer, "mask_value", None)
        if value is not None:
            x = x.copy()
            x[0, :3], x[1, 5:9], x[2, -4:] = value, value, value
            return x
    return x


def run_stream(streamer, x, state=None):
    """The outputs of all steps, and the last state."""
    state = streamer.initial_state(len(x)) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        y, state = streamer.step(x[:, t], state)
        outputs.append(ops.convert_to_numpy(y))
    return np.stack(outputs, 1), state


def assert_close(received, expected, tolerance: float = 1e-5) -> None:
    size = max(np.nanmax(np.abs(expected)), 1.0)
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * size)


# ---------------------------------------------------------------------------------- entries

STREAMED_CASES = [
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


def test_every_causal_entry_is_in_the_streaming_tests():
    causal = {name for name in zoo.list_models() if registry.get_entry(name).causal}
    assert causal
    assert causal <= {name for name, title in STREAMED_CASES if title == "default"}


@pytest.mark.parametrize(("name", "title"), slow_except_default(STREAMED_CASES))
def test_outputs_of_a_thousand_streamed_steps_equal_those_of_the_whole_sequence(name, title):
    model = built(name, **TABLE[name][title].config)
    x = padded(model, random_inputs(model))
    expected = ops.convert_to_numpy(model(x, training=False))
    received, _ = run_stream(zoo.stream(model), x)
    assert_close(received if expected.ndim == 3 else received[:, -1], expected)


@pytest.mark.parametrize("name", sorted(set(TABLE) - {name for name, _ in STREAMED_CASES}))
def test_error_of_a_non_causal_entry_contains_the_layer_name(name):
    model = zoo.get(name, **TABLE[name]["default"].config)
    with pytest.raises(CannotStep, match=r"step by step\. Received: .* whose layer '\w+' \("):
        zoo.stream(model)
    assert ExportPlan.for_model(model).streamer is None


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_stacked_layers_of_any_cell_can_be_streamed(cell):
    config = {"cell": cell, "num_layers": 2, "units": 4, "features": 3, "mask_value": NAN}
    model = built("gru_forecaster", **config)
    x = padded(model, random_inputs(model, steps=50))
    assert_close(run_stream(zoo.stream(model), x)[0], ops.convert_to_numpy(model(x)))


# ---------------------------------------------------------------------------- Keras models


def pooled(layer, **options):
    x = k.Input((None, 3))
    return keras.Model(x, layer(**options)(k.GRU(4, return_sequences=True)(x)))


def cell_with_another_output():
    class DelayCell(keras.Layer):
        """Outputs the previous state, which cannot be restored from the present one."""

        state_size, output_size = 2, 2

        def call(self, x, states, training=None):
            return states[0], [states[0] + x[:, :2]]

        def get_initial_state(self, batch_size=None):
            return [ops.zeros((batch_size, 2))]

    x = k.Input((None, 3))
    return keras.Model(x, k.RNN(DelayCell(), return_sequences=True)(k.Masking(0.0)(x)))


def convolution_and_lstm():
    x = k.Input((None, 3))
    y = k.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)
    y = k.LayerNormalization()(y)
    y = ops.tanh(y) * 2.0 + k.Dense(4)(x)
    y = k.LSTM(5, return_sequences=True)(k.Concatenate()([x, y]))
    return keras.Model(x, k.TimeDistributed(k.Dense(2))(y))


MODELS = {
    "convolution and LSTM": convolution_and_lstm,
    "sequential": lambda: keras.Sequential([k.Input((None, 3)), k.SimpleRNN(4), k.Dense(2)]),
    "average": lambda: pooled(k.GlobalAveragePooling1D),
    "maximum": lambda: pooled(k.GlobalMaxPooling1D, keepdims=True),
    "cell": cell_with_another_output,
    "nested": lambda: keras.Sequential(
        [k.Input((None, 3)), keras.Sequential([k.Masking(0.0), k.GRU(4, return_sequences=True)])]
    ),
    "no state": lambda: keras.Sequential([k.Input((None, 3)), k.Dense(2)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_causal_keras_models_can_be_streamed(name):
    model = seeded(MODELS[name]())
    x = random_inputs(model, steps=40)
    if name in ("cell", "nested"):
        x[0, :3], x[1, 5:9], x[2, -4:] = 0.0, 0.0, 0.0
    expected = ops.convert_to_numpy(model(x, training=False))
    received, _ = run_stream(zoo.stream(model), x)
    assert_close(received if received.ndim == expected.ndim else received[:, -1], expected)


def non_causal(layer, **options):
    x = k.Input((None, 3))
    return keras.Model(x, layer(x, **options))


UNSUPPORTED = {
    "flip": (lambda: non_causal(ops.flip, axis=1), "Flip.*no streaming rule"),
    "same": (lambda: non_causal(k.Conv1D(2, 3, padding="same")), "padding='same'"),
    "backwards": (lambda: non_causal(k.GRU(2, go_backwards=True)), "from its end"),
    "mean": (lambda: non_causal(ops.mean, axis=1), "time axis"),
    "last of padded": (
        lambda: non_causal(lambda x: k.Masking(0.0)(x)[:, -1]),
        "may be padding",
    ),
    "some step": (lambda: non_causal(lambda x: x[:, 0]), "selects steps"),
    "stateful": (
        lambda: keras.Sequential([k.Input((None, 3), 2), k.GRU(2, stateful=True)]),
        "stateful=False",
    ),
    "without time": (lambda: keras.Sequential([k.Input((3,)), k.Dense(2)]), "time axis second"),
    "lambda": (lambda: non_causal(k.Lambda(lambda x: x)), "arbitrary code"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_stream_rejects_unsupported_models_with_the_reason(name):
    build, reason = UNSUPPORTED[name]
    with pytest.raises(ArgumentError, match=reason):
        zoo.stream(build())


def test_comparison_detects_a_layer_that_uses_other_steps():
    """A Dense layer acts on each step alone; its subclass does not."""

    class Cumulative(k.Dense):
        def call(self, x):
            return ops.cumsum(super().call(x), axis=1) if len(x.shape) == 3 else super().call(x)

    x = k.Input((None, 3))
    with pytest.raises(ArgumentError, match="differs by"):
        zoo.stream(seeded(keras.Model(x, Cumulative(2)(x))))


# ---------------------------------------------------------------------------------- states


def forecaster(**config) -> keras.Model:
    return built("gru_forecaster", features=2, units=3, **config)


def test_clients_have_independent_states():
    model = forecaster()
    streamer = zoo.stream(model)
    xs = [random_inputs(model, rows, steps=12) for rows in (1, 2, 3)]
    xs[1] = xs[1][:, :, ::-1]
    states = [streamer.initial_state(len(x)) for x in xs]
    outputs = [[] for _ in xs]
    for t in range(12):
        for client in np.random.default_rng(t).permutation(3):
            y, states[client] = streamer.step(xs[client][:, t], states[client])
            outputs[client].append(ops.convert_to_numpy(y))
    for x, steps in zip(xs, outputs, strict=True):
        assert_close(np.stack(steps, 1), ops.convert_to_numpy(model(x)))


def test_step_does_not_change_the_state_passed_to_it():
    streamer = zoo.stream(forecaster())
    x = random_inputs(streamer.model, steps=4)
    _, state = run_stream(streamer, x)
    copies = {name: np.array(ops.convert_to_numpy(tensor)) for name, tensor in state.items()}
    first, _ = streamer.step(x[:, 0], state)
    again, _ = streamer.step(x[:, 0], state)
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (first, again)))
    for name, tensor in state.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(tensor), copies[name])


def test_rows_of_a_batch_are_independent():
    streamer = zoo.stream(forecaster())
    x = random_inputs(streamer.model, steps=20)
    together, _ = run_stream(streamer, x)
    assert_close(run_stream(streamer, x[1:2])[0], together[1:2], 1e-6)


def test_streamer_uses_weights_set_later():
    model = zoo.get("gru_forecaster", features=2, units=3)
    streamer = zoo.stream(model)
    x = random_inputs(model, steps=5)
    before, _ = run_stream(streamer, x)
    seeded(model)
    after, _ = run_stream(streamer, x)
    assert np.abs(after - before).max() > 1e-3
    assert_close(after, ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize("config", [{}, {"mask_value": NAN}, {"mask_value": 0.0}])
@pytest.mark.parametrize("value", [NAN, np.inf])
def test_nan_skip_leaves_the_state_of_a_row_unchanged(config, value):
    model = forecaster(**config)
    streamer = zoo.stream(model)
    x = random_inputs(model, steps=10)
    invalid = x.copy()
    invalid[1, 4, 0] = value
    received, _ = run_stream(streamer, invalid)
    assert_close(received[[0, 2]], run_stream(streamer, x)[0][[0, 2]], 1e-6)
    assert np.isnan(received[1, 4]).all()
    others = [t for t in range(10) if t != 4]
    assert_close(received[1:2, others], run_stream(streamer, x[1:2, others])[0], 1e-6)


def test_nan_propagate_and_nan_raise():
    model = forecaster()
    x = random_inputs(model, steps=6)
    x[1, 2] = NAN
    propagated, _ = run_stream(zoo.stream(model, nan="propagate"), x)
    assert np.isnan(propagated[1, 2:]).all()
    assert np.isfinite(propagated[[0, 2]]).all()
    strict = zoo.stream(model, nan="raise")
    _, state = run_stream(strict, x[:, :2])
    with pytest.raises(DataError, match="in 1 rows, the first of them 1"):
        strict.step(x[:, 2], state)
    assert np.isfinite(ops.convert_to_numpy(strict.step(x[:, 3], state)[0])).all()


def test_nan_padding_is_not_an_invalid_reading():
    model = forecaster(mask_value=NAN)
    strict = zoo.stream(model, nan="raise")
    x = random_inputs(model, steps=6)
    x[1, 2] = NAN  # all features: a padded step
    assert_close(run_stream(strict, x)[0], ops.convert_to_numpy(model(x)))
    x[1, 2, 0] = 1.0
    with pytest.raises(DataError, match="finite"):
        run_stream(strict, x)


# --------------------------------------------------------------------------- invalid input


def test_step_accepts_lists():
    streamer = zoo.stream(forecaster())
    rows = [[0.5, -1.0], [2.0, 0.0]]
    listed, _ = streamer.step(rows, streamer.initial_state(2))
    array, _ = streamer.step(np.array(rows), streamer.initial_state(2))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (listed, array)))


def test_step_rejects_invalid_inputs_and_states():
    streamer = zoo.stream(forecaster())
    state = streamer.initial_state(2)
    for x in (np.zeros((2, 5, 2)), np.zeros((2, 3)), np.zeros(2), np.zeros((0, 2)), 1.0):
        with pytest.raises(DataError, match="without a time axis"):
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
def test_step_rejects_tokens_outside_the_vocabulary(word_dropout):
    """Keras embeds -1 as the last token, and treats 2**40 as padding."""
    options = {"vocabulary_size": 5, "classes": 2, "units": 3, "word_dropout": word_dropout}
    streamer = zoo.stream(zoo.get("gru_tagger", **options))
    state = streamer.initial_state(2)
    for x in ([1, 5], [1, -1], [1, 2**40], [1.5, 2.0], [True, False]):
        with pytest.raises(DataError, match="ints from 0 to 4"):
            streamer.step(x, state)
    ints, floats = (streamer.step(x, state)[0] for x in ([0, 4], [0.0, 4.0]))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (ints, floats)))


def test_dict_inputs_are_matched_by_name():
    a, b = k.Input((None, 2), name="a"), k.Input((None, 3), name="b")
    model = seeded(keras.Model([a, b], k.GRU(4, return_sequences=True)(k.Concatenate()([a, b]))))
    streamer = zoo.stream(model)
    rng = np.random.default_rng(0)
    x = {"b": rng.normal(size=(2, 3)), "a": rng.normal(size=(2, 2))}
    by_name, _ = streamer.step(x, streamer.initial_state(2))
    by_position, _ = streamer.step([x["a"], x["b"]], streamer.initial_state(2))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (by_name, by_position)))
    for other in (x["a"], [x["a"]], [x["a"], x["b"], x["b"]], {"a": x["a"], "c": x["b"]}):
        with pytest.raises(DataError, match="`x` must"):
            streamer.step(other, streamer.initial_state(2))


# -------------------------------------------------------------------------------- artifacts

SCRIPT = """
    import sys
    import numpy as np
    import tensorflow as tf

    artifact = tf.saved_model.load(sys.argv[1])
    x = np.load(sys.argv[2])
    whole = artifact.serve(x).numpy()
    clients = [artifact.initial_state(len(x)), artifact.initial_state(len(x))]
    for t in range(x.shape[1]):
        for client, rows in enumerate((x, x[::-1])):
            outputs = artifact.step(rows[:, t], **clients[client])
            y = outputs.pop("output").numpy()
            clients[client] = outputs
            expected = (whole if client == 0 else whole[::-1])[:, t]
            assert np.abs(y - expected).max() < 1e-5, (t, client)
    outputs = artifact.step(np.full_like(x[:, 0], np.nan), **clients[0])
    assert np.isnan(outputs.pop("output")).all()
    for name, state in outputs.items():
        assert (state.numpy() == clients[0][name].numpy()).all(), name
    assert "keras_seqzoo" not in sys.modules
"""


@pytest.mark.tensorflow
def test_artifact_steps_without_keras(tmp_path):
    model = forecaster(num_layers=2)
    parity = zoo.export(model, tmp_path / "served", verbose=0)
    assert any("step" in str(case) for case in parity.cases)
    np.save(tmp_path / "x.npy", random_inputs(model, steps=30))
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), tmp_path / "served", tmp_path / "x.npy"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]


@pytest.mark.tensorflow
def test_artifact_of_a_non_causal_model_has_no_step_endpoint(tmp_path):
    zoo.export(zoo.get("bilstm_tagger", units=2), tmp_path / "served", verify=False)
    artifact = zoo.load(tmp_path / "served")
    assert hasattr(artifact, "serve")
    assert not hasattr(artifact, "step")
