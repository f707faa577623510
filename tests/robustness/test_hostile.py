"""Loading of untrusted model files: malicious and damaged ones are rejected, valid ones load."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

import keras_seqzoo as zoo
from keras_seqzoo import cli
from keras_seqzoo.errors import ArgumentError, ArtifactError
from tests.helpers import hostile

pytestmark = pytest.mark.tensorflow

MEGABYTES = 200  # peak memory of rejecting all files, above that of loading one model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus(tmp_path_factory.mktemp("corpus"), flips=30)


def load_corpus(folder: Path, flips: int) -> dict:
    """Write all files, load them in one other process, and return outcomes and side effects."""
    cases = hostile.write(folder, flips)
    before = digests(folder)
    empty = folder / "empty"
    empty.mkdir()
    process = subprocess.run(
        [sys.executable, Path(hostile.__file__), folder],
        cwd=empty,
        env=os.environ | {"TMPDIR": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    result = json.loads(process.stdout.splitlines()[-1])
    new_files = sorted(path.name for path in empty.rglob("*"))
    empty.rmdir() if not new_files else None
    return result | {
        "cases": cases,
        "new_files": new_files,
        "unchanged": digests(folder) == before,
    }


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("name", hostile.CASES)
def test_load_rejects_a_malicious_file_with_the_reason_in_one_line(name, corpus):
    outcome, message = corpus["outcomes"][name], corpus["cases"][name]["message"]
    assert re.search("|".join(map(re.escape, message.split("|"))), outcome), outcome
    assert "\n" not in outcome
    assert len(outcome) < 700


@pytest.mark.slow
def test_load_rejects_truncated_and_bit_flipped_files(corpus):
    check_damaged_files(corpus)


def check_damaged_files(corpus: dict) -> None:
    for name, case in corpus["cases"].items():
        outcome = corpus["outcomes"][name]
        if name in hostile.CASES:
            continue
        if case.get("or_loads") or case.get("or_same"):
            allowed = {"SAME", "LOADED"} if case.get("or_loads") else {"SAME"}
            rejected = outcome.startswith(("`path` must be", "The model file"))
            assert outcome in allowed or rejected, outcome
        else:
            assert re.search(case["message"], outcome), outcome


@pytest.mark.slow
def test_load_rejects_files_without_side_effects_and_in_bounded_memory(corpus):
    assert corpus["new_files"] == []
    assert corpus["unchanged"]
    before, after = corpus["kilobytes"]
    assert after - before < MEGABYTES * 1024


@pytest.mark.long
def test_load_rejects_thousands_of_bit_flipped_files(tmp_path):
    check_damaged_files(load_corpus(tmp_path, flips=3_000))


def test_corpus_has_at_least_100_malicious_and_100_truncated_files(corpus):
    assert len(hostile.CASES) >= 100
    assert sum(name.startswith("truncated-") for name in corpus["cases"]) == 100


@pytest.mark.parametrize("command", ["export", "predict", "evaluate", "leakage", "anomaly"])
def test_commands_reject_a_malicious_file(command, tmp_path, good):
    archive = hostile.Archive(good, tmp_path / "evil.keras")
    hostile.CASES["lambda_as_an_activation"][0](archive)
    archive.write()
    readings = tmp_path / "readings.csv"
    readings.write_text("a,b\n" + "1.0,2.0\n2.0,1.0\n" * 200)
    target = tmp_path / "out" if command == "export" else readings
    result = CliRunner().invoke(cli.main, [command, str(archive.path), str(target)])
    assert result.exit_code == 2
    assert "Python lambda" in result.output


# ---------------------------------------------------------------------------------------- arguments


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.keras"
    zoo.get("simple_rnn_identity", features=2, units=3).save(path)
    return path


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 1_000}, "at most 1,000 bytes"),
        ({"max_bytes": 50_000}, "members of"),
        ({"max_config": 1_000}, "allow more with max_config="),
        ({"max_size": 2}, "sizes up to 2 .*allow more with max_size="),
        ({"max_layers": 4}, "allow more with max_layers="),
    ],
)
def test_load_rejects_files_beyond_a_limit(limits, message, good):
    if limits == {"max_bytes": 50_000}:
        limits = {"max_bytes": good.stat().st_size - 700}
        with (
            zipfile.ZipFile(good) as archive,
            zipfile.ZipFile(
                good.with_name("compressed.keras"), "w", zipfile.ZIP_DEFLATED
            ) as compressed,
        ):
            for name in archive.namelist():
                compressed.writestr(name, archive.read(name))
        good = good.with_name("compressed.keras")
    with pytest.raises(ArtifactError, match=message):
        zoo.load(good, **limits)


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0}, {"max_config": 1.5}, {"max_size": None}, {"max_layers": "many"},
        {"sha256": "abc"}, {"sha256": 5}, {"custom_objects": 3}, {"custom_objects": {1: len}},
        {"custom_objects": {"a": 1}},
    ],
)  # fmt: skip
def test_load_rejects_invalid_arguments(options, good):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        zoo.load(good, **options)


def test_load_accepts_a_file_with_the_expected_digest(good):
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    for sha256 in (digest, digest.upper()):
        assert zoo.load(good, sha256=sha256).name == "simple_rnn_identity"


def test_load_rejects_a_digest_for_a_folder(tmp_path):
    zoo.export(zoo.get("simple_rnn_identity"), tmp_path / "served", verify=False)
    with pytest.raises(ArgumentError, match="sha256"):
        zoo.load(tmp_path / "served", sha256="0" * 64)
    zoo.load(tmp_path / "served")


def test_load_leaves_no_uninitialized_variables(good):
    """The variables of the model that is built for counting must not be allocated later."""
    from keras.src.backend.common import global_state

    zoo.load(good)
    assert not global_state.get_global_attribute("uninitialized_variables")


# --------------------------------------------------------------------------------- valid files


@keras.saving.register_keras_serializable("test_hostile")
class Custom(keras.layers.Layer):
    """A user's layer."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("test_hostile")
