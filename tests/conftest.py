"""What several test files need."""

import keras
import pytest


@pytest.fixture
def float64():
    """Keras in float64, where round-off hides nothing."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])
