"""Train small models on one device or on two, and write their weights.

    python tests/helpers/distributed.py {single,mirrored,workers,data_parallel} WEIGHTS.npz

A program, because the number of devices must be set before the first use of one.
"""

from __future__ import annotations

import contextlib
import sys

import keras
import numpy as np

import keras_seqzoo as zoo
from keras_seqzoo.optimizers import Adam
from keras_seqzoo.utils.distribution import across_workers

NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0}
SMALL = {"features": 3, "units": 5}
PAIR = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 6, "embedding_dim": 4}


def cases():
    """Yield entry, arguments, inputs, targets, loss and optimizer.

    Where a derivative is 0 up to round-off, an Adam step has the sign of the round-off, which
    differs between devices. Adam is used only for an entry without such derivatives.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 7, 3)).astype("float32")
    tags = rng.integers(0, 4, (16, 7))
    sgd, entropy = keras.optimizers.SGD, "sparse_categorical_crossentropy"
    yield "simple_rnn_identity", SMALL | {"recurrent_regularizer": "l2"}, x, x, "mse", sgd(0.1)
    adam = Adam(1e-2, global_clipnorm=1.0)
    yield "gru_tagger", SMALL | NO_DROPOUT | {"classes": 4}, x, tags, entropy, adam
    yield "bilstm_crf_tagger", SMALL | NO_DROPOUT | {"classes": 4}, x, tags, None, sgd(0.1)
    source, target = rng.integers(4, 9, (16, 6)), rng.integers(4, 7, (16, 5))
    pair = {"source": source.astype("int32"), "target": target.astype("int32")}
    yield "attention_gru_encoder_decoder", PAIR | NO_DROPOUT, pair, target, entropy, sgd(0.1)


def strategy_scope(name: str):
    """The scope in which models are built and trained."""
    if name == "single":
        return contextlib.nullcontext()
    if name == "data_parallel":
        devices = keras.distribution.list_devices()
        assert len(devices) == 2, devices
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope()
    import tensorflow as tf

    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def main(strategy: str, path: str) -> None:
    """Train every case; write the weights before and after training, and the losses."""
    results = {}
    with strategy_scope(strategy):
        for name, arguments, x, y, loss, optimizer in cases():
            keras.utils.set_random_seed(1)
            model = zoo.get(name, **arguments)
            if any(layer.name == "scale" for layer in model.layers):
                zoo.adapt(model, x)
            model.compile(optimizer, loss)
            across_workers(model)
            initial = model.get_weights()
            history = model.fit(
                x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(x, y)
            )
            for index, (before, after) in enumerate(zip(initial, model.get_weights(), strict=True)):
                results[f"{name}, before, {index}"] = before
                results[f"{name}, after, {index}"] = after
            for key, values in history.history.items():
                results[f"{name}, {key}"] = np.array(values)
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