class CustomVariable(Custom):
    """A user's layer that creates a `keras.Variable` itself."""

    def build(self, shape):
        self.kernel = keras.Variable(np.ones((shape[-1], self.units), "float32"))


@keras.saving.register_keras_serializable("test_hostile")
def double_tanh(x):
    return 2 * keras.ops.tanh(x)


@keras.saving.register_keras_serializable("test_hostile")
class Subclassed(keras.Model):
    """A user's subclassed model."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.inner = units, layers.Dense(units)
        self.recurrent = layers.LSTM(units)

    def call(self, x):
        return self.recurrent(self.inner(x))

    def get_config(self):
        return {"units": self.units}


class Unregistered(Custom):
    """A user's layer that is passed as `custom_objects`."""


def sequential(*parts, shape=(None, 4), dtype="float32", **options):
    return keras.Sequential([keras.Input(shape, dtype=dtype, **options), *parts])


def trained(model, optimizer="adam", loss="mse", **options):
    model.compile(optimizer, loss, run_eagerly=True, **options)
    x = np.ones((2, 5, 4), "float32")
    model.train_on_batch(x, np.zeros(np.shape(model(x))))
    return model


def keras_ops():
    x = keras.Input((5, 4))
    y = keras.ops.concatenate([keras.ops.mean(x, axis=1) + 1.0, x[:, 0]], -1)
    return keras.Model(x, layers.Dense(2)(y * 2))


def shared():
    a, b, layer = keras.Input((None, 4)), keras.Input((None, 4)), layers.LSTM(2)
    return keras.Model([a, b], {"y": layer(a), "z": layers.Subtract()([layer(a), layer(b)])})


def nested():
    inner = trained(sequential(layers.LSTM(3, return_sequences=True)))
    return trained(sequential(inner, layers.Dense(2)))


def attention():
    x = keras.Input((None, 8))
    return keras.Model(x, layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))


def string_lookup():
    lookup = layers.StringLookup(vocabulary=["a", "http://b", "../c", "__lambda__"])
    return sequential(
        lookup, layers.Embedding(6, 3, mask_zero=True), layers.GRU(2), shape=(None,), dtype="string"
    )


def text_vectorization():
    layer = layers.TextVectorization(max_tokens=20, output_sequence_length=5)
    layer.adapt(["a b c", "d e"])  # saved in a file of its own in assets/
    return sequential(layer, layers.Embedding(20, 3), shape=(), dtype="string")


