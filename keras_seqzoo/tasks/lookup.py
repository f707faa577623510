"""Which task an entry, or a trained model, is for."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import registry
from keras_seqzoo.tasks.base import Task
from keras_seqzoo.tasks.labeling import LabelingTask
from keras_seqzoo.tasks.seq2seq import Seq2SeqTask
from keras_seqzoo.tasks.windows import WindowTask

_TASKS: dict[str, type[Task]] = {
    "identity": WindowTask,
    "reconstruction": WindowTask,
    "forecasting": WindowTask,
    "classification": LabelingTask,
    "tagging": LabelingTask,
    "seq2seq": Seq2SeqTask,
}


def task_for(name: str, **arguments: Any) -> Task:
    """The task of an entry, not bound to data.

    Args:
        name: str, one of `list_models()`.
        **arguments: options of the task, and arguments of the constructor that are fixed.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: as `get` does.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.tasks.task_for("gru_tagger").objective
    ('val_accuracy', 'max')
    """
    entry = registry.get_entry(name)
    return (entry.task_class or _TASKS[entry.task]).for_entry(entry, **arguments)


def task_of_model(model: keras.Model) -> Task:
    """The task that evaluates a trained model.

    Args:
        model: `keras.Model`, as `train`, `search` or `load` returned it.
    """
    custom = {
        entry.task_class: None for entry in registry.entries() if entry.task_class is not None
    }
    for task_class in (*custom, Seq2SeqTask, LabelingTask, WindowTask):
        task = task_class.of_model(model)
        if task is not None:
            return task
    raise AssertionError("WindowTask takes any model")
