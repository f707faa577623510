"""Metrics: labels and tags, generated sequences, and the identity error."""

from keras_seqzoo.metrics.identity_error import identity_error
from keras_seqzoo.metrics.label_report import LabelScores
from keras_seqzoo.metrics.labels import classification_scores, tagging_scores
from keras_seqzoo.metrics.seq2seq import Seq2SeqScores, seq2seq_scores

__all__ = [
    "LabelScores",
    "Seq2SeqScores",
    "classification_scores",
    "identity_error",
    "seq2seq_scores",
    "tagging_scores",
]
