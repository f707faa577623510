"""Seconds per training epoch of a BiLSTM tagger on SNIPS: keras_seqzoo, Keras and PyTorch.

    python -m benchmarks.training_speed --data snips

The model of `bilstm_tagger` with default arguments (embedding 100, dropout 0.2, bidirectional LSTM
100, dropout 0.5, softmax), Adam with gradients clipped to a norm of 5, batches of 32 of similar
lengths. keras_seqzoo trains as `zoo.train` does. Keras gets the same batches, with its own layers
and optimizer. PyTorch gets tensors made beforehand, `nn.LSTM` on packed sequences, and its Adam,
plain and fused. Each library runs in its own process, one after the other, so that threads do not
compete; medians of the epochs after the first, which compiles. Writes results/training_speed.json.
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
from keras_seqzoo.tasks import task_for
from keras_seqzoo.tasks.sequences import MULTIPLE


def zoo_epoch(preprocessor: SequencePreprocessor, train):
    """A function that trains the zoo's tagger for an epoch."""
    task = task_for("bilstm_tagger", word_dropout=0.0).bound(preprocessor=preprocessor)
    model = task.build()
    task.compile(model, task.optimizer(2e-3))
    layers.compile_recurrences(model)
    data = preprocessor.batches(train, pad_to_multiple_of=MULTIPLE).to_dataset()
    return lambda: model.fit(data, verbose=0, shuffle=False)


def keras_epoch(preprocessor: SequencePreprocessor, train):
    """A function that trains the same model of Keras's layers for an epoch."""
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


def torch_epoch(preprocessor: SequencePreprocessor, train, *, fused: bool):
    """A function that trains the same model in PyTorch for an epoch."""
    model = TorchTagger(len(preprocessor.tokens), len(preprocessor.classes))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3, fused=fused or None)
    batches = preprocessor.batches(train)
    batches = [
        (torch.tensor(x).long(), torch.tensor(y).long())
        for x, y in map(batches.__getitem__, range(len(batches)))
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


LIBRARIES = {
    "keras_seqzoo": zoo_epoch,
    "Keras": keras_epoch,
    "PyTorch": functools.partial(torch_epoch, fused=False),
    "PyTorch, fused Adam": functools.partial(torch_epoch, fused=True),
}


def time_epochs(library: str, data: str, count: int) -> list[float]:
    """Seconds of each epoch of one library, after the first."""
    torch.set_num_threads(os.cpu_count() or 1)
    train = zoo.data.read_labeled_sequences(os.path.join(data, "train"))
    epoch = LIBRARIES[library](SequencePreprocessor.from_data(train, target="tags"), train)
    epoch()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Run all libraries in turn and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each library in each round")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(time_epochs(options.worker, options.data, options.epochs)))
        return
    seconds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for _ in range(options.rounds):
        for library in LIBRARIES:
            command = [sys.executable, "-m", "benchmarks.training_speed", "--data", options.data]
            command += ["--epochs", str(options.epochs), "--worker", library]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[library] += json.loads(process.stdout.splitlines()[-1])
    medians = common.medians(seconds)
    for library, value in medians.items():
        ratio = medians["keras_seqzoo"] / value
        print(f"{library:<20} {value:6.2f} s per epoch; keras_seqzoo takes {ratio:.2f} of it")
    common.write("training_speed", {"seconds": seconds, "medians": medians})


if __name__ == "__main__":
    main()
