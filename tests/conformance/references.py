"""Reference implementations of every architecture in NumPy and float64, from their equations.

They take the weights of a model. Each row is computed alone and without its padding, so that a
reference has neither batches nor masks.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np

from tests.conformance.table import Inputs, readings


def layer_weights(model: keras.Model, name: str) -> list[np.ndarray]:
    weights = model.get_layer(name).trainable_weights
    return [np.asarray(weight, np.float64) for weight in weights]


def scaling(features: int, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the readings that `prepare` adapts a model to."""
    if not normalize:
        return np.zeros(features), np.ones(features)
    x = readings(64, 20, features, seed=2).astype(np.float64).reshape(-1, features)
    return x.mean(axis=0), x.std(axis=0)


# ----------------------------------------------------------------------------------------- cells


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def simple_rnn_step(x, states, W, R, b, activation=np.tanh):
    """Elman 1990."""
    return (activation(x @ W + states[0] @ R + b),)


def gru_step(x, states, W, R, b):
    """Cho et al. 2014 with the reset gate after the product, as in cuDNN."""
    (h,) = states
    z_input, r_input, n_input = np.split(x @ W + b[0], 3)
    z_state, r_state, n_state = np.split(h @ R + b[1], 3)
    z, r = sigmoid(z_input + z_state), sigmoid(r_input + r_state)
    return (z * h + (1 - z) * np.tanh(n_input + r * n_state),)


