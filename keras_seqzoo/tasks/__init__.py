"""What a task knows of data, model, loss and metrics; training and evaluation."""

from keras_seqzoo.tasks.evaluate import evaluate
from keras_seqzoo.tasks.sequence_leakage import Memory, measure_memory
from keras_seqzoo.tasks.train import TrainingResult, train
from keras_seqzoo.tasks.windows import TrainedOnWindows, targets, train_on_windows
from keras_seqzoo.wrapping import decodes, end_to_end, inner_model, is_end_to_end, preprocessor_of

__all__ = [
    "Memory",
    "TrainingResult",
    "TrainedOnWindows",
    "decodes",
    "preprocessor_of",
    "evaluate",
    "is_end_to_end",
    "measure_memory",
    "inner_model",
    "targets",
    "train",
    "train_on_windows",
    "end_to_end",
]
