"""Fixtures for the tests and for the examples in the docstrings."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seqzoo import registry


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whichever ran before it."""
    keras.utils.set_random_seed(20240229)


@pytest.fixture(autouse=True)
def same_zoo():
    """Every test finds the built-in entries, whatever another one registered or removed."""
    registry.list_models()
    entries = dict(registry._entries)
    yield
    registry._entries.clear()
    registry._entries.update(entries)


@pytest.fixture(autouse=True)
def names_in_examples(doctest_namespace):
    """What examples use without importing it."""
    doctest_namespace.update(np=np, tempfile=tempfile, Path=Path)


@pytest.fixture
def float64():
    """Keras in float64, where round-off hides nothing."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])
