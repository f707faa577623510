"""Functional constructors, one file per family."""

from keras_seqzoo.models.autoencoder import decoder, encoder, sequence_autoencoder
from keras_seqzoo.models.classifier import sequence_classifier
from keras_seqzoo.models.encoder_decoder import sequence_encoder_decoder
from keras_seqzoo.models.identity import simple_rnn_identity
from keras_seqzoo.models.tagger import sequence_tagger

__all__ = [
    "decoder",
    "encoder",
    "sequence_autoencoder",
    "sequence_classifier",
    "sequence_encoder_decoder",
    "sequence_tagger",
    "simple_rnn_identity",
]
