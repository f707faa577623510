"""Seconds per training epoch of an encoder-decoder with attention: keras_seqzoo, Keras, PyTorch.

    python -m benchmarks.seq2seq_training_speed [--attention additive] [--data PAIRS.tsv]

`attention_gru_encoder_decoder` of 256 units: embeddings of 64, a bidirectional GRU encoder, a GRU
decoder, teacher forcing, Adam with gradients clipped to a norm of 5, batches of 64 of similar
lengths. The data are 3,600 generated pairs of 4 to 12 of 36 symbols, or pairs in two columns. With
`--attention general` (Luong et al.) the decoder processes all target steps at once. With `additive`
(Bahdanau et al.) every library runs a loop over them.

keras_seqzoo trains as a long `zoo.train` does, with the recurrences compiled by XLA, and also with
the whole step compiled. Keras gets the same batches, with its own layers and optimizer, plain and
compiled by XLA, which cannot differentiate its loop with additive attention. PyTorch gets tensors
made beforehand, `nn.GRU` on packed sequences, and its Adam, plain and fused. All models have the
same number of parameters. Each library runs in its own process, one after the other; medians of the
epochs after the first, which compiles. Writes results/seq2seq_training_speed_ATTENTION.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
from keras import ops

from benchmarks import common
from keras_seqzoo import layers
from keras_seqzoo.data import PairPreprocessor, SequencePairs, read_sequence_pairs
from keras_seqzoo.models.encoder_decoder import sequence_encoder_decoder
from keras_seqzoo.optimizers import Adam
from keras_seqzoo.tasks.sequences import CLIPNORM, MULTIPLE

UNITS, EMBEDDING, BATCH, RATE = 256, 64, 64, 1e-3


def generated(count: int = 3600, symbols: int = 36) -> SequencePairs:
    """Sources of 4 to 12 symbols, and targets that are up to two symbols longer or shorter."""
    rng = np.random.default_rng(0)
    tokens = np.array([f"s{index}" for index in range(symbols)])
    source_lengths = rng.integers(4, 13, count)
    target_lengths = np.clip(source_lengths + rng.integers(-2, 3, count), 4, 12)
    sources, targets = (
        [rng.choice(tokens, length).tolist() for length in lengths]
        for lengths in (source_lengths, target_lengths)
    )
    return SequencePairs(sources, targets, source="generated")


# ------------------------------------------------------------------------------- keras_seqzoo


def zoo_epoch(
    preprocessor: PairPreprocessor, pairs: SequencePairs, attention: str, *, jit_compile: bool
):
    """A function that trains the zoo's encoder-decoder for an epoch, and its parameter count.

    XLA compiles the recurrences alone, or with `jit_compile` the whole step.
    """
    model = sequence_encoder_decoder(
        **preprocessor.model_arguments(), units=UNITS, embedding_dim=EMBEDDING, attention=attention
    )
    model.compile(
        Adam(RATE, global_clipnorm=CLIPNORM),
        keras.losses.SparseCategoricalCrossentropy(),
        steps_per_execution=32,
    )
    if jit_compile:
        model.compile(model.optimizer, model.loss, jit_compile=True)
    else:
        layers.compile_recurrences(model)
    data = preprocessor.batches(pairs, batch_size=BATCH, pad_to_multiple_of=MULTIPLE).to_dataset()
    return lambda: model.fit(data, verbose=0, shuffle=False), model.count_params()


# -------------------------------------------------------------------------------------- Keras


class AdditiveCell(keras.layers.Layer):
    """A GRU cell with additive attention before each step; keys and memory are states."""

    def __init__(self, units: int):
        super().__init__()
        self.state_size, self.output_size = [units] * 4, units
        self.cell, self.query = keras.layers.GRUCell(units), keras.layers.Dense(units)
        self.score = keras.layers.Dense(1, use_bias=False)
        self.combine = keras.layers.Dense(units, "tanh")

    def build(self, x_shape):
        width, units = x_shape[-1], self.output_size
        self.cell.build((None, width + 2 * units))
        self.query.build((None, units))
        self.score.build((None, None, units))
        self.combine.build((None, width + 3 * units))

    def call(self, x, states):
        h, keys, memory, real = states
        scores = self.score(ops.tanh(self.query(h)[:, None] + keys))[..., 0]
        weights = ops.softmax(ops.where(real, scores, -1e9), axis=-1)
        context = ops.matmul(weights[:, None], memory)[:, 0]
        h, _ = self.cell(ops.concatenate([x, context], axis=-1), [h])
        output = self.combine(ops.concatenate([context, h, x], axis=-1))
        return output, [h, keys, memory, real]


def keras_epoch(
    preprocessor: PairPreprocessor, pairs: SequencePairs, attention: str, *, jit_compile: bool
):
    """The same with Keras's layers."""
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    real = ops.not_equal(source, 0)
    x = keras.layers.Embedding(len(preprocessor.source), EMBEDDING)(source)
    gru = keras.layers.GRU(UNITS, return_sequences=True)
    memory = keras.layers.Bidirectional(gru)(x, mask=real)
    summary = keras.layers.GlobalAveragePooling1D()(memory, mask=real)
    initial = keras.layers.Dense(UNITS, "tanh")(summary)
    y = keras.layers.Embedding(len(preprocessor.target), EMBEDDING)(target)
    if attention == "additive":
        keys = keras.layers.Dense(UNITS, use_bias=False)(memory)
        decoder = keras.layers.RNN(AdditiveCell(UNITS), return_sequences=True)
        y = decoder(y, initial_state=[initial, keys, memory, real])
    else:
        keys = keras.layers.Dense(UNITS, use_bias=False)(memory)
        h = keras.layers.GRU(UNITS, return_sequences=True)(y, initial_state=initial)
        contexts = keras.layers.Attention()([h, memory, keys], mask=[None, real])
        y = keras.layers.Dense(UNITS, "tanh")(ops.concatenate([contexts, h], axis=-1))
    probabilities = keras.layers.Dense(len(preprocessor.target), "softmax")(y)
    outputs = layers.ApplyMask()([probabilities, ops.not_equal(target, 0)])
    model = keras.Model([source, target], outputs)
    model.compile(
        keras.optimizers.Adam(RATE, global_clipnorm=5.0),
        "sparse_categorical_crossentropy",
        steps_per_execution=1 if jit_compile else 32,
        jit_compile=jit_compile,
    )
    multiple = MULTIPLE if jit_compile else 1
    data = preprocessor.batches(pairs, batch_size=BATCH, pad_to_multiple_of=multiple).to_dataset()
    return lambda: model.fit(data, verbose=0, shuffle=False), model.count_params()


