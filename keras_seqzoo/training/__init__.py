"""From examples to a trained model that takes and gives names."""

from keras_seqzoo.training.named import encoding_of, with_names
from keras_seqzoo.training.scores import SequenceScores
from keras_seqzoo.training.train import Trained, train

__all__ = ["SequenceScores", "Trained", "encoding_of", "train", "with_names"]
