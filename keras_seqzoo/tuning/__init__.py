"""Hyperparameter search. The only package that imports KerasTuner and Optuna."""

from keras_seqzoo.tuning.hypermodel import ZooHyperModel, hypermodel
from keras_seqzoo.tuning.search import search
from keras_seqzoo.tuning.tuner import Search

__all__ = ["Search", "ZooHyperModel", "hypermodel", "search"]
