"""Layers that Keras lacks. Importing this module lets plain `keras.saving.load_model` find them."""

from keras_seqzoo.layers.masking import ApplyMask, StepMask, step_mask
from keras_seqzoo.layers.pooling import Pooling
from keras_seqzoo.layers.recurrent import GRU, LSTM, SimpleRNN
from keras_seqzoo.layers.scaling import Normalization, adapt
from keras_seqzoo.layers.tokens import CharacterBiLSTM, CharacterCNN, TokenMask, WordDropout
from keras_seqzoo.losses import NormalizedMeanSquaredError

__all__ = [
    "GRU",
    "LSTM",
    "ApplyMask",
    "CharacterBiLSTM",
    "CharacterCNN",
    "Normalization",
    "NormalizedMeanSquaredError",
    "Pooling",
    "SimpleRNN",
    "StepMask",
    "TokenMask",
    "WordDropout",
    "adapt",
    "step_mask",
]