def lstm_step(x, states, W, R, b):
    """Hochreiter and Schmidhuber 1997, with a forget gate."""
    h, c = states
    i, f, g, o = np.split(x @ W + h @ R + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def linear_step(x, states, W, R, b):
    """Elman 1990 without an activation."""
    return simple_rnn_step(x, states, W, R, b, lambda z: z)


STEPS = {
    "linear": linear_step,
    "simple_rnn": simple_rnn_step,
    "gru": gru_step,
    "lstm": lstm_step,
}


def over_time(step, count: int = 1):
    """Run a cell with `count` states from zeros: `(time, features)` -> `(time, units)`."""

    def run(x, W, R, b, *options):
        states, outputs = (np.zeros(len(R)),) * count, []
        for x_t in x:
            states = step(x_t, states, W, R, b, *options)
            outputs.append(states[0])
        return np.array(outputs).reshape(len(x), len(R))

    return run


simple_rnn, gru, lstm = over_time(simple_rnn_step), over_time(gru_step), over_time(lstm_step, 2)
CELLS = {"linear": over_time(linear_step), "simple_rnn": simple_rnn, "gru": gru, "lstm": lstm}


def bidirectional(cell, x, weights) -> tuple[np.ndarray, np.ndarray]:
    """All steps `(time, 2 * units)`, and the final states of both directions `(2 * units,)`."""
    forward, backward = cell(x, *weights[:3]), cell(x[::-1], *weights[3:])
    steps = np.concatenate([forward, backward[::-1]], axis=-1)
    return steps, np.concatenate([forward[-1], backward[-1]])


# --------------------------------------------------------------------------- inputs, pooling, CRF


def character_features(model, words, encoder: str) -> np.ndarray:
    """A vector for each token, `(time, units)`; zeros for a token without characters."""
    embedding, *weights = layer_weights(model, "spelling")
    units = weights[1].shape[0] if encoder == "cnn" else 2 * weights[1].shape[0]
    features = np.zeros((len(words), units))
    for vector, word in zip(features, words, strict=True):
        characters = embedding[word[word != 0]]
        if not len(characters):
            continue
        if encoder == "bilstm":
            vector[:] = bidirectional(lstm, characters, weights)[1]
        else:
            (filters,), bias = weights
            padded = np.pad(characters, ((1, 1), (0, 0)))
            activations = [
                sum(padded[at + k] @ filters[k] for k in range(3)) for at in range(len(characters))
            ]
            vector[:] = np.max(activations, axis=0) + bias
    return features


def attention_pooling(x, W, b, v):
    """Yang et al. 2016, equations 5 to 7."""
    weights = np.exp(np.tanh(x @ W + b) @ v)
    return (weights / weights.sum() * x).sum(axis=0)


def crf(scores, transitions, start, end, constraints) -> np.ndarray:
    """The best tags and the marginals of each tag, by enumeration of all tag sequences."""
    time, classes = scores.shape
    constraints = constraints or {
        "allowed": np.ones((classes, classes), bool),
        "allowed_start": np.ones(classes, bool),
        "allowed_end": np.ones(classes, bool),
    }
    allowed, allowed_start, allowed_end = (
        np.array(constraints[key]) for key in ("allowed", "allowed_start", "allowed_end")
    )
    paths = np.array(list(itertools.product(range(classes), repeat=time)))
    legal = allowed_start[paths[:, 0]] & allowed_end[paths[:, -1]]
    legal &= allowed[paths[:, :-1], paths[:, 1:]].all(axis=1)
    paths = paths[legal]
    energies = start[paths[:, 0]] + end[paths[:, -1]] + scores[np.arange(time), paths].sum(axis=1)
    energies += transitions[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    probabilities = np.exp(energies - energies.max())
    probabilities /= probabilities.sum()
    marginals = [(probabilities[:, None] * (paths == tag)).sum(axis=0) for tag in range(classes)]
    return np.column_stack([paths[energies.argmax()], *marginals])


def softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------ references


def reference_identity(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """The identity model: Elman 1990, in the units of the readings."""
    W, R, b, C, c = (np.asarray(weight, np.float64) for weight in model.trainable_weights)
    mean, deviation = scaling(x[0].shape[-1], config["normalize"])
    activation = np.tanh if config["activation"] == "tanh" else (lambda z: z)

    def row(steps):
        states = simple_rnn((steps - mean) / deviation, W, R, b, activation)
        outputs = (states @ C + c) * deviation + mean
        return outputs if config["return_sequences"] else outputs[-1]

    return _by_row(lambda steps: row(*steps), x, config)


def reference_sequence(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Classifiers, taggers and forecasters."""
    return _by_row(lambda steps: _sequence_row(model, steps, config), x, config)


def _by_row(row, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Apply `row` to the real steps of each row; outputs per step are 0 at padded steps."""
    outputs = []
    for steps in zip(*x, strict=True):
        real = _real(steps[0], config)
        predicted = row([part[real] for part in steps])
        if predicted.ndim == 2:
            padded = np.zeros((len(real), predicted.shape[1]))
            padded[real] = predicted
            predicted = padded
        outputs.append(predicted)
    return np.stack(outputs)


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
        (embedding,) = layer_weights(model, "embedding")
        states = embedding[steps[0]]
    if config.get("character_vocabulary_size") is not None:
        words = character_features(model, steps[1], config["character_encoder"])
        states = np.concatenate([states, words], axis=-1)
    states, last = _stack(model, states, config)
    if "pooling" in config:
        pooled = {
            "last": lambda: last,
            "mean": lambda: states.mean(0),
            "max": lambda: states.max(0),
        }
        pooled["attention"] = lambda: attention_pooling(states, *layer_weights(model, "pooling"))
        return _dense(model, "classes", pooled[config["pooling"]](), config)
    if config["head"] == "regression":
        return _dense(model, "readout", states, {}) * deviation + mean
    if config["head"] == "crf":
        scores = _dense(model, "scores", states, {})
        return crf(scores, *layer_weights(model, "crf"), config["constraints"])
    return _dense(model, "tags", states, config)


def _stack(model, states, config):
    """The recurrent layers: all steps and the final state of the last one."""
    cell = CELLS[config["cell"]]
    for index in range(1, config["num_layers"] + 1):
        if config["bidirectional"]:
            weights = layer_weights(model, f"both_ways_{index}")
            states, last = bidirectional(cell, states, weights)
        else:
            states = cell(states, *layer_weights(model, f"recurrent_{index}"))
            last = states[-1] if len(states) else np.zeros(states.shape[1])
    return states, last


def reference_pairs(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Encoder-decoders, with teacher forcing."""
    return np.stack([_pair_row(model, *row, config) for row in zip(*x, strict=True)])


def _pair_row(model, source, target, config) -> np.ndarray:
    if config["source_vocabulary_size"] is None:
        mean, deviation = scaling(source.shape[-1], config["normalize"])
        states = (source[_real(source, config)].astype(np.float64) - mean) / deviation
    else:
        states = layer_weights(model, "embedding")[0][source[source != 0]]
    memory, last = _stack(model, states, config)
    summary = last if config["attention"] is None else memory.mean(0)
    initial_states = [
        np.tanh(summary @ W + b)
        for W, b in (layer_weights(model, f"initial_{n + 1}") for n in range(_num_states(config)))
    ]
    decoder = model.get_layer("decoder")
    if config["target_vocabulary_size"] is None:
        mean, deviation = scaling(target.shape[-1], config["normalize"])
        x = (target.astype(np.float64) - mean) / deviation
        outputs = _decode(decoder, x, memory, initial_states, config)
        return _dense(model, "readout", outputs, {}) * deviation + mean
    (embedding,) = layer_weights(model, "target_embedding")
    outputs = _decode(decoder, embedding[target], memory, initial_states, config)
    if config["tied_embeddings"]:
        scores = _dense(model, "to_embedding", outputs, {}) @ embedding.T
    else:
        scores = _dense(model, "scores", outputs, {})
    return softmax(scores) * (target != 0)[:, None]


def _num_states(config) -> int:
    return config["num_layers"] * (2 if config["cell"] == "lstm" else 1)


def _decode(layer, x, memory, initial_states, config) -> np.ndarray:
    """The outputs of a decoder, step by step."""
    states, output = _by_layer(initial_states, config), np.zeros(config["units"])
    outputs = []
    for x_t in x:
        states, output = _decoder_step(layer, x_t, states, output, memory, config)
        outputs.append(output)
    return np.array(outputs)


def _by_layer(states, config) -> list:
    """A list of states as one list per recurrent layer."""
    count = _num_states(config) // config["num_layers"]
    return [states[at : at + count] for at in range(0, len(states), count)]


def _decoder_step(layer, x, states, output, memory, config):
    """Attention before the step (Bahdanau et al. 2015) or after it (Luong et al. 2015)."""
    step, states = STEPS[config["cell"]], list(states)
    h = x
    if config["attention"] == "additive":
        context = _context(layer, states[-1][0], memory, config)
        h = np.concatenate([x, context])
    elif config.get("input_feeding"):
        h = np.concatenate([x, output])
    for index, cell in enumerate(layer.recurrent):
        states[index] = step(h, states[index], *_weights(cell))
        h = states[index][0]
    output = h
    if config["attention"] == "additive":
        output = np.tanh(_affine(layer.combine, np.concatenate([context, h, x])))
    elif config["attention"] is not None:
        context = _context(layer, h, memory, config)
        output = np.tanh(_affine(layer.combine, np.concatenate([context, h])))
    return states, output


def _context(layer, query, memory, config) -> np.ndarray:
    attention = layer.source_attention
    weights = {weight.name: np.asarray(weight, np.float64) for weight in attention.weights}
    if config["attention"] == "multi_head":
        q, k = query @ weights["query_kernel"], memory @ weights["key_kernel"]
        v = memory @ weights["value_kernel"]
        width = config["units"] // config["num_heads"]
        parts = [slice(at, at + width) for at in range(0, config["units"], width)]
        heads = [softmax(k[:, p] @ q[p] / np.sqrt(width)) @ v[:, p] for p in parts]
        return np.concatenate(heads) @ weights["context_kernel"]
    if config["attention"] == "additive":
        hidden = np.tanh(
            query @ weights["query_kernel"] + memory @ weights["key_kernel"] + weights["bias"]
        )
        return softmax(hidden @ weights["score"]) @ memory
    keys = memory if config["attention"] == "dot" else memory @ weights["key_kernel"]
    return softmax(keys @ query) @ memory


def reference_autoencoder(model: keras.Model, x: Inputs, config: dict[str, Any]) -> np.ndarray:
    """Autoencoders."""
    return _by_row(lambda steps: _autoencoded_row(model, steps[0], config), x, config)


def _autoencoded_row(model, steps, config) -> np.ndarray:
    if config["vocabulary_size"] is None:
        mean, deviation = scaling(steps.shape[-1], config["normalize"])
        inputs = targets = (steps.astype(np.float64) - mean) / deviation
    else:
        inputs = layer_weights(model, "embedding")[0][steps]
        targets = np.eye(config["vocabulary_size"])[steps]
    memory, last = _stack(model, inputs, config)
    code = _dense(model, "code", last, {})
    outputs = _decode_code(model.get_layer("decoder"), code, memory, targets, config)
    if config["vocabulary_size"] is None:
        outputs = outputs * deviation + mean
    return outputs[0] if config["reconstruct"] == "last" else outputs


def _decode_code(layer, code, memory, targets, config) -> np.ndarray:
    """Cho et al. 2014: the code gives the initial states and is an input of each step."""
    bounded = (lambda z: z) if config["cell"] == "linear" else np.tanh
    states = _by_layer(
        [bounded(_affine(initial, code)) for initial in layer.initial_state_layers], config
    )
    activation = (lambda z: z) if config["vocabulary_size"] is None else softmax
    prediction, outputs = np.zeros(targets.shape[1]), []
    for step in range(1 if config["reconstruct"] == "last" else len(targets)):
        fed_back = {
            "free_running": prediction,
            "teacher_forced": targets[step - 1] if step else prediction,
        }.get(config["decoder"], np.zeros(0))
        x = np.concatenate([code, fed_back])
        states, output = _decoder_step(layer.decoder, x, states, None, memory, config)
        prediction = activation(_affine(layer.readout, output))
        outputs.append(prediction)
    return np.array(outputs[::-1] if config["decoder"] == "reversed" else outputs)


def _weights(layer) -> list[np.ndarray]:
    return [np.asarray(weight, np.float64) for weight in layer.trainable_weights]


def _affine(layer, x):
    W, b = _weights(layer)
    return x @ W + b


def _dense(model, name: str, x, config) -> np.ndarray:
    W, b = layer_weights(model, name)
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
