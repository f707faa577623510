"""Functional constructors, one file per family."""

from keras_seqzoo.models.identity import simple_rnn_identity

__all__ = ["simple_rnn_identity"]
