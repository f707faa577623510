"""Randomness that depends on the search's seed and the trial's number alone."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import keras
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
    """Seeds Python, NumPy and Keras inside, and preserves the first two."""
    with preserved():
        keras.utils.set_random_seed(seed)
        yield
