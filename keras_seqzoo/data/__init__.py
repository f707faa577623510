"""Data sets and preprocessing: time series, windows, labeled sequences and sequence pairs.

Importing this package loads pandas, but not Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_seqzoo.data.io.conll import read_conll, read_conllu
from keras_seqzoo.data.io.csv_labels import labeled_sequences_from_dataframe, read_labeled_csv
from keras_seqzoo.data.io.dispatch import read_labeled_sequences
from keras_seqzoo.data.io.readings import read_time_series, time_series_from_dataframe
from keras_seqzoo.data.io.seq_in_out import read_seq_in_out
from keras_seqzoo.data.io.tab_pairs import read_sequence_pairs
from keras_seqzoo.data.io.uea_ts import read_ts
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.data.pair_preprocessor import PairPreprocessor
from keras_seqzoo.data.pairs import SequencePairs, forecasting_pairs
from keras_seqzoo.data.sequence_preprocessor import SequencePreprocessor, predict_batches
from keras_seqzoo.data.synthetic import sensor_fault, synthetic_readings
from keras_seqzoo.data.time_series import TimeSeries
from keras_seqzoo.data.vocabulary import Vocabulary
from keras_seqzoo.data.windows import make_windows, window_positions

if TYPE_CHECKING:
    from keras_seqzoo.data.batching import Batches

__all__ = [
    "Batches",
    "SequencePreprocessor",
    "LabeledSequences",
    "PairPreprocessor",
    "SequencePairs",
    "TimeSeries",
    "Vocabulary",
    "predict_batches",
    "forecasting_pairs",
    "read_conll",
    "read_conllu",
    "read_labeled_sequences",
    "read_labeled_csv",
    "read_seq_in_out",
    "read_sequence_pairs",
    "labeled_sequences_from_dataframe",
    "read_time_series",
    "time_series_from_dataframe",
    "read_ts",
    "sensor_fault",
    "synthetic_readings",
    "window_positions",
    "make_windows",
]


def __getattr__(name: str):
    if name == "Batches":  # a Keras class
        from keras_seqzoo.data.batching import Batches

        return Batches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