# ------------------------------------------------------------------------------------ PyTorch


class TorchModel(torch.nn.Module):
    """The same model in PyTorch."""

    def __init__(self, sources: int, targets: int, additive: bool):
        super().__init__()
        self.source_embedding = torch.nn.Embedding(sources, EMBEDDING)
        self.target_embedding = torch.nn.Embedding(targets, EMBEDDING)
        self.encoder = torch.nn.GRU(EMBEDDING, UNITS, bidirectional=True, batch_first=True)
        self.initial = torch.nn.Linear(2 * UNITS, UNITS)
        self.keys = torch.nn.Linear(2 * UNITS, UNITS, bias=False)
        self.additive = additive
        if additive:
            self.cell = torch.nn.GRUCell(EMBEDDING + 2 * UNITS, UNITS)
            self.query = torch.nn.Linear(UNITS, UNITS)
            self.score = torch.nn.Linear(UNITS, 1, bias=False)
        else:
            self.decoder = torch.nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.combine = torch.nn.Linear(3 * UNITS + EMBEDDING * additive, UNITS)
        self.scores = torch.nn.Linear(UNITS, targets)

    def forward(self, source, lengths, target):
        """Scores `(batch, target, vocabulary)`."""
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.source_embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True
        )
        padding = torch.arange(memory.shape[1])[None] >= lengths[:, None]
        h = torch.tanh(self.initial(memory.sum(1) / lengths[:, None]))
        keys, y = self.keys(memory), self.target_embedding(target)
        if self.additive:
            outputs = self._loop(y, h, keys, memory, padding)
        else:
            h, _ = self.decoder(y, h[None].contiguous())
            scores = h @ keys.transpose(1, 2)
            weights = scores.masked_fill(padding[:, None], -1e9).softmax(-1)
            outputs = torch.tanh(self.combine(torch.cat([weights @ memory, h], -1)))
        return self.scores(outputs)

    def _loop(self, y, h, keys, memory, padding):
        outputs = []
        for x in y.unbind(1):
            scores = self.score(torch.tanh(self.query(h)[:, None] + keys))[..., 0]
            weights = scores.masked_fill(padding, -1e9).softmax(-1)
            context = (weights[:, None] @ memory)[:, 0]
            h = self.cell(torch.cat([x, context], -1), h)
            outputs.append(torch.cat([context, h, x], -1))
        return torch.tanh(self.combine(torch.stack(outputs, 1)))


