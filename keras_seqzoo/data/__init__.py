"""Files in, arrays out: records of readings cut into windows, and labelled or tagged sequences.

Importing this package is light: pandas is loaded, Keras is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_seqzoo.data.encoding import Encoding, answers
from keras_seqzoo.data.examples import Examples
from keras_seqzoo.data.parallel import ParallelExamples, forecasting_pairs
from keras_seqzoo.data.parallel_encoding import ParallelEncoding
from keras_seqzoo.data.readers.conll import read_conll, read_conllu
from keras_seqzoo.data.readers.labelled import read_labelled
from keras_seqzoo.data.readers.pairs import read_pairs
from keras_seqzoo.data.readers.parallel import read_parallel
from keras_seqzoo.data.readers.read import read_examples
from keras_seqzoo.data.readers.ts import read_ts
from keras_seqzoo.data.records.readings import Readings
from keras_seqzoo.data.records.sensors import sensor_fault, sensor_readings
from keras_seqzoo.data.records.tables import read_readings
from keras_seqzoo.data.records.windows import window_positions, windows
from keras_seqzoo.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from keras_seqzoo.data.batches import Batches

__all__ = [
    "Batches",
    "Encoding",
    "Examples",
    "ParallelEncoding",
    "ParallelExamples",
    "Readings",
    "Vocabulary",
    "answers",
    "forecasting_pairs",
    "read_conll",
    "read_conllu",
    "read_examples",
    "read_labelled",
    "read_pairs",
    "read_parallel",
    "read_readings",
    "read_ts",
    "sensor_fault",
    "sensor_readings",
    "window_positions",
    "windows",
]


def __getattr__(name: str):
    if name == "Batches":  # a Keras class
        from keras_seqzoo.data.batches import Batches

        return Batches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
