"""Training, saving, leakage, streaming and generation on JAX and PyTorch, each in a new process.

The whole suite runs on these backends too: `KERAS_BACKEND=jax python -m pytest`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import pathlib, sys, tempfile
    import keras, numpy as np
    import keras_seqzoo as zoo

    assert keras.backend.backend() == sys.argv[1]
    keras.utils.set_random_seed(0)  # weights for which the memory horizon is within the window
    as_numpy = keras.ops.convert_to_numpy

    # A tagger on token sequences of different lengths; training is repeatable, dropout included.
    tagged = zoo.data.LabeledSequences(
        [["a", "b"], ["b", "c", "a"], ["c"]] * 8,
        tags=[["O", "B-x"], ["B-x", "O", "O"], ["O"]] * 8,
    )
    result, again = (
        zoo.train("bilstm_crf_tagger", tagged, epochs=2, verbose=0, validation_split=0.3, units=4)
        for _ in range(2)
    )
    assert np.isfinite(result.history["loss"]).all(), result.history
    for actual, desired in zip(again.network.get_weights(), result.inner_model.get_weights()):
        np.testing.assert_array_equal(actual, desired)

    # An encoder-decoder with attention in the loop; the loaded model generates the same.
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 9, (8, 6)), rng.integers(4, 7, (8, 5))
    model = zoo.get(
        "attention_gru_encoder_decoder", source_vocabulary_size=9, target_vocabulary_size=7,
        units=4, embedding_dim=3, attention="additive",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    initial = [np.array(as_numpy(weight)) for weight in model.trainable_weights]
    model.fit({"source": source, "target": target}, target, verbose=0)
    trained = [as_numpy(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in trained)
    assert sum((a != b).any() for a, b in zip(initial, trained)) >= len(trained) - 1
    path = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
    model.save(path)
    generated = [
        as_numpy(m.generate(source, max_length=4, strategy="beam", num_beams=3).sequences)
        for m in (model, zoo.load(path))
    ]
    np.testing.assert_array_equal(*generated)

    # Leakage by swapping and by gradients; streaming.
    x = rng.normal(size=(64, 12, 2)).astype("float32")
    identity = zoo.get("simple_rnn_identity", features=2, units=3)
    zoo.adapt(identity, x)
    swap, gradient = (zoo.leakage(identity, x, method=name) for name in ("swap", "gradient"))
    assert 0 < swap.index < 1
    assert swap.memory_horizon is not None
    assert np.isfinite(gradient.index)
    streamer = zoo.stream(identity)
    state, outputs = streamer.initial_state(64), []
    for t in range(12):
        y, state = streamer.step(x[:, t], state)
        outputs.append(as_numpy(y))
    np.testing.assert_allclose(np.stack(outputs, 1), as_numpy(identity(x)), atol=1e-5)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.slow
def test_models_train_save_measure_leakage_and_generate(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), backend],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
