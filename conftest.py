"""Fixtures for the tests and for the examples in the docstrings."""

import os

# Before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and run little of it, in two processes already: threads would wait for threads.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seqzoo import registry
from keras_seqzoo.exporting import verification
from keras_seqzoo.registry import registry as registry_module

run_alone = verification.run_process


def pytest_collection_modifyitems(items):
    """Skips what is TensorFlow's own under KERAS_BACKEND=jax or torch.

    There runs what a backend can change: models, layers, training, saving, leakage, generation.
    Examples in docstrings show TensorFlow's tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    skipped = pytest.mark.skip(reason=f"TensorFlow's own; the backend is {backend}")
    for item in items:
        if item.get_closest_marker("tensorflow") or isinstance(item, pytest.DoctestItem):
            item.add_marker(skipped)


if keras.backend.backend() == "torch":
    import ml_dtypes
    import torch

    def _as_numpy(tensor, dtype=None, copy=None):
        if tensor.dtype == torch.bfloat16:
            tensor, dtype = tensor.float(), dtype or ml_dtypes.bfloat16
        return np.array(tensor.detach().cpu().numpy(), dtype=dtype)

    # Tests read any backend's tensors by np.asarray; PyTorch's own refuses gradients and bfloat16.
    torch.Tensor.__array__ = _as_numpy


if keras.backend.backend() == "jax":
    import jax

    MAPS = Path("/proc/self/maps")

    @pytest.fixture(autouse=True)
    def few_programs():
        """JAX keeps every program that it compiled, and Linux maps 65,530 areas for a process."""
        yield
        if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
            jax.clear_caches()
            gc.collect()


# What a proof runs, for one artifact after the other: importing TensorFlow takes longer than most.
SERVER = """
import json, runpy, sys
serve = runpy.run_path(sys.argv[1])["main"]
for line in sys.stdin:
    try:
        serve(*json.loads(line))
        print("null", flush=True)
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""
servers: list[subprocess.Popen] = []


def serve_with_others(arguments: list[str]) -> str | None:
    """`verification.run_process` in a process that has served others; keras is not there either."""
    if arguments[0] != "tf_saved_model":
        return run_alone(arguments)
    if not servers:
        command = [sys.executable, "-I", "-c", SERVER, str(verification.RUNTIME_SCRIPT)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        servers.append(subprocess.Popen(command, text=True, **pipes))
    servers[0].stdin.write(json.dumps(arguments) + "\n")
    servers[0].stdin.flush()
    return json.loads(servers[0].stdout.readline())


def pytest_sessionfinish():
    """The server ends with the tests."""
    for server in servers:
        server.kill()
        server.communicate()


@pytest.fixture(autouse=True)
def one_server(request, monkeypatch):
    """One process verifies the artifacts of all tests but those marked `own_process`."""
    if request.node.get_closest_marker("own_process") is None:
        monkeypatch.setattr(verification, "run_process", serve_with_others)


@pytest.fixture(autouse=True, scope="module")
def gone_through_once():
    """What a module of tests leaves behind is not looked through by every later collection."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whichever ran before it."""
    keras.utils.set_random_seed(20240229)


@pytest.fixture(autouse=True)
def same_zoo():
    """Every test finds the built-in entries, whatever another one registered or removed."""
    registry.list_models()
    entries = dict(registry_module._entries)
    yield
    registry_module._entries.clear()
    registry_module._entries.update(entries)


@pytest.fixture(autouse=True)
def names_in_examples(doctest_namespace):
    """What examples use without importing it."""
    doctest_namespace.update(np=np, tempfile=tempfile, Path=Path)


@pytest.fixture
def doubles():
    """Numbers of 64 bits, which JAX has only where it is asked for them."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def float64():
    """Keras in float64, where round-off hides nothing."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras multiplies matrices in float32 on JAX and PyTorch")
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])