def learning_rate_schedule():
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 10**9)
    return trained(
        sequential(layers.SimpleRNN(3), layers.Dense(2, activation="softmax")),
        keras.optimizers.AdamW(schedule, clipnorm=1.0, use_ema=True),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy", keras.metrics.F1Score(average="macro")],
        weighted_metrics=["mae"],
    )


def quantized():
    model = sequential(layers.Dense(8), shape=(4,))
    model.layers[0].quantize("int8")
    return model


def lora():
    model = sequential(layers.Dense(8), shape=(4,))
    model.layers[0].enable_lora(2)
    return model


VALID_MODELS = {
    "recurrent with dropout": lambda: trained(
        sequential(layers.LSTM(4, dropout=0.1), layers.Dense(2))
    ),
    "bidirectional": lambda: sequential(
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(2, "tanh", kernel_regularizer="l2")),
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)]),
    ),
    "stateful": lambda: sequential(layers.GRU(3, stateful=True), batch_size=2),
    "unrolled": lambda: sequential(layers.LSTM(3, unroll=True), shape=(5, 4)),
    "convolutions": lambda: sequential(
        layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), layers.BatchNormalization(),
        layers.LayerNormalization(), layers.MaxPooling1D(2), layers.SeparableConv1D(3, 2),
        layers.SpectralNormalization(layers.Dense(3)), layers.GlobalAveragePooling1D(),
        layers.PReLU(), layers.GaussianNoise(0.1), shape=(20, 4),
    ),
    "mixed precision": lambda: trained(
        sequential(layers.GRU(3, dtype="mixed_bfloat16"), layers.Dense(2, dtype="mixed_float16"))
    ),
    "spectrogram": lambda: sequential(
        layers.MelSpectrogram(num_mel_bins=40, fft_length=512), shape=(8000,)
    ),
    "large vocabulary values": lambda: sequential(
        layers.IntegerLookup(vocabulary=[10**12, 7]), layers.Embedding(4, 2),
        shape=(3,), dtype="int64",
    ),
    "hashing with salt": lambda: sequential(
        layers.Hashing(2**20, salt=[2**40, 3]), shape=(3,), dtype="string"
    ),
    "normalization": lambda: sequential(layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 4.0]),
                                 shape=(None, 2)),
    "registered function": lambda: trained(
        sequential(layers.Dense(2, activation=double_tanh)), "sgd", keras.losses.mean_squared_error
    ),
    "registered layers": lambda: trained(sequential(Custom(), CustomVariable())),
    "subclassed model": lambda: trained(Subclassed()),
    "keras.ops": keras_ops, "shared layer": shared, "nested": nested, "attention": attention,
    "string lookup": string_lookup, "text vectorization": text_vectorization,
    "learning rate schedule": learning_rate_schedule,
    "quantized": quantized, "lora": lora,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # Keras warns itself
@pytest.mark.parametrize("name", VALID_MODELS)
@pytest.mark.slow
def test_loaded_model_equals_the_model_loaded_by_keras(name, tmp_path):
    VALID_MODELS[name]().save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    expected = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(expected)
    assert loaded.compiled == expected.compiled
    if name == "lora":  # loading draws the first factor at random
        loaded, expected = loaded.layers[-1].kernel, expected.layers[-1].kernel
        np.testing.assert_array_equal(loaded, expected)
        return
    for weight, expected_weight in zip(loaded.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected_weight)
    if loaded.compiled:
        for weight, expected_weight in zip(
            loaded.optimizer.variables, expected.optimizer.variables, strict=True
        ):
            np.testing.assert_array_equal(weight, expected_weight)


def test_load_accepts_custom_objects(tmp_path):
    sequential(Unregistered()).save(tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match=r"the class .*Unregistered.*custom_objects="):
        zoo.load(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered})
    assert type(loaded.layers[0]) is Unregistered


def test_load_follows_a_link_to_a_model(tmp_path, good):
    (tmp_path / "latest.keras").symlink_to(good)
    assert zoo.load(tmp_path / "latest.keras").name == "simple_rnn_identity"
