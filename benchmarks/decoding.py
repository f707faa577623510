"""Milliseconds to decode 20 tokens: `generate`, `predict` per token, an eager loop, PyTorch.

    python -m benchmarks.decoding [--rounds 7]

A GRU of 256 units encodes 8 of 40 symbols, another decodes 20 by greedy search, for 1 and for 64
rows. All implementations have the same weights, for which the end token has no probability, and
must generate the same tokens:

- `generate` as users call it;
- Keras's example of sequence to sequence: an encoder, a decoder with states as inputs and outputs,
  and one call of `predict` per token;
- the same two models called directly, without `predict`;
- PyTorch: `nn.GRU`, then a loop over `nn.GRUCell` in `inference_mode`.

Also 8 beams, and both with attention. A round calls each implementation many times; the result is
the median over interleaved rounds of the mean of a round. Writes results/decoding.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch

from benchmarks import common
from keras_seqzoo.layers.generation.samplers import END, START
from keras_seqzoo.models.encoder_decoder import sequence_encoder_decoder

UNITS, EMBEDDING, SYMBOLS, SOURCE, STEPS, BEAM = 256, 64, 40, 8, 20, 8
BATCHES = (1, 64)


def build(attention: str | None) -> keras.Model:
    """The zoo's model, with weights that generate different tokens and never the end token."""
    keras.utils.set_random_seed(0)
    model = sequence_encoder_decoder(
        source_vocabulary_size=SYMBOLS,
        target_vocabulary_size=SYMBOLS,
        units=UNITS,
        embedding_dim=EMBEDDING,
        attention=attention,
        bidirectional=False,
    )
    for weight in model.trainable_weights:
        weight.assign(3 * weight)
    kernel, bias = model.get_layer("scores").get_weights()
    bias[[0, START, END]] = -1e4
    model.get_layer("scores").set_weights([kernel, bias])
    return model


def keras_example(model: keras.Model):
    """Encoder and decoder of Keras's example, with the weights of a model."""
    source = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(SYMBOLS, EMBEDDING, name="embedding")(source)
    x = keras.layers.GRU(UNITS, name="recurrent_1")(x)
    state = keras.layers.Dense(UNITS, "tanh", name="initial_1")(x)
    encoder = keras.Model(source, state)

    token, state = keras.Input((1,), dtype="int32"), keras.Input((UNITS,))
    y = keras.layers.Embedding(SYMBOLS, EMBEDDING, name="target_embedding")(token)
    gru = keras.layers.GRU(UNITS, return_sequences=True, return_state=True, name="decoder")
    y, next_state = gru(y, initial_state=state)
    y = keras.layers.Dense(SYMBOLS, "softmax", name="scores")(y)
    decoder = keras.Model([token, state], [y, next_state])
    for layer in [*encoder.layers, *decoder.layers]:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return encoder, decoder


def decode_by_keras(model: keras.Model, source: np.ndarray, *, predict: bool):
    """A function that decodes a source as Keras's example does."""
    encoder, decoder = keras_example(model)

    def call(network, inputs):
        if predict:
            return network.predict(inputs, verbose=0)
        return network(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))

    def run() -> np.ndarray:
        state = call(encoder, source)
        token, tokens = np.full((len(source), 1), START, "int32"), []
        for _ in range(STEPS):
            probabilities, state = call(decoder, [token, state])
            token = np.asarray(probabilities).argmax(-1).astype("int32")
            tokens.append(token)
        return np.concatenate(tokens, axis=1)

    return run


