"""Randomness that depends on the search's seed and the trial's number alone."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np


def derive(seed: int, trial: int, purpose: str) -> int:
    """A seed in [0, 2^31) for one purpose of one trial; neighbouring seeds share nothing."""
    digest = hashlib.blake2b(f"{seed}/{trial}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Gives Python's and NumPy's global generators their state back after."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python and NumPy inside. Keras draws the seeds of layers and initializers from Python.

    TensorFlow's and Keras's own global seeds stay as they are: they could not be put back.
    """
    with preserved():
        random.seed(seed)
        np.random.seed(seed)
        yield
