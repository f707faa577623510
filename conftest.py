"""Fixtures of the tests and of the docstring examples."""

import os

# Before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests compile many small programs and run each of them briefly: little optimization pays off.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
# Two pytest workers share the cores already; more threads would compete.
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

BACKEND = keras.backend.backend()


def pytest_collection_modifyitems(items):
    """Skip tests marked `tensorflow`, and docstring examples, on the JAX and PyTorch backends.

    The other tests cover what a backend can change: models, layers, training, saving, leakage,
    generation. The docstring examples print TensorFlow tensors.
    """
    if BACKEND == "tensorflow":
        return
    skip = pytest.mark.skip(reason=f"needs the TensorFlow backend; this is {BACKEND}")
    for item in items:
        if item.get_closest_marker("tensorflow") or isinstance(item, pytest.DoctestItem):
            item.add_marker(skip)


# ---------------------------------------------------------------------------------- random state


@pytest.fixture(autouse=True)
def fixed_seed():
    """Start every test from the same random state, whatever ran before it."""
    keras.utils.set_random_seed(20240229)


@pytest.fixture(autouse=True)
def restore_registry():
    """Restore the registered entries after every test."""
    registry.list_models()
    entries = dict(registry_module._entries)
    yield
    registry_module._entries.clear()
    registry_module._entries.update(entries)


@pytest.fixture(autouse=True)
def doctest_imports(doctest_namespace):
    """Names that docstring examples use without importing them."""
    doctest_namespace.update(np=np, tempfile=tempfile, Path=Path)


# ------------------------------------------------------------------------------------- precision


@pytest.fixture
def doubles():
    """Enable 64-bit floats, which JAX has only on request."""
    if BACKEND != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def float64():
    """Set Keras to float64, so that round-off hides no difference."""
    if BACKEND != "tensorflow":
        pytest.skip("Keras multiplies matrices in float32 on JAX and PyTorch")
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floatx)


# --------------------------------------------------------------------------- memory and backends


@pytest.fixture(autouse=True, scope="module")
def freeze_garbage():
    """Exempt the objects that a module of tests leaves behind from later garbage collections."""
    yield
    gc.collect()
    gc.freeze()


if BACKEND == "torch":
    import ml_dtypes
    import torch

    def _to_numpy(tensor, dtype=None, copy=None):
        if tensor.dtype == torch.bfloat16:
            tensor, dtype = tensor.float(), dtype or ml_dtypes.bfloat16
        return np.array(tensor.detach().cpu().numpy(), dtype=dtype)

    # Tests convert tensors by np.asarray; PyTorch's own conversion refuses gradients and bfloat16.
    torch.Tensor.__array__ = _to_numpy


if BACKEND == "jax":
    import jax

    MAPS = Path("/proc/self/maps")

    @pytest.fixture(autouse=True)
    def limit_compiled_programs():
        """Clear JAX's compilation cache before the process reaches Linux's limit of 65,530 maps."""
        yield
        if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
            jax.clear_caches()
            gc.collect()


# --------------------------------------------------------------------- verification of artifacts

# Verifies one SavedModel after another in one process: importing TensorFlow takes longer than most
# verifications. `main` blocks the import of keras there as it does in a process of its own.
VERIFICATION_SERVER = """
import json, runpy, sys
serve = runpy.run_path(sys.argv[1])["main"]
for line in sys.stdin:
    try:
        serve(*json.loads(line))
        print("null", flush=True)
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""
run_in_new_process = verification.run_process
servers: list[subprocess.Popen] = []


def run_in_shared_process(arguments: list[str]) -> str | None:
    """`verification.run_process` in a process that verifies the SavedModels of many tests."""
    if arguments[0] != "tf_saved_model":
        return run_in_new_process(arguments)
    if not servers:
        script = str(verification.RUNTIME_SCRIPT)
        command = [sys.executable, "-I", "-c", VERIFICATION_SERVER, script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        servers.append(subprocess.Popen(command, text=True, **pipes))
    servers[0].stdin.write(json.dumps(arguments) + "\n")
    servers[0].stdin.flush()
    return json.loads(servers[0].stdout.readline())


@pytest.fixture(autouse=True)
def shared_verification(request, monkeypatch):
    """Verify artifacts in one shared process, but in tests marked `own_process`."""
    if request.node.get_closest_marker("own_process") is None:
        monkeypatch.setattr(verification, "run_process", run_in_shared_process)


def pytest_sessionfinish():
    """Stop the shared verification process."""
    for server in servers:
        server.kill()
        server.communicate()
