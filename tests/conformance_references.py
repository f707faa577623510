"""Every architecture from its equations, in NumPy and float64, on the weights of a model.

A row is computed alone and without its padding, so that a reference knows neither batch nor mask.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
from conformance_table import Inputs, readings


def of_layer(model: keras.Model, name: str) -> list[np.ndarray]:
    weights = model.get_layer(name).trainable_weights
    return [np.asarray(weight, np.float64) for weight in weights]


def scaling(features: int, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of what `ready` adapts a model to."""
    if not normalize:
        return np.zeros(features), np.ones(features)
    seen = readings(64, 20, features, seed=2).astype(np.float64).reshape(-1, features)
    return seen.mean(axis=0), seen.std(axis=0)


# ----------------------------------------------------------------------------------------- cells


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def simple_rnn(x, W, R, b, activation=np.tanh):
    """Elman 1990: `(time, features)` -> `(time, units)`."""
    h, found = np.zeros(len(R)), []
    for step in x:
        h = activation(step @ W + h @ R + b)
        found.append(h)
    return np.array(found).reshape(len(x), len(R))


def gru(x, W, R, b):
    """Cho et al. 2014 with the reset gate behind the product, as in cuDNN."""
    h, found = np.zeros(len(R)), []
    for step in x:
        z_in, r_in, n_in = np.split(step @ W + b[0], 3)
        z_kept, r_kept, n_kept = np.split(h @ R + b[1], 3)
        z, r = sigmoid(z_in + z_kept), sigmoid(r_in + r_kept)
        h = z * h + (1 - z) * np.tanh(n_in + r * n_kept)
        found.append(h)
    return np.array(found).reshape(len(x), len(R))