def torch_epoch(
    preprocessor: PairPreprocessor, pairs: SequencePairs, attention: str, *, fused: bool
):
    """The same in PyTorch."""
    model = TorchModel(len(preprocessor.source), len(preprocessor.target), attention == "additive")
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=fused or None)
    batches = preprocessor.batches(pairs, batch_size=BATCH)
    batches = [
        tuple(torch.tensor(ids).long() for ids in (inputs["source"], inputs["target"], targets))
        for inputs, targets in map(batches.__getitem__, range(len(batches)))
    ]

    def epoch():
        for source, target, next_tokens in batches:
            optimizer.zero_grad()
            scores = model(source, (source != 0).sum(1), target)
            loss = torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), next_tokens.flatten(), ignore_index=0
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    return epoch, sum(weight.numel() for weight in model.parameters())


LIBRARIES = {
    "keras_seqzoo": functools.partial(zoo_epoch, jit_compile=False),
    "keras_seqzoo, jit_compile": functools.partial(zoo_epoch, jit_compile=True),
    "Keras": functools.partial(keras_epoch, jit_compile=False),
    "Keras, jit_compile": functools.partial(keras_epoch, jit_compile=True),
    "PyTorch": functools.partial(torch_epoch, fused=False),
    "PyTorch, fused Adam": functools.partial(torch_epoch, fused=True),
}


def time_epochs(library: str, pairs: SequencePairs, attention: str, count: int) -> dict:
    """Seconds of each epoch of one library, after the first."""
    torch.set_num_threads(os.cpu_count() or 1)
    epoch, parameters = LIBRARIES[library](PairPreprocessor.from_data(pairs), pairs, attention)
    epoch()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - started)
    return {"parameters": parameters, "seconds": seconds}


def main() -> None:
    """Run all libraries in turn and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attention", choices=("general", "additive"), default="general")
    parser.add_argument("--data", help="pairs in two columns, sources split into characters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each library in each round")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        pairs = generated()
        if options.data:
            pairs = read_sequence_pairs(options.data, source_units="characters")
        print(json.dumps(time_epochs(options.worker, pairs, options.attention, options.epochs)))
        return
    seconds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    parameters, failed = {}, {}
    module = "benchmarks.seq2seq_training_speed"
    for _ in range(options.rounds):
        for library in LIBRARIES:
            if library in failed:
                continue
            command = [sys.executable, "-m", module, *sys.argv[1:], "--worker", library]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                failed[library] = process.stderr.strip().splitlines()[-1]
                continue
            result = json.loads(process.stdout.splitlines()[-1])
            seconds[library] += result["seconds"]
            parameters[library] = result["parameters"]
    if len(set(parameters.values())) != 1:
        raise SystemExit(f"The models must have the same size. Received: {parameters} parameters.")
    seconds = {library: values for library, values in seconds.items() if library not in failed}
    for library, error in failed.items():
        print(f"{library:<25} failed: {error}")
    medians = common.medians(seconds)
    for library, value in medians.items():
        ratio = medians["keras_seqzoo"] / value
        print(f"{library:<25} {value:6.2f} s per epoch; keras_seqzoo takes {ratio:.2f} of it")
    common.write(
        f"seq2seq_training_speed_{options.attention}",
        {
            "parameters": parameters["keras_seqzoo"],
            "seconds": seconds,
            "medians": medians,
            "failed": failed,
        },
    )


if __name__ == "__main__":
    main()
