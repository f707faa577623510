"""Every architecture from its equations, in NumPy and float64, on the weights of a model.

A row is computed alone and without its padding, so that a reference knows neither batch nor mask.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np

from tests.conformance.table import Inputs, readings


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


def simple_rnn_step(x, states, W, R, b, activation=np.tanh):
    """Elman 1990."""
    return (activation(x @ W + states[0] @ R + b),)


def gru_step(x, states, W, R, b):
    """Cho et al. 2014 with the reset gate behind the product, as in cuDNN."""
    (h,) = states
    z_in, r_in, n_in = np.split(x @ W + b[0], 3)
    z_kept, r_kept, n_kept = np.split(h @ R + b[1], 3)
    z, r = sigmoid(z_in + z_kept), sigmoid(r_in + r_kept)
    return (z * h + (1 - z) * np.tanh(n_in + r * n_kept),)


def lstm_step(x, states, W, R, b):
    """Hochreiter and Schmidhuber 1997, with a forget gate."""
    h, c = states
    i, f, g, o = np.split(x @ W + h @ R + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def linear_step(x, states, W, R, b):
    """Elman's without an activation."""
    return simple_rnn_step(x, states, W, R, b, lambda z: z)


STEPS = {
    "linear": linear_step,
    "simple_rnn": simple_rnn_step,
    "gru": gru_step,
    "lstm": lstm_step,
}


def over_time(step, count: int = 1):
    """A cell over a sequence from zeros: `(time, features)` -> `(time, units)`."""

    def run(x, W, R, b, *options):
        states, found = (np.zeros(len(R)),) * count, []
        for one in x:
            states = step(one, states, W, R, b, *options)
            found.append(states[0])
        return np.array(found).reshape(len(x), len(R))

    return run


simple_rnn, gru, lstm = over_time(simple_rnn_step), over_time(gru_step), over_time(lstm_step, 2)
CELLS = {"linear": over_time(linear_step), "simple_rnn": simple_rnn, "gru": gru, "lstm": lstm}


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
        predicted = row([part[real] for part in steps])
        if predicted.ndim == 2:
            predicted, short = np.zeros((len(real), predicted.shape[1])), predicted
            predicted[real] = short
        found.append(predicted)
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
    states, last = _stack(model, states, config)
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


def _stack(model, states, config):
    """The recurrent layers: every step of the last one, and where it ends."""
    cell = CELLS[config["cell"]]
    for index in range(1, config["num_layers"] + 1):
        if config["bidirectional"]:
            states, last = both_ways(cell, states, of_layer(model, f"both_ways_{index}"))
        else:
            states = cell(states, *of_layer(model, f"recurrent_{index}"))
            last = states[-1] if len(states) else np.zeros(states.shape[1])
    return states, last


