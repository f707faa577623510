"""A Keras-native model zoo for recurrent sequence models, with state leakage as a number.

Importing this package is light: TensorFlow loads on the first model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from keras_seqzoo.registry import describe, get, list_models, register, unregister

__version__ = "0.1.0"

# Public names that need Keras, and the module of each. Loaded on first use.
_LAZY = {
    "adapt": "keras_seqzoo.layers",
    "anomaly": "keras_seqzoo.diagnostics",
    "audit": "keras_seqzoo.diagnostics",
    "evaluate": "keras_seqzoo.tasks",
    "export": "keras_seqzoo.exporting",
    "hypermodel": "keras_seqzoo.tuning",
    "leakage": "keras_seqzoo.diagnostics",
    "load": "keras_seqzoo.saving",
    "search": "keras_seqzoo.tuning",
    "stream": "keras_seqzoo.streaming",
    "train": "keras_seqzoo.tasks",
}
# Public modules, imported on first use.
_MODULES = (
    "callbacks",
    "data",
    "diagnostics",
    "layers",
    "losses",
    "metrics",
    "models",
    "regularizers",
    "tasks",
)

__all__ = [
    "__version__",
    "adapt",
    "anomaly",
    "audit",
    "callbacks",
    "data",
    "describe",
    "diagnostics",
    "evaluate",
    "export",
    "get",
    "hypermodel",
    "layers",
    "leakage",
    "list_models",
    "load",
    "losses",
    "metrics",
    "models",
    "register",
    "regularizers",
    "search",
    "stream",
    "tasks",
    "train",
    "unregister",
]

if TYPE_CHECKING:
    from keras_seqzoo import (
        callbacks,
        data,
        diagnostics,
        layers,
        losses,
        metrics,
        models,
        regularizers,
        tasks,
    )
    from keras_seqzoo.diagnostics import anomaly, audit, leakage
    from keras_seqzoo.exporting import export
    from keras_seqzoo.layers import adapt
    from keras_seqzoo.saving import load
    from keras_seqzoo.streaming import stream
    from keras_seqzoo.tasks import evaluate, train
    from keras_seqzoo.tuning import hypermodel, search


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
