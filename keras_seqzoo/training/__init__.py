"""From data to a trained model: one that takes and gives names, or readings."""

from keras_seqzoo.optimizers import Adam
from keras_seqzoo.training.answering import decodes
from keras_seqzoo.training.evaluation import evaluate
from keras_seqzoo.training.fit import Trained, train
from keras_seqzoo.training.memory import Memory, measure_memory
from keras_seqzoo.training.named import encoding_of, has_names, network_of, with_names
from keras_seqzoo.training.pairs import PairScores
from keras_seqzoo.training.scores import SequenceScores
from keras_seqzoo.training.windows import TrainedOnWindows, targets, train_on_windows
from keras_seqzoo.utils.distribution import across_workers

__all__ = [
    "Adam",
    "Memory",
    "PairScores",
    "SequenceScores",
    "Trained",
    "TrainedOnWindows",
    "across_workers",
    "decodes",
    "encoding_of",
    "evaluate",
    "has_names",
    "network_of",
    "measure_memory",
    "targets",
    "train",
    "train_on_windows",
    "with_names",
]
