"""Model files from anyone: what is hostile or damaged is refused, and what is neither loads."""

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

MEGABYTES = 200  # what refusing all of them may take beside what loading one model takes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return attacked(tmp_path_factory.mktemp("corpus"), flips=30)


def attacked(folder: Path, flips: int) -> dict:
    """Loads every hostile file in one other process; what it said of each, and what it left."""
    cases = hostile.write(folder, flips)
    before = digests(folder)
    empty = folder / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, Path(hostile.__file__), folder],
        cwd=empty,
        env=os.environ | {"TMPDIR": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    left = sorted(path.name for path in empty.rglob("*"))
    empty.rmdir() if not left else None
    return found | {"cases": cases, "left": left, "unchanged": digests(folder) == before}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("name", hostile.CASES)
def test_a_hostile_file_is_refused_in_one_sentence_that_says_why(name, corpus):
    said, words = corpus["said"][name], corpus["cases"][name]["words"]
    assert re.search("|".join(map(re.escape, words.split("|"))), said), said
    assert "\n" not in said
    assert len(said) < 700


def test_no_file_that_is_cut_short_or_flipped_is_taken_for_whole(corpus):
    check_damage(corpus)


def check_damage(found: dict) -> None:
    for name, case in found["cases"].items():
        said = found["said"][name]
        if name in hostile.CASES:
            continue
        if case.get("or_loads") or case.get("or_same"):
            allowed = {"SAME", "LOADED"} if case.get("or_loads") else {"SAME"}
            assert said in allowed or said.startswith(("`path` must be", "The model file")), said
        else:
            assert re.search(case["words"], said), said


def test_refusing_takes_no_memory_and_leaves_nothing(corpus):
    assert corpus["left"] == []
    assert corpus["unchanged"]
    before, after = corpus["kilobytes"]
    assert after - before < MEGABYTES * 1024


@pytest.mark.long
def test_thousands_of_flipped_files(tmp_path):
    check_damage(attacked(tmp_path, flips=3_000))


def test_the_corpus_is_large_enough(corpus):
    assert len(hostile.CASES) >= 100
    assert sum(name.startswith("cut-") for name in corpus["cases"]) == 100


@pytest.mark.parametrize("command", ["export", "predict", "evaluate", "leakage", "anomaly"])
def test_the_commands_refuse_as_well(command, tmp_path, good):
    archive = hostile.Archive(good, tmp_path / "evil.keras")
    hostile.CASES["lambda_as_an_activation"][0](archive)
    archive.write()
    readings = tmp_path / "readings.csv"
    readings.write_text("a,b\n" + "1.0,2.0\n2.0,1.0\n" * 200)
    target = tmp_path / "out" if command == "export" else readings
    done = CliRunner().invoke(cli.main, [command, str(archive.path), str(target)])
    assert done.exit_code == 2
    assert "Python lambda" in done.output


# ---------------------------------------------------------------------------------------- arguments


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.keras"
    zoo.get("simple_rnn_identity", features=2, units=3).save(path)
    return path


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": 1_000}, "at most 1,000 bytes"),
        ({"max_bytes": 50_000}, "whose members hold"),
        ({"max_config": 1_000}, "allow more with max_config="),
        ({"max_size": 2}, "where sizes of up to 2 .*allow more with max_size="),
        ({"max_layers": 4}, "allow more with max_layers="),
    ],
)
def test_limits_are_kept(limits, words, good):
    if limits == {"max_bytes": 50_000}:
        limits = {"max_bytes": good.stat().st_size - 700}
        with (
            zipfile.ZipFile(good) as archive,
            zipfile.ZipFile(good.with_name("packed.keras"), "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in archive.namelist():
                packed.writestr(name, archive.read(name))
        good = good.with_name("packed.keras")
    with pytest.raises(ArtifactError, match=words):
        zoo.load(good, **limits)


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0}, {"max_config": 1.5}, {"max_size": None}, {"max_layers": "many"},
        {"sha256": "abc"}, {"sha256": 5}, {"custom_objects": 3}, {"custom_objects": {1: len}},
        {"custom_objects": {"a": 1}},
    ],
)  # fmt: skip
def test_what_is_no_limit_is_refused(options, good):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        zoo.load(good, **options)


def test_a_file_of_that_digest_loads(good):
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    for given in (digest, digest.upper()):
        assert zoo.load(good, sha256=given).name == "simple_rnn_identity"


def test_a_digest_of_a_folder_is_refused(tmp_path):
    zoo.export(zoo.get("simple_rnn_identity"), tmp_path / "served", verify=False)
    with pytest.raises(ArgumentError, match="sha256"):
        zoo.load(tmp_path / "served", sha256="0" * 64)
    zoo.load(tmp_path / "served")


def test_looking_leaves_nothing_to_be_made_later(good):
    """Weights that were only counted must not take memory when another scope ends."""
    from keras.src.backend.common import global_state

    zoo.load(good)
    assert not global_state.get_global_attribute("uninitialized_variables")


# ----------------------------------------------------------------------------- what must still load


@keras.saving.register_keras_serializable("test_hostile")
class Mine(keras.layers.Layer):
    """A layer of a user's."""

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
class MadeAtOnce(Mine):
    """One that makes its weights as no other does."""

    def build(self, shape):
        self.kernel = keras.Variable(np.ones((shape[-1], self.units), "float32"))


@keras.saving.register_keras_serializable("test_hostile")
def double_tanh(x):
    return 2 * keras.ops.tanh(x)