class TorchModel(torch.nn.Module):
    """The same model in PyTorch, with the weights of the zoo's model."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.source_embedding = torch.nn.Embedding(SYMBOLS, EMBEDDING)
        self.encoder = torch.nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.initial = torch.nn.Linear(UNITS, UNITS)
        self.target_embedding = torch.nn.Embedding(SYMBOLS, EMBEDDING)
        self.cell = torch.nn.GRUCell(EMBEDDING, UNITS)
        self.scores = torch.nn.Linear(UNITS, SYMBOLS)
        for module, layer in (
            (self.source_embedding, "embedding"),
            (self.encoder, "recurrent_1"),
            (self.initial, "initial_1"),
            (self.target_embedding, "target_embedding"),
            (self.cell, "decoder"),
            (self.scores, "scores"),
        ):
            weights = model.get_layer(layer).get_weights()
            if len(weights) == 3:
                weights = _to_torch_gates(*weights)
            elif len(weights) == 2:
                weights = weights[0].T, weights[1]
            for parameter, weight in zip(module.parameters(), weights, strict=True):
                parameter.data = torch.tensor(weight)

    def forward(self, source):
        """Tokens `(batch, STEPS)`."""
        h = torch.tanh(self.initial(self.encoder(self.source_embedding(source))[1][0]))
        token, tokens = torch.full((len(source),), START), []
        for _ in range(STEPS):
            h = self.cell(self.target_embedding(token), h)
            token = self.scores(h).argmax(-1)
            tokens.append(token)
        return torch.stack(tokens, 1)


def _to_torch_gates(kernel, recurrent_kernel, bias):
    """Reorder the gates from Keras's update, reset, new to PyTorch's reset, update, new."""

    def reorder(weight):
        update, reset, new = np.split(weight, 3, axis=-1)
        return np.concatenate([reset, update, new], axis=-1).T

    return reorder(kernel), reorder(recurrent_kernel), reorder(bias[0]), reorder(bias[1])


def decode_by_torch(model: keras.Model, source: np.ndarray):
    """A function that decodes a source by PyTorch."""
    network, source = TorchModel(model).eval(), torch.tensor(source)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(source).numpy()

    return run


def decode_by_generate(model: keras.Model, source: np.ndarray, **options):
    """A function that decodes a source by `generate`."""
    return lambda: model.generate(source, max_length=STEPS, **options).sequences


def implementations(plain: keras.Model, attention: keras.Model, source: np.ndarray) -> dict:
    """A function for each implementation, and the number of calls per round."""
    beam = {"strategy": "beam", "num_beams": BEAM}
    return {
        "generate": (decode_by_generate(plain, source), 20),
        "predict per token": (decode_by_keras(plain, source, predict=True), 1),
        "eager loop": (decode_by_keras(plain, source, predict=False), 2),
        "PyTorch": (decode_by_torch(plain, source), 20),
        "generate, beam 8": (decode_by_generate(plain, source, **beam), 10),
        "generate, attention": (decode_by_generate(attention, source), 20),
        "generate, attention, beam 8": (decode_by_generate(attention, source, **beam), 10),
    }


def repeat(function, times: int):
    """A function that calls another so many times."""

    def calls():
        for _ in range(times):
            function()

    return calls


def main() -> None:
    """Compare the tokens of all implementations, time them, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(os.cpu_count() or 1)
    plain, attention = build(None), build("general")
    results: dict = {"rounds": rounds}
    for batch in BATCHES:
        rng = np.random.default_rng(batch)
        source = rng.integers(END + 1, SYMBOLS, (batch, SOURCE)).astype("int32")
        runs = implementations(plain, attention, source)
        tokens = runs["generate"][0]()
        for name in ("predict per token", "eager loop", "PyTorch"):
            np.testing.assert_array_equal(runs[name][0](), tokens, err_msg=name)
        if len(np.unique(tokens)) < STEPS / 2 or not tokens.all():
            raise SystemExit(f"The tokens must differ and not end. Received: {tokens[0]}")
        seconds = common.time_interleaved(
            {name: repeat(*run) for name, run in runs.items()}, rounds
        )
        milliseconds = {
            name: round(1e3 * value / runs[name][1], 3)
            for name, value in common.medians(seconds).items()
        }
        print(f"{batch} rows:")
        for name, value in milliseconds.items():
            ratio = value / milliseconds["generate"]
            print(f"  {name:<28} {value:9.2f} ms, {ratio:7.2f} times that of generate")
        results[f"{batch} rows, ms"] = milliseconds
    common.write("decoding", results)


if __name__ == "__main__":
    main()