def reference_pairs(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Any encoder-decoder, its target given."""
    return np.stack([_pair_row(model, *row, config) for row in zip(*x, strict=True)])


def _pair_row(model, source, target, config) -> np.ndarray:
    if config["source_vocabulary_size"] is None:
        mean, deviation = scaling(source.shape[-1], config["normalize"])
        states = (source[_real(source, config)].astype(np.float64) - mean) / deviation
    else:
        states = of_layer(model, "embedding")[0][source[source != 0]]
    memory, last = _stack(model, states, config)
    looks = config["attention"] is not None
    start = [
        np.tanh((memory.mean(0) if looks else last) @ W + b)
        for W, b in (of_layer(model, f"initial_{n + 1}") for n in range(_states(config)))
    ]
    if config["target_vocabulary_size"] is None:
        mean, deviation = scaling(target.shape[-1], config["normalize"])
        seen = (target.astype(np.float64) - mean) / deviation
        found = _decoded(model.get_layer("decoder"), seen, memory, start, config)
        return _dense(model, "readout", found, {}) * deviation + mean
    (embedding,) = of_layer(model, "target_embedding")
    found = _decoded(model.get_layer("decoder"), embedding[target], memory, start, config)
    if config["tied_embeddings"]:
        scores = _dense(model, "to_embedding", found, {}) @ embedding.T
    else:
        scores = _dense(model, "scores", found, {})
    return softmax(scores) * (target != 0)[:, None]


def _states(config) -> int:
    return config["num_layers"] * (2 if config["cell"] == "lstm" else 1)


def _decoded(layer, x, memory, start, config) -> np.ndarray:
    """A decoder's outputs, step by step."""
    states, output, found = _grouped(start, config), np.zeros(config["units"]), []
    for one in x:
        states, output = _decoder_step(layer, one, states, output, memory, config)
        found.append(output)
    return np.array(found)


def _grouped(start, config) -> list:
    """First states by recurrent layer."""
    each = _states(config) // config["num_layers"]
    return [start[at : at + each] for at in range(0, len(start), each)]


def _decoder_step(layer, one, states, output, memory, config):
    """Bahdanau et al. 2015 looks before a step, Luong et al. after it."""
    step, states = STEPS[config["cell"]], list(states)
    given = one
    if config["attention"] == "additive":
        context = _context(layer, states[-1][0], memory, config)
        given = np.concatenate([one, context])
    elif config.get("input_feeding"):
        given = np.concatenate([one, output])
    h = given
    for number, cell in enumerate(layer.recurrent):
        states[number] = step(h, states[number], *_weights(cell))
        h = states[number][0]
    output = h
    if config["attention"] == "additive":
        output = np.tanh(_affine(layer.combine, np.concatenate([context, h, one])))
    elif config["attention"] is not None:
        context = _context(layer, h, memory, config)
        output = np.tanh(_affine(layer.combine, np.concatenate([context, h])))
    return states, output


def _context(layer, query, memory, config) -> np.ndarray:
    weights = layer.source_attention.weights
    known = {weight.name: np.asarray(weight, np.float64) for weight in weights}
    if config["attention"] == "multi_head":
        q, k, v = query @ known["query_kernel"], memory @ known["key_kernel"], None
        v = memory @ known["value_kernel"]
        width = config["units"] // config["num_heads"]
        parts = [slice(at, at + width) for at in range(0, config["units"], width)]
        heads = [softmax(k[:, p] @ q[p] / np.sqrt(width)) @ v[:, p] for p in parts]
        return np.concatenate(heads) @ known["context_kernel"]
    if config["attention"] == "additive":
        seen = np.tanh(query @ known["query_kernel"] + memory @ known["key_kernel"] + known["bias"])
        return softmax(seen @ known["score"]) @ memory
    keys = memory if config["attention"] == "dot" else memory @ known["key_kernel"]
    return softmax(keys @ query) @ memory


def reference_autoencoder(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Any autoencoder."""
    return _by_row(lambda steps: _autoencoded_row(model, steps[0], config), x, config)


def _autoencoded_row(model, steps, config) -> np.ndarray:
    if config["vocabulary_size"] is None:
        mean, deviation = scaling(steps.shape[-1], config["normalize"])
        seen = truth = (steps.astype(np.float64) - mean) / deviation
    else:
        seen = of_layer(model, "embedding")[0][steps]
        truth = np.eye(config["vocabulary_size"])[steps]
    memory, last = _stack(model, seen, config)
    code = _dense(model, "code", last, {})
    said = _said(model.get_layer("decoder"), code, memory, truth, config)
    if config["vocabulary_size"] is None:
        said = said * deviation + mean
    return said[0] if config["reconstruct"] == "last" else said


def _said(layer, code, memory, truth, config) -> np.ndarray:
    """Cho et al. 2014: the code gives the first states and goes into each step."""
    bounded = (lambda z: z) if config["cell"] == "linear" else np.tanh
    start = [bounded(_affine(initial, code)) for initial in layer.initial_state_layers]
    states = _grouped(start, config)
    activation = (lambda z: z) if config["vocabulary_size"] is None else softmax
    said, found = np.zeros(truth.shape[1]), []
    for number in range(1 if config["reconstruct"] == "last" else len(truth)):
        fed = {
            "free_running": said,
            "teacher_forced": truth[number - 1] if number else said,
        }.get(config["decoder"], np.zeros(0))
        one = np.concatenate([code, fed])
        states, output = _decoder_step(layer.decoder, one, states, None, memory, config)
        said = activation(_affine(layer.readout, output))
        found.append(said)
    return np.array(found[::-1] if config["decoder"] == "reversed" else found)


def _weights(layer) -> list[np.ndarray]:
    return [np.asarray(weight, np.float64) for weight in layer.trainable_weights]


def _affine(layer, x):
    W, b = _weights(layer)
    return x @ W + b


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
    "simple_rnn_encoder_decoder": reference_pairs,
    "gru_encoder_decoder": reference_pairs,
    "attention_gru_encoder_decoder": reference_pairs,
    "attention_lstm_encoder_decoder": reference_pairs,
    "vector_encoder_decoder": reference_pairs,
    "linear_rnn_autoencoder": reference_autoencoder,
    "lstm_autoencoder": reference_autoencoder,
    "gru_autoencoder": reference_autoencoder,
    "attention_autoencoder": reference_autoencoder,
}
