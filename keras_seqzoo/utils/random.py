"""Randomness that depends on a seed alone, and leaves the user's own as it was."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import random
from collections.abc import Iterator

import keras
import numpy as np
from keras.src.backend.common import global_state

if keras.backend.backend() == "torch":
    import torch
else:
    torch = None


def derive(seed: int, trial: int, purpose: str) -> int:
    """A seed in [0, 2^31) for one purpose of one trial; neighbouring seeds share nothing."""
    digest = hashlib.blake2b(f"{seed}/{trial}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Gives the generators of Python, NumPy and PyTorch, and Keras's count of names, their state
    back.

    So the user's next layer is called as it would have been, and so are those of every trial:
    TensorFlow keeps 34 kB for each variable with a new name, for as long as the process lives.
    """
    python, numpy = random.getstate(), np.random.get_state()
    names = global_state.get_global_attribute(
        "object_name_uids", default=collections.defaultdict(int), set_to_default=True
    )
    known = dict(names)
    try:
        with torch.random.fork_rng() if torch else contextlib.nullcontext():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        names.clear()
        names.update(known)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python, NumPy and PyTorch inside.

    Keras draws the seeds of layers and initializers from Python; on PyTorch, dropout without a seed
    draws from PyTorch. TensorFlow's and Keras's own global seeds stay as they are: they could not
    be put back.
    """
    with preserved():
        random.seed(seed)
        np.random.seed(seed)
        if torch:
            torch.manual_seed(seed)
        yield
