"""Layers that Keras lacks. Importing this module lets plain `keras.saving.load_model` find them."""

from keras_seqzoo.layers.masking import ApplyMask, StepMask, step_mask
from keras_seqzoo.layers.recurrent import GRU, LSTM, SimpleRNN
from keras_seqzoo.layers.scaling import Normalization, adapt
from keras_seqzoo.losses import NormalizedMeanSquaredError

__all__ = [
    "GRU",
    "LSTM",
    "ApplyMask",
    "Normalization",
    "NormalizedMeanSquaredError",
    "SimpleRNN",
    "StepMask",
    "adapt",
    "step_mask",
]
