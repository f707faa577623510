"""Milliseconds to say 20 tokens: `generate`, `predict` per token, an eager loop, PyTorch, in turn.

    python -m benchmarks.decoding [--rounds 7]

A GRU of 256 units reads 8 of 40 symbols, another says 20, the most probable one each time, for 1
and for 64 rows. All sides have the same weights, with which none says the end before, and must say
the same tokens:

- `generate` as users call it;
- Keras's recipe for sequence to sequence: an encoder, a decoder whose states go in and come out,
  and `predict` called for each token;
- the same two models called one by one, without `predict`;
- PyTorch: `nn.GRU`, then a loop over `nn.GRUCell` in `inference_mode`.

Beside them a beam of 8, and both with attention to the source. A round calls each side many times
in turn; a figure is the median over rounds of the mean of a round. Writes results/decoding.json.
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


def built(attention: str | None) -> keras.Model:
    """The zoo's model, whose tokens differ from step to step and are never the end."""
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


def recipe(model: keras.Model):
    """The encoder and the decoder of Keras's recipe, with the weights of a model."""
    source = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(SYMBOLS, EMBEDDING, name="embedding")(source)
    x = keras.layers.GRU(UNITS, name="recurrent_1")(x)
    state = keras.layers.Dense(UNITS, "tanh", name="initial_1")(x)
    encoder = keras.Model(source, state)

    token, before = keras.Input((1,), dtype="int32"), keras.Input((UNITS,))
    y = keras.layers.Embedding(SYMBOLS, EMBEDDING, name="target_embedding")(token)
    gru = keras.layers.GRU(UNITS, return_sequences=True, return_state=True, name="decoder")
    y, after = gru(y, initial_state=before)
    y = keras.layers.Dense(SYMBOLS, "softmax", name="scores")(y)
    decoder = keras.Model([token, before], [y, after])
    for layer in [*encoder.layers, *decoder.layers]:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return encoder, decoder


def keras_side(model: keras.Model, source: np.ndarray, *, predict: bool):
    """Says the tokens of a source by the recipe."""
    encoder, decoder = recipe(model)

    def call(network, inputs):
        if predict:
            return network.predict(inputs, verbose=0)
        return network(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))

    def run() -> np.ndarray:
        state = call(encoder, source)
        token, said = np.full((len(source), 1), START, "int32"), []
        for _ in range(STEPS):
            probabilities, state = call(decoder, [token, state])
            token = np.asarray(probabilities).argmax(-1).astype("int32")
            said.append(token)
        return np.concatenate(said, axis=1)

    return run


class TorchModel(torch.nn.Module):
    """The same in PyTorch, with the weights of a model of the zoo."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.read = torch.nn.Embedding(SYMBOLS, EMBEDDING)
        self.encoder = torch.nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.initial = torch.nn.Linear(UNITS, UNITS)
        self.feed = torch.nn.Embedding(SYMBOLS, EMBEDDING)
        self.cell = torch.nn.GRUCell(EMBEDDING, UNITS)
        self.scores = torch.nn.Linear(UNITS, SYMBOLS)
        for mine, layer in (
            (self.read, "embedding"),
            (self.encoder, "recurrent_1"),
            (self.initial, "initial_1"),
            (self.feed, "target_embedding"),
            (self.cell, "decoder"),
            (self.scores, "scores"),
        ):
            weights = model.get_layer(layer).get_weights()
            if len(weights) == 3:
                weights = _gates(*weights)
            elif len(weights) == 2:
                weights = weights[0].T, weights[1]
            for to, given in zip(mine.parameters(), weights, strict=True):
                to.data = torch.tensor(given)

    def forward(self, source):
        """Tokens `(batch, STEPS)`."""
        h = torch.tanh(self.initial(self.encoder(self.read(source))[1][0]))
        token, said = torch.full((len(source),), START), []
        for _ in range(STEPS):
            h = self.cell(self.feed(token), h)
            token = self.scores(h).argmax(-1)
            said.append(token)
        return torch.stack(said, 1)


def _gates(kernel, recurrent_kernel, bias):
    """Keras's gates are update, reset, new; PyTorch's are reset, update, new."""

    def moved(weight):
        update, reset, new = np.split(weight, 3, axis=-1)
        return np.concatenate([reset, update, new], axis=-1).T

    return moved(kernel), moved(recurrent_kernel), moved(bias[0]), moved(bias[1])


def torch_side(model: keras.Model, source: np.ndarray):
    """Says the tokens of a source by PyTorch."""
    network, source = TorchModel(model).eval(), torch.tensor(source)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(source).numpy()

    return run


def generate_side(model: keras.Model, source: np.ndarray, **options):
    """Says the tokens of a source by `generate`."""
    return lambda: model.generate(source, max_length=STEPS, **options).sequences


def sides(plain: keras.Model, looking: keras.Model, source: np.ndarray) -> dict:
    """What is run, and how often in a round."""
    beam = {"strategy": "beam", "num_beams": BEAM}
    return {
        "generate": (generate_side(plain, source), 20),
        "predict per token": (keras_side(plain, source, predict=True), 1),
        "eager loop": (keras_side(plain, source, predict=False), 2),
        "PyTorch": (torch_side(plain, source), 20),
        "generate, beam 8": (generate_side(plain, source, **beam), 10),
        "generate, attention": (generate_side(looking, source), 20),
        "generate, attention, beam 8": (generate_side(looking, source, **beam), 10),
    }


def many(run, times: int):
    """A round of it."""

    def calls():
        for _ in range(times):
            run()

    return calls


def main() -> None:
    """Compares the tokens of all sides, times them in turn, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(os.cpu_count() or 1)
    plain, looking = built(None), built("general")
    result: dict = {"rounds": rounds}
    for batch in BATCHES:
        rng = np.random.default_rng(batch)
        source = rng.integers(END + 1, SYMBOLS, (batch, SOURCE)).astype("int32")
        runs = sides(plain, looking, source)
        said = runs["generate"][0]()
        for name in ("predict per token", "eager loop", "PyTorch"):
            np.testing.assert_array_equal(runs[name][0](), said, err_msg=name)
        if len(np.unique(said)) < STEPS / 2 or not said.all():
            raise SystemExit(f"The tokens must differ and not end. Received: {said[0]}")
        seconds = common.interleaved({name: many(*run) for name, run in runs.items()}, rounds)
        found = {
            name: round(1e3 * value / runs[name][1], 3)
            for name, value in common.medians(seconds).items()
        }
        print(f"{batch} rows:")
        for name, value in found.items():
            print(f"  {name:<28} {value:9.2f} ms, {value / found['generate']:7.2f} of generate's")
        result[f"{batch} rows, ms"] = found
    common.write("decoding", result)


if __name__ == "__main__":
    main()
