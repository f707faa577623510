"""What a task knows of data, model, loss and metrics; training and evaluation.

`Task` is the base class of all tasks. `task_for` finds the task of an entry, `task_of_model` that
of a trained model.
"""

from keras_seqzoo.tasks.base import ReadingOptions, Section, Task, TrainingOptions
from keras_seqzoo.tasks.evaluate import evaluate
from keras_seqzoo.tasks.labeling import LabelingTask
from keras_seqzoo.tasks.lookup import task_for, task_of_model
from keras_seqzoo.tasks.seq2seq import ForecastScores, Seq2SeqTask
from keras_seqzoo.tasks.sequence_leakage import SequenceLeakage, measure_sequence_leakage
from keras_seqzoo.tasks.train import TrainingResult, train
from keras_seqzoo.tasks.window_scores import WindowScores
from keras_seqzoo.tasks.windows import WindowTask
from keras_seqzoo.wrapping import (
    decodes,
    end_to_end,
    inner_model,
    is_end_to_end,
    preprocessor_of,
)

__all__ = [
    "ForecastScores",
    "LabelingTask",
    "ReadingOptions",
    "Section",
    "Seq2SeqTask",
    "SequenceLeakage",
    "Task",
    "TrainingOptions",
    "TrainingResult",
    "WindowScores",
    "WindowTask",
    "decodes",
    "end_to_end",
    "evaluate",
    "inner_model",
    "is_end_to_end",
    "measure_sequence_leakage",
    "preprocessor_of",
    "task_for",
    "task_of_model",
    "train",
]
