"""Random seeds: derivation, and contexts that leave the caller's generators as they were."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import random
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from keras_seqzoo.utils import compat


def derive_seed(seed: int, trial: int, purpose: str) -> int:
    """Derive a seed in [0, 2^31) for one purpose of one trial; results are unrelated."""
    digest = hashlib.blake2b(f"{seed}/{trial}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore random generators and Keras's default names on exit.

    The generators are the global ones of Python, NumPy and, on the PyTorch backend, PyTorch. Keras
    numbers the layers of the next model as if nothing had been built inside. Every trial of a
    search therefore uses the same names; TensorFlow keeps 34 kB for each variable with a new name,
    for as long as the process lives.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    counts = compat.name_counts()
    counts_before = dict(counts)
    torch = _torch_backend()
    try:
        with torch.random.fork_rng() if torch else contextlib.nullcontext():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        counts.clear()
        counts.update(counts_before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and PyTorch inside, and restore them on exit.

    Keras draws the seeds of layers and initializers from Python. On the PyTorch backend, dropout
    without a seed draws from PyTorch. The global seeds of TensorFlow and Keras are not set, because
    they could not be restored. See also `preserved_random_state`.
    """
    with preserved_random_state():
        random.seed(seed)
        np.random.seed(seed)
        if torch := _torch_backend():
            torch.manual_seed(seed)
        yield


def _torch_backend() -> ModuleType | None:
    """PyTorch if it is Keras's backend, else None."""
    import keras

    if keras.backend.backend() != "torch":
        return None
    return importlib.import_module("torch")
