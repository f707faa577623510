"""On JAX and PyTorch: training, saving, leakage, streams and generation, in their own processes.

The whole suite runs there too: `KERAS_BACKEND=jax python -m pytest`.
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
    keras.utils.set_random_seed(0)  # with some weights the horizon is beyond the window
    as_numpy = keras.ops.convert_to_numpy

    # Sequences of tokens of different lengths.
    tagged = zoo.data.LabeledSequences(
        [["a", "b"], ["b", "c", "a"], ["c"]] * 8,
        tags=[["O", "B-x"], ["B-x", "O", "O"], ["O"]] * 8,
    )
    trained, again = (
        zoo.train("bilstm_crf_tagger", tagged, epochs=2, verbose=0, validation_split=0.3, units=4)
        for _ in range(2)
    )
    assert np.isfinite(trained.history["loss"]).all(), trained.history
    for one, other in zip(trained.inner_model.get_weights(), again.inner_model.get_weights()):
        np.testing.assert_array_equal(one, other)  # dropout included

    # Attention in the loop of the decoder; generation is that of the file.
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 9, (8, 6)), rng.integers(4, 7, (8, 5))
    model = zoo.get(
        "attention_gru_encoder_decoder", source_vocabulary_size=9, target_vocabulary_size=7,
        units=4, embedding_dim=3, attention="additive",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [np.array(as_numpy(one)) for one in model.trainable_weights]
    model.fit({"source": source, "target": target}, target, verbose=0)
    after = [as_numpy(one) for one in model.trainable_weights]
    assert all(np.isfinite(one).all() for one in after)
    assert sum((a != b).any() for a, b in zip(before, after)) >= len(after) - 1
    path = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
    model.save(path)
    said = [
        as_numpy(one.generate(source, max_length=4, strategy="beam", num_beams=3).sequences)
        for one in (model, zoo.load(path))
    ]
    np.testing.assert_array_equal(*said)

    # Leakage by swapping and by gradients; a stream.
    x = rng.normal(size=(64, 12, 2)).astype("float32")
    identity = zoo.get("simple_rnn_identity", features=2, units=3)
    zoo.adapt(identity, x)
    swapped, derived = (zoo.leakage(identity, x, method=one) for one in ("swap", "gradient"))
    assert 0 < swapped.index < 1
    assert swapped.memory_horizon is not None
    assert np.isfinite(derived.index)
    streamer = zoo.stream(identity)
    state, found = streamer.initial_state(64), []
    for t in range(12):
        y, state = streamer.step(x[:, t], state)
        found.append(as_numpy(y))
    np.testing.assert_allclose(np.stack(found, 1), as_numpy(identity(x)), atol=1e-5)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_trains_saves_measures_and_generates(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), backend],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
