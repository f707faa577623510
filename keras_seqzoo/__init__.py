"""A Keras-native model zoo for recurrent sequence models, with state leakage as a number.

Importing this package is light: TensorFlow loads on the first model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from keras_seqzoo.registry import describe, get, list_models, register, unregister

__version__ = "0.1.0"

# Public names that need Keras, and where they live. Loaded on first use.
_LAZY = {
    "adapt": "keras_seqzoo.layers",
    "HistoryPenalty": "keras_seqzoo.layers",
    "SpectralNorm": "keras_seqzoo.regularizers",
    "certify": "keras_seqzoo.diagnostics",
    "leakage": "keras_seqzoo.diagnostics",
    "identity_error": "keras_seqzoo.diagnostics",
    "anomaly": "keras_seqzoo.diagnostics",
    "anomaly_score": "keras_seqzoo.diagnostics",
    "audit": "keras_seqzoo.diagnostics",
    "recoverability": "keras_seqzoo.diagnostics",
    "injectivity": "keras_seqzoo.diagnostics",
    "invert": "keras_seqzoo.diagnostics",
    "StateLeakage": "keras_seqzoo.diagnostics",
    "hypermodel": "keras_seqzoo.tuning",
    "search": "keras_seqzoo.tuning",
    "train": "keras_seqzoo.training",
    "with_names": "keras_seqzoo.training",
    "PairScores": "keras_seqzoo.training",
    "SequenceScores": "keras_seqzoo.training",
    "tagging_scores": "keras_seqzoo.diagnostics",
    "classification_scores": "keras_seqzoo.diagnostics",
    "transduction_scores": "keras_seqzoo.diagnostics",
    "read_examples": "keras_seqzoo.data",
    "read_parallel": "keras_seqzoo.data",
    "export": "keras_seqzoo.artifacts",
    "load": "keras_seqzoo.artifacts",
    "stream": "keras_seqzoo.artifacts",
    "read_readings": "keras_seqzoo.data",
    "sensor_readings": "keras_seqzoo.data",
    "windows": "keras_seqzoo.data",
}

__all__ = [
    "HistoryPenalty",
    "PairScores",
    "SequenceScores",
    "SpectralNorm",
    "StateLeakage",
    "__version__",
    "adapt",
    "anomaly",
    "anomaly_score",
    "audit",
    "certify",
    "classification_scores",
    "describe",
    "export",
    "get",
    "hypermodel",
    "identity_error",
    "injectivity",
    "invert",
    "leakage",
    "list_models",
    "load",
    "read_examples",
    "read_parallel",
    "read_readings",
    "recoverability",
    "register",
    "search",
    "sensor_readings",
    "stream",
    "tagging_scores",
    "train",
    "transduction_scores",
    "unregister",
    "windows",
    "with_names",
]

if TYPE_CHECKING:
    from keras_seqzoo.artifacts import export, load, stream
    from keras_seqzoo.callbacks import StateLeakage
    from keras_seqzoo.data import (
        read_examples,
        read_parallel,
        read_readings,
        sensor_readings,
        windows,
    )
    from keras_seqzoo.diagnostics import (
        anomaly,
        anomaly_score,
        audit,
        certify,
        injectivity,
        invert,
        leakage,
        recoverability,
    )
    from keras_seqzoo.layers import HistoryPenalty, adapt
    from keras_seqzoo.metrics import (
        classification_scores,
        identity_error,
        tagging_scores,
        transduction_scores,
    )
    from keras_seqzoo.regularizers import SpectralNorm
    from keras_seqzoo.training import PairScores, SequenceScores, train, with_names
    from keras_seqzoo.tuning import hypermodel, search


# Subpackages that are there without being imported, as `keras_seqzoo.data`.
_ROOMS = (
    "artifacts",
    "data",
    "diagnostics",
    "layers",
    "models",
    "regularizers",
    "training",
    "tuning",
)


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
