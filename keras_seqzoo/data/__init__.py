"""Sequences of sensor readings: read from a file, split in time order, cut into windows.

Importing this package is light: pandas is loaded, Keras is not.
"""

from __future__ import annotations

from keras_seqzoo.data.examples import Examples
from keras_seqzoo.data.readings import Readings
from keras_seqzoo.data.sensors import sensor_fault, sensor_readings
from keras_seqzoo.data.tables import read_readings
from keras_seqzoo.data.windows import window_positions, windows

__all__ = [
    "Examples",
    "Readings",
    "read_readings",
    "sensor_fault",
    "sensor_readings",
    "window_positions",
    "windows",
]
