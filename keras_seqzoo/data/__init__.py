"""Files in, arrays out: records of readings cut into windows, and labelled or tagged sequences.

Importing this package is light: pandas is loaded, Keras is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_seqzoo.data.io.conll import read_conll, read_conllu
from keras_seqzoo.data.io.csv_labels import read_labelled
from keras_seqzoo.data.io.dispatch import read_examples
from keras_seqzoo.data.io.readings import read_readings
from keras_seqzoo.data.io.seq_in_out import read_pairs
from keras_seqzoo.data.io.tab_pairs import read_parallel
from keras_seqzoo.data.io.uea_ts import read_ts
from keras_seqzoo.data.labeled import Examples
from keras_seqzoo.data.pair_preprocessor import ParallelEncoding
from keras_seqzoo.data.pairs import ParallelExamples, forecasting_pairs
from keras_seqzoo.data.sequence_preprocessor import Encoding, answers
from keras_seqzoo.data.synthetic import sensor_fault, sensor_readings
from keras_seqzoo.data.time_series import Readings
from keras_seqzoo.data.vocabulary import Vocabulary
from keras_seqzoo.data.windows import window_positions, windows

if TYPE_CHECKING:
    from keras_seqzoo.data.batching import Batches

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
        from keras_seqzoo.data.batching import Batches

        return Batches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
