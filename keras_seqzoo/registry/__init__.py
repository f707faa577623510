"""Registry of model entries. Keras is imported when the first model is built."""

from keras_seqzoo.registry.entry import TASKS, Entry
from keras_seqzoo.registry.registry import (
    describe,
    entries,
    get,
    get_entry,
    list_models,
    model_task,
    register,
    unregister,
)

__all__ = [
    "TASKS",
    "Entry",
    "describe",
    "entries",
    "get",
    "get_entry",
    "list_models",
    "model_task",
    "register",
    "unregister",
]
