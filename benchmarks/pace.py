"""Seconds per epoch of a BiLSTM tagger on SNIPS: ours, plain Keras and PyTorch, in turn.

    python -m benchmarks.pace --data snips

The model of `bilstm_tagger` as it comes (embedding 100, dropout 0.2, LSTM 100 both ways, dropout
0.5, a softmax), Adam with gradients clipped to a norm of 5, batches of 32 of similar lengths. Ours
trains as `zoo.train` does. Keras gets the same batches by its own layers and optimizer; PyTorch
tensors made beforehand, `nn.LSTM` on packed sequences, and its Adam as it comes and fused into one
operation. Each side runs in a process of its own, in turn, since their threads hinder each other;
medians of the epochs after the first, which compiles. Writes
results/pace.json.
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
import torch

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo import layers
from keras_seqzoo.data import SequencePreprocessor
from keras_seqzoo.tasks import labeling


def ours(preprocessor: SequencePreprocessor, train):
    """One epoch of the zoo's tagger."""
    network = labeling.build("bilstm_tagger", preprocessor, word_dropout=0.0)
    train.compile_network(network, 2e-3, labeling.loss(network, preprocessor))
    layers.compile_recurrences(network)
    data = preprocessor.batches(train, pad_to_multiple_of=labeling.MULTIPLE).to_dataset()
    return lambda: network.fit(data, verbose=0, shuffle=False)


def plain_keras(preprocessor: SequencePreprocessor, train):
    """One epoch of the same model in Keras's own layers."""
    tokens = keras.Input((None,), dtype="int32")
    mask = keras.ops.not_equal(tokens, 0)
    x = keras.layers.Embedding(len(preprocessor.tokens), 100)(tokens)
    x = keras.layers.Dropout(0.2)(x)
    lstm = keras.layers.LSTM(100, return_sequences=True)
    x = keras.layers.Bidirectional(lstm)(x, mask=mask)
    x = keras.layers.Dropout(0.5)(x)
    tags = keras.layers.Dense(len(preprocessor.classes), "softmax")(x)
    model = keras.Model(tokens, layers.ApplyMask()([tags, mask]))
    model.compile(
        keras.optimizers.Adam(2e-3, global_clipnorm=5.0),
        "sparse_categorical_crossentropy",
        steps_per_execution=32,
    )
    data = preprocessor.batches(train).to_dataset()
    return lambda: model.fit(data, verbose=0, shuffle=False)


class TorchTagger(torch.nn.Module):
    """The same model in PyTorch."""

    def __init__(self, tokens: int, classes: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(tokens, 100, padding_idx=0)
        self.input_dropout, self.dropout = torch.nn.Dropout(0.2), torch.nn.Dropout(0.5)
        self.lstm = torch.nn.LSTM(100, 100, bidirectional=True, batch_first=True)
        self.tags = torch.nn.Linear(200, classes)

    def forward(self, x, lengths):
        """Logits `(batch, time, classes)`."""
        x = self.input_dropout(self.embedding(x))
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        x, _ = torch.nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.tags(self.dropout(x))


def pytorch(preprocessor: SequencePreprocessor, train, *, fused: bool):
    """One epoch in PyTorch."""
    model = TorchTagger(len(preprocessor.tokens), len(preprocessor.classes))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3, fused=fused or None)
    batches = [
        (torch.tensor(x).long(), torch.tensor(y).long())
        for x, y in map(
            preprocessor.batches(train).__getitem__, range(len(preprocessor.batches(train)))
        )
    ]

    def epoch():
        for x, y in batches:
            real = x != 0
            optimizer.zero_grad()
            logits = model(x[:, : int(real.sum(1).max())], real.sum(1))
            real = real[:, : logits.shape[1]]
            loss = torch.nn.functional.cross_entropy(logits[real], y[:, : logits.shape[1]][real])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    return epoch


SIDES = {
    "keras_seqzoo": ours,
    "Keras": plain_keras,
    "PyTorch": functools.partial(pytorch, fused=False),
    "PyTorch, fused Adam": functools.partial(pytorch, fused=True),
}


def epochs(side: str, data: str, count: int) -> list[float]:
    """Seconds of each epoch of one side, after the first."""
    torch.set_num_threads(os.cpu_count())
    train = zoo.data.read_labeled_sequences(os.path.join(data, "train"))
    run = SIDES[side](SequencePreprocessor.from_data(train, target="tags"), train)
    run()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Runs all sides in turn and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each side in each round")
    parser.add_argument("--side", choices=SIDES, help="run this one alone, print JSON")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(epochs(options.side, options.data, options.epochs)))
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side, found in seconds.items():
            command = [sys.executable, "-m", "benchmarks.pace", "--data", options.data]
            command += ["--epochs", str(options.epochs), "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found += json.loads(done.stdout.splitlines()[-1])
    medians = common.medians(seconds)
    for side, value in medians.items():
        ratio = medians["keras_seqzoo"] / value
        print(f"{side:<20} {value:6.2f} s an epoch; ours takes {ratio:.2f} of it")
    common.write("pace", {"seconds": seconds, "medians": medians})


if __name__ == "__main__":
    main()
