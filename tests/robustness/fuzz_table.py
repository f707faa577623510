"""Every public function and class with valid arguments, some of which the fuzz tests replace."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

import keras_seqzoo as zoo
from keras_seqzoo import (
    data,
    diagnostics,
    exporting,
    layers,
    metrics,
    models,
    optimizers,
    streaming,
    tasks,
    tuning,
    wrapping,
)
from keras_seqzoo.errors import SeqZooError
from keras_seqzoo.utils import distribution

OWN_ERRORS = (SeqZooError,)
# Layers pass arguments on to Keras, which raises errors of its own.
KERAS_ERRORS = (SeqZooError, ValueError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Row:
    """One public call.

    Attributes:
        call: the function or class.
        valid: returns valid arguments; the keys "0", "1", ... are positions.
        fuzzed: the arguments that the fuzz tests replace; all by default.
        slow: whether it trains or exports.
        rejections: errors that an invalid argument may raise.
    """

    call: Callable[..., Any]
    valid: Callable[[], dict[str, Any]]
    fuzzed: tuple[str, ...] = ()
    slow: bool = False
    rejections: tuple[type[Exception], ...] = OWN_ERRORS


@functools.cache
def model() -> keras.Model:
    return zoo.get("simple_rnn_identity", features=2, units=3)


@functools.cache
def compiled_model() -> keras.Model:
    model = zoo.get("simple_rnn_identity", features=2, units=2)
    model.compile("sgd", "mse")
    return model


@functools.cache
def model_to_adapt() -> keras.Model:
    """A model of its own for calls that change its scaling."""
    return zoo.get("simple_rnn_identity", features=2, units=2)


@functools.cache
def crf_tagger() -> keras.Model:
    return zoo.get("bilstm_crf_tagger", features=2, units=2)


@functools.cache
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 7, 2)).astype("float32")


@functools.cache
def states() -> np.ndarray:
    inner = keras.Model(model().input, model().get_layer("recurrent").output)
    return np.asarray(keras.ops.convert_to_numpy(inner(rows()[:2, :4])))


@functools.cache
def time_series() -> data.TimeSeries:
    return zoo.data.synthetic_readings(steps=120)


@functools.cache
def labeled_sequences() -> data.LabeledSequences:
    return data.LabeledSequences(
        [["a", "b"], ["b"], ["c", "a"], ["a"]], labels=["x", "y", "x", "y"]
    )


@functools.cache
def frame() -> pd.DataFrame:
    """Readings as a DataFrame."""
    return pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.1, 0.2]})


def text_frame() -> pd.DataFrame:
    """Texts and labels as a DataFrame."""
    return pd.DataFrame({"text": ["a b", "c"], "label": ["x", "y"]})


def tagged_sequences() -> data.LabeledSequences:
    sequences = [["a", "b"], ["b"], ["c", "a", "b"], ["a", "b"]]
    tags = [["O", "B-p"], ["O"], ["O", "O", "O"], ["B-p", "O"]]
    return data.LabeledSequences(sequences, tags=tags)


@functools.cache
def sequence_pairs() -> data.SequencePairs:
    return data.SequencePairs([["a", "b"], ["b"], ["c"]], [["x"], ["y", "x"], ["x"]])


@functools.cache
def preprocessor() -> data.SequencePreprocessor:
    return data.SequencePreprocessor.from_data(tagged_sequences())


@functools.cache
def tagger() -> keras.Model:
    return zoo.get("gru_tagger", **preprocessor().model_arguments(), units=3, embedding_dim=2)


@functools.cache
def end_to_end_tagger() -> keras.Model:
    return zoo.tasks.end_to_end(tagger(), preprocessor())


@functools.cache
def pair_preprocessor() -> data.PairPreprocessor:
    return data.PairPreprocessor.from_data(sequence_pairs())


@functools.cache
def autoencoder() -> keras.Model:
    return zoo.get("linear_rnn_autoencoder", features=2, units=3, code_size=2)


@functools.cache
def encoder_decoder() -> keras.Model:
    sizes = pair_preprocessor().model_arguments()
    return zoo.get("attention_gru_encoder_decoder", **sizes, units=3, embedding_dim=2)


@functools.cache
def end_to_end_encoder_decoder() -> keras.Model:
    return zoo.tasks.end_to_end(encoder_decoder(), pair_preprocessor())


@functools.cache
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (30, 7))


def measure_state_leakage(*x: Any, **options: Any) -> dict[str, float]:
    callback = zoo.callbacks.StateLeakage(*x, **options)
    callback.set_model(model())
    return callback.measure()


@functools.cache
def streamer() -> streaming.Streamer:
    return zoo.stream(model())


@functools.cache
def token_streamer() -> streaming.Streamer:
    return zoo.stream(tagger())


def layer(layer_class: type, /, **valid: Any) -> Row:
    """A layer and its constructor arguments."""
    return Row(layer_class, lambda: valid, rejections=KERAS_ERRORS)


def method(owner: Callable[[], Any], name: str, valid: Callable[[], dict]) -> Row:
    """A method of the object that `owner` returns."""
    return Row(lambda **arguments: getattr(owner(), name)(**arguments), valid)


def reader(call: Callable[..., Any], **valid: Any) -> Row:
    """A reader with the path of an unreadable file."""
    return Row(call, lambda: {"0": FILE} | valid)


FILE = str(Path(__file__))
ROWS = {
    # The zoo.
    "describe": Row(zoo.describe, lambda: {"0": "gru_tagger"}),
    "get": Row(
        zoo.get,
        lambda: {"0": "simple_rnn_identity", "features": 2, "units": 3, "activation": "tanh",
                 "time": None, "mask_value": None, "name": "a", "recurrent_regularizer": "l2"},
    ),
    "list_models": Row(
        zoo.list_models, lambda: {"0": "*", "task": None, "exclude": (), "causal": True}
    ),
    "register": Row(
        zoo.register,
        lambda: {"0": "mine", "1": models.sequence_tagger, "task": "tagging", "summary": "a",
                 "inputs": "a", "outputs": "b", "causal": True, "defaults": {}, "space": {},
                 "references": (), "family": "mine"},
    ),
    "unregister": Row(zoo.unregister, lambda: {"0": "mine"}),
    # Diagnostics.
    "adapt": Row(
        zoo.adapt, lambda: {"0": model_to_adapt(), "1": rows(), "target": None, "mask": None}
    ),
    "anomaly": Row(
        zoo.anomaly,
        lambda: {"0": np.tanh, "1": rows()[0], "2": rows()[1], "kind": "identity",
                 "quantile": 0.9, "sequence_length": 3, "sequence_stride": 1,
                 "combine": "mean", "alone": False, "seed": 0},
    ),
    "anomaly_score": Row(
        zoo.diagnostics.anomaly_score,
        lambda: {"0": np.tanh, "1": rows(), "kind": "identity", "alone": False, "mask": None,
                 "batch_size": 8},
    ),
    "classification_scores": Row(
        zoo.metrics.classification_scores, lambda: {"0": ["a", "b"], "1": ["a", "a"]}
    ),
    "tagging_scores": Row(
        zoo.metrics.tagging_scores,
        lambda: {"0": [["O", "B-a"]], "1": [["O", "O"]], "scheme": "BIO"},
    ),
    "seq2seq_scores": Row(
        zoo.metrics.seq2seq_scores, lambda: {"0": [["a", "b"]], "1": [["a"]]}
    ),
    "identity_error": Row(
        zoo.metrics.identity_error,
        lambda: {"0": np.tanh, "1": rows(), "2": rows(), "mask": None, "batch_size": 8},
    ),
    "leakage": Row(
        zoo.leakage,
        lambda: {"0": np.tanh, "1": rows(), "method": "swap", "cuts": 2, "burn_in": 1,
                 "mask": None, "output_step": None, "scale": "feature", "threshold": 0.01,
                 "resamples": 0, "block": 1, "seed": 0, "batch_size": 8},
    ),
    "recoverability": Row(
        zoo.diagnostics.recoverability,
        lambda: {"0": np.tanh, "1": rows(), "lags": 2, "readout": "ridge", "layer": None,
                 "held_out": 0.5, "burn_in": 0, "mask": None, "output_step": None, "block": 1,
                 "resamples": 0, "seed": 0},
    ),
    "injectivity": Row(
        zoo.diagnostics.injectivity,
        lambda: {"0": model(), "1": rows()[:2, :3], "layer": None, "tolerance": None,
                 "distance": 1.0, "mask": None, "output_step": None, "batch_size": 8},
    ),
    "invert": Row(
        zoo.diagnostics.invert,
        lambda: {"0": model(), "1": states(), "layer": "recurrent", "initial_state": None},
    ),
    "audit": Row(
        zoo.audit,
        lambda: {"0": np.tanh, "1": rows(), "causal": True, "max_leakage": 0.5, "max_horizon": 3,
                 "mask": None, "mask_value": None, "sides": "both", "along": None, "skip": (),
                 "tolerance": 32.0, "block": 1, "seed": 0},
    ),
    "lipschitz_bound": Row(
        zoo.diagnostics.lipschitz_bound,
        lambda: {"0": model(), "1": rows()[:1], "lags": 3, "mask": None, "batch_size": 8},
    ),
    "LeakagePenalty": Row(
        layers.LeakagePenalty, lambda: {"0": model(), "weight": 0.1, "seed": 0},
        rejections=KERAS_ERRORS,
    ),
    "SpectralNorm": Row(zoo.regularizers.SpectralNorm, lambda: {"weight": 0.1, "limit": 0.9}),
    "stream": Row(zoo.stream, lambda: {"0": model(), "nan": "skip"}),
    "StateLeakage": Row(
        zoo.callbacks.StateLeakage,
        lambda: {"0": rows(), "1": None, "max_rows": 4, "prefix": "val_", "cuts": 2},
    ),
    # Data.
    "read_labeled_sequences": reader(zoo.data.read_labeled_sequences, format="csv"),
    "read_sequence_pairs": reader(
        zoo.data.read_sequence_pairs, source_units="tokens", target_units="tokens"
    ),
    "read_time_series": reader(
        zoo.data.read_time_series, columns=None, missing="split", duplicates="mean"
    ),
    "read_conll": reader(data.read_conll, token_column=0, tag_column=-1),
    "read_conllu": reader(data.read_conllu, field="upos"),
    "read_labeled_csv": reader(data.read_labeled_csv, text="text", label="label", separator=None,
                          lower=False),
    "read_seq_in_out": reader(data.read_seq_in_out, tags=__file__ + "?", labels=None),
    "read_ts": reader(data.read_ts),
    "synthetic_readings": Row(
        zoo.data.synthetic_readings, lambda: {"steps": 120, "seed": 0, "interval": "5min"}
    ),
    "sensor_fault": Row(data.sensor_fault, lambda: {"steps": 200, "seed": 0}),
    "make_windows": Row(
        zoo.data.make_windows,
        lambda: {"0": time_series(), "sequence_length": 3, "sequence_stride": 2},
    ),
    "window_positions": Row(
        data.window_positions,
        lambda: {"0": time_series(), "sequence_length": 3, "sequence_stride": 2},
    ),
    "forecasting_pairs": Row(
        data.forecasting_pairs,
        lambda: {"0": time_series(), "past": 3, "steps": 2, "sequence_stride": 1},
    ),
    "Batches": Row(
        data.Batches,
        lambda: {"0": [[1, 2], [3]], "1": [[0, 1], [0]], "weights": None, "batch_size": 2,
                 "shuffle": True, "seed": 0, "pad_to_multiple_of": 1, "padding": 0},
    ),
    "LabeledSequences": Row(
        data.LabeledSequences,
        lambda: {"0": [["a"], ["b"]], "labels": ["x", "y"], "tags": None, "notes": (),
                 "source": ""},
    ),
    "SequencePairs": Row(
        data.SequencePairs,
        lambda: {"0": [["a"]], "1": [["b"]], "source_units": "tokens", "target_units": "tokens"},
    ),
    "Vocabulary": Row(data.Vocabulary, lambda: {"0": ["a", "b"]}),
    "TimeSeries": Row(
        data.TimeSeries,
        lambda: {"values": rows()[0], "columns": ("a", "b"), "times": None, "starts": (0,)},
        fuzzed=("columns", "starts", "values"),
    ),
    "predict_batches": Row(
        data.predict_batches, lambda: {"0": model(), "1": data.Batches(list(rows()), batch_size=2)},
    ),
    # Training, searching, files.
    "train": Row(
        zoo.train,
        lambda: {"0": "gru_tagger", "1": tagged_sequences(), "validation_data": tagged_sequences(),
                 "validation_split": 0.5, "epochs": 1, "batch_size": 4, "learning_rate": 0.01,
                 "learning_rate_schedule": "plateau", "patience": 2, "callbacks": [],
                 "label_smoothing": 0.1, "class_weight": "balanced", "min_count": 1,
                 "seed": 0, "verbose": 0, "units": 2, "embedding_dim": 2},
        slow=True,
    ),
    "evaluate": Row(
        tasks.evaluate, lambda: {"0": end_to_end_tagger(), "1": tagged_sequences(), "batch_size": 4}
    ),
    "task_for": Row(tasks.task_for, lambda: {"0": "gru_tagger", "units": 3}),
    "task_of_model": Row(tasks.task_of_model, lambda: {"0": end_to_end_tagger()}),
    "time_series_from_dataframe": Row(
        data.time_series_from_dataframe,
        lambda: {"0": frame(), "columns": None, "missing": "split", "duplicates": "mean"},
    ),
    "labeled_sequences_from_dataframe": Row(
        data.labeled_sequences_from_dataframe,
        lambda: {"0": text_frame(), "text": "text", "label": "label", "lower": False},
    ),
    "measure_sequence_leakage": Row(
        tasks.measure_sequence_leakage,
        lambda: {"0": tagger(), "1": preprocessor(), "2": tagged_sequences(), "seed": 0},
    ),
    "end_to_end": Row(zoo.tasks.end_to_end, lambda: {"0": tagger(), "1": preprocessor()}),
    "is_end_to_end": Row(wrapping.is_end_to_end, lambda: {"0": end_to_end_tagger()}),
    "decodes": Row(wrapping.decodes, lambda: {"0": end_to_end_tagger()}),
    "preprocessor_of": Row(wrapping.preprocessor_of, lambda: {"0": end_to_end_tagger()}),
    "inner_model": Row(wrapping.inner_model, lambda: {"0": end_to_end_tagger()}),
    "SequenceMetrics": Row(
        zoo.callbacks.SequenceMetrics,
        lambda: {"0": preprocessor(), "1": tagged_sequences(), "batch_size": 4},
    ),
    "PairMetrics": Row(
        zoo.callbacks.PairMetrics, lambda: {"0": pair_preprocessor(), "1": sequence_pairs()}
    ),
    "SequencePreprocessor": Row(
        data.SequencePreprocessor, lambda: {"target": "tags", "classes": ("a", "b"),
                                "tokens": data.Vocabulary(["a"])},
    ),
    "PairPreprocessor": Row(
        data.PairPreprocessor,
        lambda: {"source": data.Vocabulary(["a"]), "target": data.Vocabulary(["b"]),
                 "source_units": "tokens", "target_units": "tokens", "max_length": 5},
    ),
    "hypermodel": Row(
        zoo.hypermodel, lambda: {"0": "simple_rnn_identity", "space": {"units": [2, 3]},
                                 "block": 1, "features": 2},
    ),
    "ZooHyperModel": Row(
        tuning.ZooHyperModel, lambda: {"0": tasks.task_for("gru_tagger"), "space": None, "units": 3,
                 "learning_rate": 0.01},
    ),
    "search": Row(
        zoo.search,
        lambda: {"0": "simple_rnn_identity", "1": rows(), "validation_split": 0.5,
                 "max_trials": 1, "epochs": 1, "batch_size": 8, "population": 1,
                 "pruning": False, "seed": 0, "block": 1, "report": False, "verbose": 0,
                 "objective": None, "space": {"units": [2]}, "sampler": "random",
                 "callbacks": ()},
        fuzzed=("0", "1", "validation_split", "objective", "space", "seed", "block", "pruning",
                "callbacks"),
        slow=True,
    ),
    "export": Row(
        zoo.export,
        lambda: {"0": model(), "format": "tf_saved_model", "verify": False, "overwrite": False,
                 "verbose": 0},
        slow=True,
    ),
    "load": Row(
        zoo.load,
        lambda: {"0": FILE, "custom_objects": None, "sha256": None, "max_bytes": 10**6,
                 "max_config": 10**6, "max_size": 10**6, "max_layers": 100},
    ),
    # Constructors and parts of models.
    "encoder": Row(models.encoder, lambda: {"0": autoencoder()}),
    "decoder": Row(models.decoder, lambda: {"0": autoencoder()}),
    "sequence_autoencoder": Row(
        models.sequence_autoencoder,
        lambda: {"features": 2, "cell": "gru", "units": 3, "code_size": 2, "num_layers": 1,
                 "bidirectional": False, "reconstruct": "sequence"},
    ),
    "sequence_classifier": Row(
        models.sequence_classifier,
        lambda: {"features": 2, "classes": 3, "cell": "gru", "units": 3, "num_layers": 1,
                 "bidirectional": False, "pooling": "mean"},
    ),
    "sequence_tagger": Row(
        models.sequence_tagger,
        lambda: {"vocabulary_size": 9, "classes": 3, "head": "crf", "cell": "gru", "units": 3,
                 "embedding_dim": 2},
    ),
    "sequence_encoder_decoder": Row(
        models.sequence_encoder_decoder,
        lambda: {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "cell": "gru",
                 "units": 3, "num_layers": 1, "embedding_dim": 2, "attention": "general"},
    ),
    "simple_rnn_identity": Row(
        models.simple_rnn_identity, lambda: {"features": 2, "units": 3}
    ),
    # Layers.
    "ClassNames": layer(layers.ClassNames, names=["a", "b"]),
    "GRU": layer(layers.GRU, units=3),
    "LSTM": layer(layers.LSTM, units=3),
    "SimpleRNN": layer(layers.SimpleRNN, units=3),
    "AllSteps": layer(layers.AllSteps, name="a"),
    "SequenceGenerator": Row(
        layers.SequenceGenerator,
        lambda: {"0": encoder_decoder(), "max_length": 3, "num_beams": 2, "length_penalty": 0.0},
        rejections=KERAS_ERRORS,
    ),
    "ApplyMask": layer(layers.ApplyMask, name="a"),
    "Bidirectional": Row(
        layers.Bidirectional,
        lambda: {"0": layers.GRU(2), "merge_mode": "concat"},
        rejections=KERAS_ERRORS,
    ),
    "CharacterBiLSTM": layer(
        layers.CharacterBiLSTM, vocabulary_size=5, units=4, embedding_dim=3
    ),
    "CharacterCNN": layer(
        layers.CharacterCNN, vocabulary_size=5, units=4, embedding_dim=3, width=3
    ),
    "CodeDecoder": layer(
        layers.CodeDecoder, output_dim=2, units=3, mode="repeat", cell="gru", num_layers=1,
        attention=None, num_heads=1, dropout=0.1,
    ),
    "Decoder": layer(
        layers.Decoder, units=4, cell="gru", num_layers=1, attention=None, num_heads=1,
        input_feeding=False, dropout=0.1,
    ),
    "CRFModel": Row(
        layers.CRFModel,
        lambda: {"inputs": crf_tagger().inputs[0], "outputs": crf_tagger().outputs[0]},
        rejections=KERAS_ERRORS,
    ),
    "EncoderDecoderModel": Row(
        layers.EncoderDecoderModel,
        lambda: {"inputs": model().inputs, "outputs": model().outputs},
        rejections=KERAS_ERRORS,
    ),
    "Ensemble": Row(layers.Ensemble, lambda: {"0": [encoder_decoder()]}),
    "JoinTokens": layer(layers.JoinTokens, separator=" "),
    "LastState": layer(layers.LastState, bidirectional=True),
    "LinearChainCRF": layer(
        layers.LinearChainCRF, classes=3, allowed=None, allowed_start=None, allowed_end=None
    ),
    "Normalization": layer(layers.Normalization, name="a"),
    "NormalizedMeanSquaredError": layer(layers.NormalizedMeanSquaredError, variance=[1.0]),
    "Pooling": layer(layers.Pooling, pooling="mean"),
    "ScheduledSampling": layer(layers.ScheduledSampling, rate=0.1),
    "SmoothedCrossentropy": layer(layers.SmoothedCrossentropy, label_smoothing=0.1),
    "SourceAttention": layer(layers.SourceAttention, kind="dot", units=4, num_heads=2),
    "SplitCharacters": layer(layers.SplitCharacters, max_characters=3),
    "SplitTokens": layer(layers.SplitTokens, name="a"),
    "StepMask": layer(layers.StepMask, mask_value=0.0),
    "TokenMask": layer(layers.TokenMask, name="a"),
    "WordDropout": layer(layers.WordDropout, rate=0.1),
    "Adam": layer(optimizers.Adam, learning_rate=0.1, beta_1=0.9, clipnorm=1.0),
    "bio_constraints": Row(
        layers.bio_constraints, lambda: {"0": ["O", "B-a", "I-a"], "scheme": "BIO"}
    ),
    "compile_recurrences": Row(
        layers.compile_recurrences, lambda: {"0": model(), "jit_compile": True},
        rejections=KERAS_ERRORS,
    ),
    "has_scaling": Row(layers.has_scaling, lambda: {"0": model()}, rejections=KERAS_ERRORS),
    "step_mask": Row(
        layers.step_mask, lambda: {"0": rows(), "1": 0.0, "name": "mask"}, rejections=KERAS_ERRORS
    ),
}  # fmt: skip
# Methods that take data, and functions with other kinds of model or data.
MORE = {
    "train on windows": Row(
        zoo.train,
        lambda: {"0": "simple_rnn_identity", "1": rows(), "2": None, "validation_data": rows(),
                 "epochs": 1, "batch_size": 8, "learning_rate": 0.01, "patience": 1,
                 "callbacks": None, "sequence_length": 3, "sequence_stride": 1, "seed": 0,
                 "verbose": 0, "units": 2},
        slow=True,
    ),
    "evaluate of pairs": Row(
        tasks.evaluate,
        lambda: {"0": end_to_end_encoder_decoder(), "1": sequence_pairs(), "batch_size": 4},
    ),
    "evaluate on windows": Row(
        tasks.evaluate, lambda: {"0": model(), "1": rows(), "2": rows(), "batch_size": 4}
    ),
    "across_workers": Row(distribution.across_workers, lambda: {"0": compiled_model()}),
    "identity_error of a model": Row(
        zoo.metrics.identity_error, lambda: {"0": model(), "1": rows(), "mask": None},
        fuzzed=("1", "mask"),
    ),
    "leakage of tokens": Row(
        zoo.leakage,
        lambda: {"0": tagger(), "1": tokens(), "mask": None, "resamples": 0, "cuts": 2},
        fuzzed=("1", "mask"),
    ),
    "recoverability of a model": Row(
        zoo.diagnostics.recoverability,
        lambda: {"0": model(), "1": np.tile(rows(), (5, 1, 1)), "mask": None, "resamples": 0,
                 "lags": 1},
        fuzzed=("1", "mask"),
    ),
    "audit of tokens": Row(
        zoo.audit,
        lambda: {"0": tagger(), "1": tokens(), "mask": None, "mask_value": None},
        fuzzed=("1", "mask", "mask_value"),
    ),
    "StateLeakage of a model": Row(
        measure_state_leakage,
        lambda: {"0": rows(), "1": rows(), "mask": None, "cuts": 2},
    ),
    "Streamer.initial_state": method(streamer, "initial_state", lambda: {"batch": 2}),
    "Streamer.step": method(
        streamer, "step",
        lambda: {"x": rows()[:2, 0], "state": streamer().initial_state(2)},
    ),
    "Streamer.step, tokens": method(
        token_streamer, "step",
        lambda: {"x": np.array([1, 2]), "state": token_streamer().initial_state(2)},
    ),
    "EncoderDecoderModel.generate": method(
        encoder_decoder, "generate",
        lambda: {"source": [[2, 3, 0], [4, 0, 0]], "max_length": 3, "strategy": "beam",
                 "num_beams": 2, "length_penalty": 0.0, "coverage_penalty": 0.0,
                 "temperature": 1.0, "top_k": None, "top_p": None, "num_return_sequences": None,
                 "return_attention": False, "seed": 0, "batch_size": 8},
    ),
    "EncoderDecoderModel.attention": method(
        encoder_decoder, "attention", lambda: {"source": [2, 3], "target": [4]}
    ),
    "EncoderDecoderModel.plot_attention": method(
        encoder_decoder, "plot_attention",
        lambda: {"source": [2, 3], "target": [4], "source_labels": ["a", "b"],
                 "target_labels": ["x"]},
    ),
    "Ensemble.generate": method(
        functools.cache(lambda: layers.Ensemble([encoder_decoder(), encoder_decoder()])),
        "generate",
        lambda: {"source": [[2, 3, 0], [4, 0, 0]], "max_length": 3, "strategy": "greedy"},
    ),
    "Vocabulary.from_data": method(
        lambda: data.Vocabulary, "from_data",
        lambda: {"sequences": [["a", "b"]], "min_count": 1, "max_size": 9},
    ),
    "Vocabulary.encode": method(
        lambda: preprocessor().tokens, "encode", lambda: {"tokens": ["a", "z"]}
    ),
    "Vocabulary.decode": method(
        lambda: preprocessor().tokens, "decode", lambda: {"ids": [0, 2]}
    ),
    "SequencePreprocessor.from_data": method(
        lambda: data.SequencePreprocessor, "from_data",
        lambda: {"examples": tagged_sequences(), "target": "tags", "characters": True,
                 "min_count": 1, "max_size": 9},
    ),
    "SequencePreprocessor.batches": method(
        preprocessor, "batches",
        lambda: {"examples": tagged_sequences(), "class_weight": {"O": 2.0}, "targets": True,
                 "batch_size": 2, "shuffle": True, "seed": 0, "pad_to_multiple_of": 1},
    ),
    "SequencePreprocessor.decode": method(
        preprocessor, "decode", lambda: {"predictions": [[0, 1]]}
    ),
    "PairPreprocessor.from_data": method(
        lambda: data.PairPreprocessor, "from_data",
        lambda: {"examples": sequence_pairs(), "min_count": 1},
    ),
    "PairPreprocessor.batches": method(
        pair_preprocessor, "batches",
        lambda: {"examples": sequence_pairs(), "targets": True, "batch_size": 2, "shuffle": True,
                 "seed": 0, "pad_to_multiple_of": 1},
    ),
    "PairPreprocessor.encode_sources": method(
        pair_preprocessor, "encode_sources", lambda: {"sequences": [["a"], ["b", "a"]]}
    ),
    "PairPreprocessor.decode": method(
        pair_preprocessor, "decode", lambda: {"ids": np.array([[2, 0]])}
    ),
    "LabeledSequences.take": method(tagged_sequences, "take", lambda: {"indices": [0, 2]}),
    "LabeledSequences.split": method(
        tagged_sequences, "split", lambda: {"fraction": 0.5, "seed": 0}
    ),
    "SequencePairs.take": method(sequence_pairs, "take", lambda: {"indices": [0, 2]}),
    "SequencePairs.split": method(sequence_pairs, "split", lambda: {"fraction": 0.5, "seed": 0}),
    "TimeSeries.split": Row(
        lambda *fractions: time_series().split(*fractions), lambda: {"0": 0.6, "1": 0.4}
    ),
    "SequenceMetrics.measure": method(
        lambda: zoo.callbacks.SequenceMetrics(preprocessor(), tagged_sequences()), "measure",
        lambda: {"model": tagger()},
    ),
    "PairMetrics.measure": method(
        lambda: zoo.callbacks.PairMetrics(pair_preprocessor(), sequence_pairs()), "measure",
        lambda: {"model": encoder_decoder()},
    ),
    "LipschitzBound.horizon": method(
        functools.cache(lambda: zoo.diagnostics.lipschitz_bound(model(), lags=3)), "horizon",
        lambda: {"threshold": 1e9},
    ),
}  # fmt: skip
# Classes that the package returns and that users do not construct.
RESULTS = (
    exporting.Parity, streaming.Streamer, diagnostics.AnomalyReport, diagnostics.AuditFailure,
    diagnostics.AuditReport, diagnostics.LipschitzBound, diagnostics.Finding,
    diagnostics.InjectivityReport, diagnostics.Inversion, diagnostics.LeakageReport,
    diagnostics.RecoverabilityReport,
    metrics.LabelScores, metrics.Seq2SeqScores, layers.GenerationOutput, tasks.SequenceLeakage,
    tasks.TrainingResult, tasks.WindowScores, tasks.ForecastScores, tuning.Search,
    # Tasks and their options, which `task_for` and `train` make.
    tasks.Task, tasks.WindowTask, tasks.LabelingTask, tasks.Seq2SeqTask, tasks.ReadingOptions,
    tasks.TrainingOptions, tasks.Section,
    # An error that `stream` raises.
    streaming.CannotStep,
)  # fmt: skip


# The public modules, and those of the other public functions and their results.
MODULES = ("exporting", "optimizers", "saving", "streaming", "tuning")


def public_callables() -> dict[str, Any]:
    """Every public function and class by name: `__all__`, or the classes of a module without it."""
    callables = {}
    for name in ("keras_seqzoo", *(f"keras_seqzoo.{module}" for module in zoo._MODULES + MODULES)):
        module = importlib.import_module(name)
        classes = [key for key, value in vars(module).items()
                   if isinstance(value, type) and value.__module__ == name]  # fmt: skip
        names = getattr(module, "__all__", classes)
        callables |= {key: getattr(module, key) for key in names if callable(getattr(module, key))}
    return callables
