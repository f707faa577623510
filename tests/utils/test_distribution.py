"""Training on several devices, in several processes, and on data that exceed the memory."""

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

pytestmark = pytest.mark.slow

PROGRAM = Path(distributed.__file__)


def start_training(mode: str, path: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), mode, str(path)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(*processes: subprocess.Popen) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]


def assert_same_weights(expected: Path, actual: Path) -> None:
    with np.load(expected) as expected_weights, np.load(actual) as weights:
        assert set(expected_weights) == set(weights)
        for key, value in expected_weights.items():
            np.testing.assert_allclose(weights[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    """Weights before and after training on one device, which differ."""
    path = tmp_path_factory.mktemp("single") / "weights.npz"
    wait_for(start_training("single", path, KERAS_BACKEND="tensorflow"))
    with np.load(path) as weights:
        names = {key.split(",")[0] for key in weights}
        assert len(names) == 4
        for name in names:
            before = [weights[key] for key in weights if key.startswith(f"{name}, before")]
            after = [weights[key] for key in weights if key.startswith(f"{name}, after")]
            changes = [np.abs(a - b).max() for a, b in zip(before, after, strict=True)]
            assert sum(size > 1e-4 for size in changes) >= 3, name  # kernel, recurrent kernel, bias
    return path


@pytest.mark.tensorflow
def test_training_on_two_devices_equals_training_on_one(single, tmp_path):
    path = tmp_path / "weights.npz"
    wait_for(start_training("mirrored", path, KERAS_BACKEND="tensorflow"))
    assert_same_weights(single, path)


@pytest.mark.tensorflow
def test_training_in_two_processes_equals_training_in_one(single, tmp_path):
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    workers = [
        start_training(
            "workers",
            path,
            KERAS_BACKEND="tensorflow",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
            ),
        )
        for number, path in enumerate(paths)
    ]
    wait_for(*workers)
    for path in paths:
        assert_same_weights(single, path)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_training_on_two_jax_devices_equals_training_on_one(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    flags = "--xla_force_host_platform_device_count=2"
    wait_for(
        start_training("single", one, KERAS_BACKEND="jax"),
        start_training("data_parallel", two, KERAS_BACKEND="jax", XLA_FLAGS=flags),
    )
    assert_same_weights(one, two)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for open_socket in sockets:
        open_socket.bind(("localhost", 0))
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def test_across_workers_does_not_change_models_without_a_strategy():
    model = zoo.get("simple_rnn_identity", units=2)
    with pytest.raises(ArgumentError, match="compiled"):
        across_workers(model)
    model.compile("sgd", "mse")
    assert across_workers(model) is model
    assert model.train_function is None


FIT_SCRIPT = """
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
def test_fit_streams_a_dataset_in_bounded_memory():
    """Ten times the data, 0.4 GB of float32, add less than 150 MB to the peak memory."""
    peaks = []
    for count in (10, 100):
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FIT_SCRIPT).format(batches=count)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        peaks.append(int(process.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 150, f"{peaks} MB"
