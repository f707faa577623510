"""Safe loading of models: every file is checked before Keras or TensorFlow reads it."""

from keras_seqzoo.saving.load import load

__all__ = ["load"]