def lstm(x, W, R, b):
    """Hochreiter and Schmidhuber 1997, with a forget gate."""
    h, c, found = np.zeros(len(R)), np.zeros(len(R)), []
    for step in x:
        i, f, g, o = np.split(step @ W + h @ R + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.array(found).reshape(len(x), len(R))


CELLS = {"simple_rnn": simple_rnn, "gru": gru, "lstm": lstm}


def both_ways(cell, x, weights) -> tuple[np.ndarray, np.ndarray]:
    """Every step `(time, 2 * units)`, and where either direction ends `(2 * units,)`."""
    there, back = cell(x, *weights[:3]), cell(x[::-1], *weights[3:])
    steps = np.concatenate([there, back[::-1]], axis=-1)
    return steps, np.concatenate([there[-1], back[-1]])


# --------------------------------------------------------------------------- inputs, pooling, CRF


def spelled(model, words, encoder: str) -> np.ndarray:
    """A vector for each word `(time, units)`; zeros for one without characters."""
    embedding, *weights = of_layer(model, "spelling")
    units = weights[1].shape[0] if encoder == "cnn" else 2 * weights[1].shape[0]
    found = np.zeros((len(words), units))
    for vector, word in zip(found, words, strict=True):
        letters = embedding[word[word != 0]]
        if not len(letters):
            continue
        if encoder == "bilstm":
            vector[:] = both_ways(lstm, letters, weights)[1]
        else:
            (filters,), bias = weights
            around = np.pad(letters, ((1, 1), (0, 0)))
            seen = [
                sum(around[at + k] @ filters[k] for k in range(3)) for at in range(len(letters))
            ]
            vector[:] = np.max(seen, axis=0) + bias
    return found


def attended(x, W, b, v):
    """Yang et al. 2016, equations 5 to 7."""
    weights = np.exp(np.tanh(x @ W + b) @ v)
    return (weights / weights.sum() * x).sum(axis=0)


def crf(scores, transitions, start, end, constraints) -> np.ndarray:
    """The best of all sequences of tags, and each tag's probability: every sequence is tried."""
    time, classes = scores.shape
    known = constraints or {
        "allowed": np.ones((classes, classes), bool),
        "allowed_start": np.ones(classes, bool),
        "allowed_end": np.ones(classes, bool),
    }
    allowed, first, last = (np.array(known[f"allowed{part}"]) for part in ("", "_start", "_end"))
    paths = np.array(list(itertools.product(range(classes), repeat=time)))
    fits = first[paths[:, 0]] & last[paths[:, -1]]
    fits &= allowed[paths[:, :-1], paths[:, 1:]].all(axis=1)
    paths = paths[fits]
    weights = start[paths[:, 0]] + end[paths[:, -1]] + scores[np.arange(time), paths].sum(axis=1)
    weights += transitions[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    chances = np.exp(weights - weights.max())
    chances /= chances.sum()
    by_tag = [(chances[:, None] * (paths == tag)).sum(axis=0) for tag in range(classes)]
    return np.column_stack([paths[weights.argmax()], *by_tag])


def softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------ references


def reference_identity(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Elman's equations step by step, in the units of the readings."""
    W, R, b, C, c = (np.asarray(weight, np.float64) for weight in model.trainable_weights)
    mean, deviation = scaling(x[0].shape[-1], config["normalize"])
    activation = np.tanh if config["activation"] == "tanh" else (lambda z: z)

    def row(steps):
        states = simple_rnn((steps - mean) / deviation, W, R, b, activation)
        found = (states @ C + c) * deviation + mean
        return found if config["return_sequences"] else found[-1]

    return _by_row(lambda steps: row(*steps), x, config)


def reference_sequence(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Any classifier or tagger."""
    return _by_row(lambda steps: _sequence_row(model, steps, config), x, config)


def _by_row(row, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Each row's real steps go through `row`; where it gives steps, padded ones are 0."""
    found = []
    for steps in zip(*x, strict=True):
        real = _real(steps[0], config)
        answered = row([part[real] for part in steps])
        if answered.ndim == 2:
            answered, short = np.zeros((len(real), answered.shape[1])), answered
            answered[real] = short
        found.append(answered)
    return np.stack(found)


def _real(steps: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    if steps.ndim == 1:
        return steps != 0
    value = config["mask_value"]
    if value is None:
        return np.ones(len(steps), bool)
    return ~(np.isnan(steps) if np.isnan(value) else steps == value).all(axis=-1)


def _sequence_row(model, steps, config) -> np.ndarray:
    if config["vocabulary_size"] is None:
        mean, deviation = scaling(steps[0].shape[-1], config["normalize"])
        states = (steps[0].astype(np.float64) - mean) / deviation
    else:
        (embedding,) = of_layer(model, "embedding")
        states = embedding[steps[0]]
    if config.get("character_vocabulary_size") is not None:
        words = spelled(model, steps[1], config["character_encoder"])
        states = np.concatenate([states, words], axis=-1)
    cell = CELLS[config["cell"]]
    for index in range(1, config["depth"] + 1):
        if config["bidirectional"]:
            states, last = both_ways(cell, states, of_layer(model, f"both_ways_{index}"))
        else:
            states = cell(states, *of_layer(model, f"recurrent_{index}"))
            last = states[-1]
    if "pooling" in config:
        pooled = {
            "last": lambda: last,
            "mean": lambda: states.mean(0),
            "max": lambda: states.max(0),
        }
        pooled["attention"] = lambda: attended(states, *of_layer(model, "pooling"))
        return _dense(model, "classes", pooled[config["pooling"]](), config)
    if config["head"] == "regression":
        return _dense(model, "readout", states, {}) * deviation + mean
    if config["head"] == "crf":
        scores = _dense(model, "scores", states, {})
        return crf(scores, *of_layer(model, "crf"), config["constraints"])
    return _dense(model, "tags", states, config)


def _dense(model, name: str, x, config) -> np.ndarray:
    W, b = of_layer(model, name)
    activation = softmax if config.get("classifier_activation") == "softmax" else (lambda z: z)
    return activation(x @ W + b)


REFERENCES = {
    "simple_rnn_identity": reference_identity,
    "simple_rnn_classifier": reference_sequence,
    "gru_classifier": reference_sequence,
    "bilstm_classifier": reference_sequence,
    "simple_rnn_tagger": reference_sequence,
    "gru_tagger": reference_sequence,
    "bilstm_tagger": reference_sequence,
    "bilstm_crf_tagger": reference_sequence,
    "char_bilstm_crf_tagger": reference_sequence,
    "gru_forecaster": reference_sequence,
}
