"""Training on several devices, by several processes, and of more than memory holds."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.distribution import across_workers
from tests.helpers import distributed

PROGRAM = Path(distributed.__file__)


def started(how: str, path: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), how, str(path)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*processes: subprocess.Popen) -> None:
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]


def same(expected: Path, received: Path) -> None:
    with np.load(expected) as one, np.load(received) as other:
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_allclose(other[key], one[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    """What one device ends at, which is not where it began."""
    path = tmp_path_factory.mktemp("single") / "found.npz"
    ended(started("single", path, KERAS_BACKEND="tensorflow"))
    with np.load(path) as found:
        names = {key.split(",")[0] for key in found}
        assert len(names) == 4
        for name in names:
            before = [found[key] for key in found if key.startswith(f"{name}, before")]
            after = [found[key] for key in found if key.startswith(f"{name}, after")]
            moved = [np.abs(a - b).max() for a, b in zip(before, after, strict=True)]
            assert sum(size > 1e-4 for size in moved) >= 3, name  # kernel, recurrent kernel, bias
    return path


@pytest.mark.tensorflow
def test_two_devices_end_at_the_weights_of_one(single, tmp_path):
    path = tmp_path / "found.npz"
    ended(started("mirrored", path, KERAS_BACKEND="tensorflow"))
    same(single, path)


@pytest.mark.tensorflow
def test_two_processes_end_at_the_weights_of_one(single, tmp_path):
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    workers = [
        started(
            "workers",
            path,
            KERAS_BACKEND="tensorflow",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
            ),
        )
        for number, path in enumerate(paths)
    ]
    ended(*workers)
    for path in paths:
        same(single, path)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_two_devices_of_jax_end_at_the_weights_of_one(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    flags = "--xla_force_host_platform_device_count=2"
    ended(
        started("single", one, KERAS_BACKEND="jax"),
        started("data_parallel", two, KERAS_BACKEND="jax", XLA_FLAGS=flags),
    )
    same(one, two)


def free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def test_across_workers_leaves_other_models_as_they_are():
    model = zoo.get("simple_rnn_identity", units=2)
    with pytest.raises(ArgumentError, match="compiled"):
        across_workers(model)
    model.compile("sgd", "mse")
    assert across_workers(model) is model
    assert model.train_function is None


STREAMED = """
    import resource
    import numpy as np, tensorflow as tf
    import keras_seqzoo as zoo

    STEPS, FEATURES, ROWS, BATCHES = 256, 128, 32, {batches}

    def batches():
        rng = np.random.default_rng(0)
        for _ in range(BATCHES):
            x = rng.random((ROWS, STEPS, FEATURES), np.float32)
            yield x, x

    spec = tf.TensorSpec((ROWS, STEPS, FEATURES))
    data = tf.data.Dataset.from_generator(batches, output_signature=(spec, spec)).prefetch(1)
    model = zoo.get("simple_rnn_identity", features=FEATURES, units=2)
    zoo.adapt(model, data)
    model.compile("sgd", "mse")
    model.fit(data, epochs=1, verbose=0)
    mean = model.get_layer("scale").adapt_mean
    assert np.allclose(mean, 0.5, atol=0.01), mean
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.tensorflow
def test_data_that_are_larger_than_what_is_held_stream_through():
    """Ten times the data, 0.4 GB of float32, take hardly more memory."""
    peaks = []
    for count in (10, 100):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(STREAMED).format(batches=count)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 150, f"{peaks} MB"
