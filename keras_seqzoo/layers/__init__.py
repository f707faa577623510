"""Layers that Keras lacks. Importing this module lets plain `keras.saving.load_model` find them."""

from keras_seqzoo.layers.masking import ApplyMask, StepMask, step_mask
from keras_seqzoo.layers.scaling import Normalization, adapt
from keras_seqzoo.losses import NormalizedMeanSquaredError

__all__ = [
    "ApplyMask",
    "Normalization",
    "NormalizedMeanSquaredError",
    "StepMask",
    "adapt",
    "step_mask",
]