@keras.saving.register_keras_serializable("test_hostile")
class Subclassed(keras.Model):
    """A model of a user's that is no Functional one."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.inner = units, layers.Dense(units)
        self.recurrent = layers.LSTM(units)

    def call(self, x):
        return self.recurrent(self.inner(x))

    def get_config(self):
        return {"units": self.units}


class Unregistered(Mine):
    """One that must be given."""


def sequential(*parts, shape=(None, 4), dtype="float32", **options):
    return keras.Sequential([keras.Input(shape, dtype=dtype, **options), *parts])


def trained(model, optimizer="adam", loss="mse", **options):
    model.compile(optimizer, loss, run_eagerly=True, **options)
    x = np.ones((2, 5, 4), "float32")
    model.train_on_batch(x, np.zeros(np.shape(model(x))))
    return model


def operations():
    x = keras.Input((5, 4))
    y = keras.ops.concatenate([keras.ops.mean(x, axis=1) + 1.0, x[:, 0]], -1)
    return keras.Model(x, layers.Dense(2)(y * 2))


def shared():
    one, other, layer = keras.Input((None, 4)), keras.Input((None, 4)), layers.LSTM(2)
    return keras.Model(
        [one, other], {"y": layer(one), "z": layers.Subtract()([layer(one), layer(other)])}
    )


def nested():
    inner = trained(sequential(layers.LSTM(3, return_sequences=True)))
    return trained(sequential(inner, layers.Dense(2)))


def attention():
    x = keras.Input((None, 8))
    return keras.Model(x, layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))


def looked_up():
    lookup = layers.StringLookup(vocabulary=["a", "http://b", "../c", "__lambda__"])
    return sequential(
        lookup, layers.Embedding(6, 3, mask_zero=True), layers.GRU(2), shape=(None,), dtype="string"
    )


def vectorized():
    layer = layers.TextVectorization(max_tokens=20, output_sequence_length=5)
    layer.adapt(["a b c", "d e"])  # into a file of its own beside the configuration
    return sequential(layer, layers.Embedding(20, 3), shape=(), dtype="string")


def scheduled():
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


def adapted_by_lora():
    model = sequential(layers.Dense(8), shape=(4,))
    model.layers[0].enable_lora(2)
    return model


PLAIN = {
    "recurrent": lambda: trained(sequential(layers.LSTM(4, dropout=0.1), layers.Dense(2))),
    "both ways": lambda: sequential(
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(2, "tanh", kernel_regularizer="l2")),
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)]),
    ),
    "stateful": lambda: sequential(layers.GRU(3, stateful=True), batch_size=2),
    "written out": lambda: sequential(layers.LSTM(3, unroll=True), shape=(5, 4)),
    "convolutions": lambda: sequential(
        layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), layers.BatchNormalization(),
        layers.LayerNormalization(), layers.MaxPooling1D(2), layers.SeparableConv1D(3, 2),
        layers.SpectralNormalization(layers.Dense(3)), layers.GlobalAveragePooling1D(),
        layers.PReLU(), layers.GaussianNoise(0.1), shape=(20, 4),
    ),
    "half": lambda: trained(
        sequential(layers.GRU(3, dtype="mixed_bfloat16"), layers.Dense(2, dtype="mixed_float16"))
    ),
    "spectrogram": lambda: sequential(
        layers.MelSpectrogram(num_mel_bins=40, fft_length=512), shape=(8000,)
    ),
    "large numbers": lambda: sequential(
        layers.IntegerLookup(vocabulary=[10**12, 7]), layers.Embedding(4, 2),
        shape=(3,), dtype="int64",
    ),
    "salted": lambda: sequential(
        layers.Hashing(2**20, salt=[2**40, 3]), shape=(3,), dtype="string"
    ),
    "scaled": lambda: sequential(layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 4.0]),
                                 shape=(None, 2)),
    "functions": lambda: trained(
        sequential(layers.Dense(2, activation=double_tanh)), "sgd", keras.losses.mean_squared_error
    ),
    "registered": lambda: trained(sequential(Mine(), MadeAtOnce())),
    "subclassed": lambda: trained(Subclassed()),
    "operations": operations, "shared": shared, "nested": nested, "attention": attention,
    "looked up": looked_up, "vectorized": vectorized, "scheduled": scheduled,
    "quantized": quantized, "adapted by lora": adapted_by_lora,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # Keras's own habit
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_keras_model_loads_as_keras_loads_it(name, tmp_path):
    PLAIN[name]().save(tmp_path / "model.keras")
    ours = zoo.load(tmp_path / "model.keras")
    theirs = keras.saving.load_model(tmp_path / "model.keras")
    assert type(ours) is type(theirs)
    assert ours.compiled == theirs.compiled
    if name == "adapted by lora":  # whose other factor is drawn anew
        ours, theirs = ours.layers[-1].kernel, theirs.layers[-1].kernel
        np.testing.assert_array_equal(ours, theirs)
        return
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    if ours.compiled:
        for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_class_may_be_given_instead_of_registered(tmp_path):
    sequential(Unregistered()).save(tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match=r"the class .*Unregistered.*custom_objects="):
        zoo.load(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered})
    assert type(loaded.layers[0]) is Unregistered


def test_a_link_to_a_model_is_followed(tmp_path, good):
    (tmp_path / "latest.keras").symlink_to(good)
    assert zoo.load(tmp_path / "latest.keras").name == "simple_rnn_identity"
