"""Trains small models on one device or on two, and writes their weights; a program of its own,
since how many devices there are is said before the first of them is used.

    python tests/distributed.py {single,mirrored,workers,data_parallel} WEIGHTS.npz
"""

from __future__ import annotations

import contextlib
import sys

import keras
import numpy as np

import keras_seqzoo as zoo
from keras_seqzoo.optimizers import Adam
from keras_seqzoo.utils.distribution import across_workers

SURE = {"dropout": 0.0, "input_dropout": 0.0}
SMALL = {"features": 3, "units": 5}
PAIR = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 6, "embedding_dim": 4}


def cases():
    """Entry, arguments, inputs, targets, loss, optimizer.

    Where a derivative is 0 but for round-off, Adam goes by its sign: not of every entry is what it
    does the same on two devices.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 7, 3)).astype("float32")
    tags = rng.integers(0, 4, (16, 7))
    sgd, entropy = keras.optimizers.SGD, "sparse_categorical_crossentropy"
    yield "simple_rnn_identity", SMALL | {"recurrent_regularizer": "l2"}, x, x, "mse", sgd(0.1)
    adam = Adam(1e-2, global_clipnorm=1.0)
    yield "gru_tagger", SMALL | SURE | {"classes": 4}, x, tags, entropy, adam
    yield "bilstm_crf_tagger", SMALL | SURE | {"classes": 4}, x, tags, None, sgd(0.1)
    source, target = rng.integers(4, 9, (16, 6)), rng.integers(4, 7, (16, 5))
    pair = {"source": source.astype("int32"), "target": target.astype("int32")}
    yield "attention_gru_encoder_decoder", PAIR | SURE, pair, target, entropy, sgd(0.1)


def strategy(how: str):
    """What models are built and trained under."""
    if how == "single":
        return contextlib.nullcontext()
    if how == "data_parallel":
        devices = keras.distribution.list_devices()
        assert len(devices) == 2, devices
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope()
    import tensorflow as tf

    if how == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def main(how: str, path: str) -> None:
    """Trains every case; writes the weights before and after, and the losses."""
    found = {}
    with strategy(how):
        for name, arguments, x, y, loss, optimizer in cases():
            keras.utils.set_random_seed(1)
            model = zoo.get(name, **arguments)
            if any(layer.name == "scale" for layer in model.layers):
                zoo.adapt(model, x)
            model.compile(optimizer, loss)
            across_workers(model)
            before = model.get_weights()
            history = model.fit(
                x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(x, y)
            )
            for number, pair in enumerate(zip(before, model.get_weights(), strict=True)):
                found[f"{name}, before, {number}"], found[f"{name}, after, {number}"] = pair
            for key, values in history.history.items():
                found[f"{name}, {key}"] = np.array(values)
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
