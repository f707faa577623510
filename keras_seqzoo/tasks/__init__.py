"""What a task knows of data, model, loss and metrics; training and evaluation."""

from keras_seqzoo.tasks.evaluate import evaluate
from keras_seqzoo.tasks.sequence_leakage import Memory, measure_memory
from keras_seqzoo.tasks.train import Trained, train
from keras_seqzoo.tasks.windows import TrainedOnWindows, targets, train_on_windows
from keras_seqzoo.wrapping import decodes, encoding_of, has_names, network_of, with_names

__all__ = [
    "Memory",
    "Trained",
    "TrainedOnWindows",
    "decodes",
    "encoding_of",
    "evaluate",
    "has_names",
    "measure_memory",
    "network_of",
    "targets",
    "train",
    "train_on_windows",
    "with_names",
]
