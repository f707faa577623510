"""Encoder-decoders: training, end-to-end models, scores, export, search, command line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import keras_seqzoo as zoo
from keras_seqzoo import layers
from keras_seqzoo.cli import main
from keras_seqzoo.data import PairPreprocessor, SequencePairs, Vocabulary, forecasting_pairs
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.metrics.seq2seq import edit_distance
from keras_seqzoo.tasks import evaluate
from keras_seqzoo.wrapping import decodes, inner_model, preprocessor_of

pytestmark = pytest.mark.tensorflow

SMALL = {"units": 24, "embedding_dim": 12, "dropout": 0.0, "input_dropout": 0.0}


def reversals(count: int, seed: int) -> SequencePairs:
    """Random words as sources, and their characters in reverse order as targets."""
    rng = np.random.default_rng(seed)
    words = [rng.choice(list("abcd"), rng.integers(1, 6)).tolist() for _ in range(count)]
    return SequencePairs(words, [word[::-1] for word in words], source_units="characters")


@pytest.fixture(scope="module")
def trained():
    return zoo.train(
        "attention_gru_encoder_decoder", reversals(400, 0), validation_data=reversals(50, 1),
        epochs=12,
        learning_rate=0.01, seed=3, verbose=0, **SMALL,
    )  # fmt: skip


def waves(steps: int = 1200) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=steps)
    return 20 + np.sin(np.arange(steps) * 0.3) + 0.05 * noise


# ------------------------------------------------------------------------------------------ scores


def test_scores_have_sequence_accuracy_and_token_error_rate():
    true = [["a", "b", "c"], ["a"], [], ["x", "y"]]
    outputs = [["a", "c"], ["a"], [], ["y", "x", "z"]]
    scores = zoo.metrics.seq2seq_scores(true, outputs)
    assert scores.accuracy == 0.5 and scores.count == 4
    assert scores.token_error_rate == pytest.approx((1 + 2) / 6)
    assert scores.by_length["accuracy"].to_dict() == {0: 1.0, 1: 1.0, 2: 0.0, 3: 0.0}
    assert [index for index, *_ in scores.mistakes] == [0, 3]
    assert json.loads(json.dumps(scores.to_dict()))["count"] == 4
    assert scores.plot().get_xlabel()
    with pytest.raises(DataError, match="as many"):
        zoo.metrics.seq2seq_scores(true, outputs[:2])
    with pytest.raises(DataError, match="lists of tokens"):  # a subtype of `np.integer`
        zoo.metrics.seq2seq_scores([[np.timedelta64(1, "D")]], [["a"]])


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_is_symmetric_and_equals_known_values(one, other, distance):
    assert edit_distance(one, other) == edit_distance(other, one) == distance


# ---------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_training_restores_the_best_epoch_and_is_reproducible(trained):
    assert trained.scores.accuracy > 0.9
    assert trained.scores.accuracy == trained.history["val_accuracy"].max()
    again = zoo.train(
        "attention_gru_encoder_decoder", reversals(400, 0),
        validation_data=reversals(50, 1), epochs=2, learning_rate=0.01, seed=3, verbose=0, **SMALL,
    )  # fmt: skip
    np.testing.assert_allclose(again.history["loss"], trained.history["loss"][:2], rtol=1e-4)


def test_end_to_end_model_maps_texts_to_texts(trained, tmp_path):
    texts = np.array(["abca", " dcb ", "", "zab"], object)
    found = trained.model.predict(texts, verbose=0)
    outputs = [text.decode() for text in found["targets"]]
    assert outputs[:3] == ["a c b a", "b c d", outputs[2]]
    source = trained.preprocessor.encode_sources([list("abca"), list("dcb"), [], list("zab")])
    options = {"strategy": "beam", "max_length": trained.preprocessor.max_length}
    expected = trained.inner_model.generate(source, **options)
    assert outputs == [" ".join(names) for names in trained.preprocessor.decode(expected.sequences)]
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)

    trained.model.save(tmp_path / "named.keras")
    loaded = zoo.load(tmp_path / "named.keras")
    assert decodes(loaded) and preprocessor_of(loaded) == trained.preprocessor
    assert loaded.predict(texts, verbose=0)["targets"].tolist() == found["targets"].tolist()
    assert isinstance(inner_model(loaded), layers.EncoderDecoderModel)
    assert evaluate(loaded, reversals(30, 2)).accuracy > 0.8
    with pytest.raises(ArgumentError, match="SequencePairs"):
        evaluate(loaded, zoo.data.LabeledSequences([["a"]], labels=["b"]))


@pytest.mark.slow
def test_generated_characters_are_joined():
    pairs = SequencePairs([["good", "day"]] * 8, [list("bon jour")] * 8, target_units="characters")
    trained = zoo.train(
        "gru_encoder_decoder", pairs, validation_split=0, epochs=60, learning_rate=0.02, verbose=0,
        units=16, embedding_dim=8,
    )  # fmt: skip
    translation = trained.model.predict(np.array(["good day"], object), verbose=0)["targets"]
    assert translation[0].decode() == "bon jour"


@pytest.mark.slow
def test_sources_are_padded_with_the_mask_value(tmp_path):
    rng = np.random.default_rng(0)
    sources = [rng.normal(1, 1, (length, 2)) for length in (4, 6, 3, 5)]
    pairs = SequencePairs(sources, [source[:2] for source in sources])
    for mask_value in (0.0, np.nan):
        trained = zoo.train(
            "vector_encoder_decoder", pairs, validation_data=pairs, mask_value=mask_value,
            units=4, epochs=1,
            verbose=0,
        )  # fmt: skip
        assert np.isfinite(trained.history["loss"]).all()
        trained.model.save(tmp_path / "model.keras")
        known = preprocessor_of(zoo.load(tmp_path / "model.keras"))
        assert known == trained.preprocessor
        np.testing.assert_equal(known.encode_sources(sources)[2, 3:], np.full((3, 2), mask_value))
    with pytest.raises(DataError, match="lengths from 3 to 6"):
        zoo.train("vector_encoder_decoder", pairs, mask_value=None, validation_split=0, verbose=0)
    even = SequencePairs([source[:3] for source in sources], pairs.targets)
    trained = zoo.train(
        "vector_encoder_decoder",
        even,
        validation_data=even,
        mask_value=None,
        units=4,
        epochs=1,
        verbose=0,
    )
    assert trained.preprocessor.model_arguments()["mask_value"] is None
    assert trained.model.predict(np.stack(even.sources), verbose=0).shape == (4, 2, 2)


@pytest.mark.parametrize("kind", ["readings to tokens", "tokens to readings"])
@pytest.mark.slow
def test_source_and_target_may_be_of_different_kinds(kind, tmp_path):
    """Predict the sign of each reading, or a reading from each sign."""
    rng = np.random.default_rng(0)
    readings = [rng.normal(size=(4, 1)).astype("float32") for _ in range(200)]
    signs = [["up" if value > 0 else "down" for value in one[:, 0]] for one in readings]
    levels = [np.array([[1.0 if sign == "up" else -1.0] for sign in one]) for one in signs]
    generates_tokens = kind == "readings to tokens"
    pairs = SequencePairs(readings, signs) if generates_tokens else SequencePairs(signs, levels)
    trained = zoo.train(
        "attention_gru_encoder_decoder", pairs, validation_data=pairs, epochs=20,
        learning_rate=0.02, units=16,
        embedding_dim=8, verbose=0, dropout=0.0, input_dropout=0.0,
    )  # fmt: skip
    assert (
        trained.scores.token_error_rate < 0.2
        if generates_tokens
        else trained.scores.normalized_mse < 0.2
    )
    if not generates_tokens:
        texts = np.array([" ".join(one) for one in signs[:3]], object)
        assert trained.model.predict(texts, verbose=0).shape == (3, 4, 1)
        return
    outputs = trained.model.predict(np.stack(readings[:3]), verbose=0)
    assert [len(text.split()) for text in outputs["targets"]] == [4, 4, 4]
    # With weights of this size, round-off grows with every decoded token.
    assert zoo.export(trained.model, tmp_path / "served", verbose=0).difference < 1e-4


@pytest.mark.slow
def test_multi_step_forecaster_has_a_lower_error_than_the_mean():
    record = waves()
    train, later = forecasting_pairs(record[:900], past=40, steps=12), record[900:]
    trained = zoo.train(
        "vector_encoder_decoder", train,
        validation_data=forecasting_pairs(later, past=40, steps=12), epochs=40,
        learning_rate=0.01, units=16, verbose=0,
    )  # fmt: skip
    assert trained.scores.normalized_mse < 0.2
    outputs = trained.model.predict(np.stack(train.sources[:2]), verbose=0)
    assert outputs.shape == (2, 12, 1)
    np.testing.assert_allclose(
        outputs, trained.inner_model.generate(np.stack(train.sources[:2]), max_length=12).sequences,
        rtol=1e-4,
    )  # fmt: skip


def test_targets_of_readings_may_differ_in_length():
    rng = np.random.default_rng(0)
    lengths = (3, 5, 2, 4)
    sources = [rng.normal(size=(length + 1, 2)) for length in lengths]
    targets = [rng.normal(size=(length, 3)) for length in lengths]
    pairs = SequencePairs(sources, targets)
    preprocessor = PairPreprocessor.from_data(pairs)
    assert preprocessor.model_arguments()["source_features"] == 2 and preprocessor.max_length == 5
    inputs, y, weights = preprocessor.batches(pairs, batch_size=4, shuffle=False)[0]
    assert np.isnan(inputs["source"][0, -1]).all() and not inputs["target"][:, 0].any()
    np.testing.assert_array_equal(weights.sum(1), sorted(lengths))
    np.testing.assert_allclose(inputs["target"][3, 1:5], y[3, :4])
    model = zoo.get("vector_encoder_decoder", **preprocessor.model_arguments(), units=4)
    zoo.adapt(model, preprocessor.encode_sources(sources), target=np.concatenate(targets)[None])
    model.compile("sgd", "mse")
    plain = model.evaluate(preprocessor.batches(pairs, batch_size=4), verbose=0)
    alone = [
        model.evaluate(preprocessor.batches(pairs.take([row]), batch_size=1), verbose=0)
        for row in range(4)
    ]
    # Keras divides by all steps of the batch, padded ones too.
    expected = np.dot(alone, lengths) / (4 * max(lengths))
    np.testing.assert_allclose(plain, expected, rtol=1e-4)


def test_scheduled_sampling_replaces_real_steps_after_the_first():
    layer = layers.ScheduledSampling(0.5, seed=1)
    target = np.tile(np.array([[2, 4, 5, 6, 0]], "int32"), (400, 1))
    outputs = np.full((400, 5, 8), 1e-9, "float32")
    outputs[..., 7] = 1.0
    mixed = np.asarray(layer.mix(keras.ops.convert_to_tensor(target), outputs))
    assert (mixed[:, 0] == 2).all() and (mixed[:, 4] == 0).all()
    changed = mixed != target
    assert set(mixed[changed]) == {7}
    np.testing.assert_allclose(changed[:, 1:4].mean(), 0.5, atol=0.05)
    outputs[..., 0] = 1e9  # padding is never sampled
    mixed = np.asarray(layer.mix(keras.ops.convert_to_tensor(target), outputs))
    assert set(mixed[mixed != target]) == {7} and (mixed[:, :4] > 0).all()
    values = np.zeros((400, 5, 1), "float32")
    mixed = np.asarray(layer.mix(keras.ops.convert_to_tensor(values), values + 3))
    np.testing.assert_allclose((mixed[:, 1:] == 3).mean(), 0.5, atol=0.05)


@pytest.mark.slow
def test_scheduled_sampling_changes_training_only():
    config = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 8}
    model = zoo.get("gru_encoder_decoder", **config, scheduled_sampling=0.9)
    plain = zoo.get("gru_encoder_decoder", **config)
    plain.set_weights([w.numpy() for w in model.weights if "seed" not in w.path])
    rng = np.random.default_rng(0)
    x = [rng.integers(1, 9, (5, 6)), rng.integers(2, 7, (5, 8))]
    np.testing.assert_array_equal(model(x), plain(x))
    assert not np.allclose(model(x, training=True), plain(x, training=True))
    np.testing.assert_array_equal(
        np.asarray(model(x, training=True))[:, 0], np.asarray(plain(x, training=True))[:, 0]
    )


# --------------------------------------------------------------------------------------- artifacts

FILES = ("served", "source.npy", "beam.npz")
DECODE_SCRIPT = """
import sys
sys.modules["keras"] = sys.modules["keras_seqzoo"] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
texts = model.generate_text(tf.constant(["abca", "dcb"]))["targets"]
print([text.decode() for text in texts.numpy()])
source = tf.constant(np.load(sys.argv[2]))
state = model.encode(source)
carried = {name: tensor for name, tensor in state.items() if name in ("keys", "values", "mask")}
before, outputs = tf.fill([2], 2), []
for _ in range(4):
    after = model.signatures["step"](previous=before, **state)
    before = tf.argmax(after.pop("prediction"), -1, tf.int32)
    outputs.append(before.numpy())
    state = carried | after
print(np.stack(outputs, 1).tolist())
greedy = model.generate_greedy(source, tf.constant(4))
print(greedy["sequences"].numpy().tolist())
beam = model.generate_beam(source, tf.constant(4))
np.savez(sys.argv[3], **{name: tensor.numpy() for name, tensor in beam.items()})
"""


@pytest.mark.slow
def test_artifact_decodes_without_keras(trained, tmp_path):
    parity = zoo.export(trained.model, tmp_path / "served", verbose=0)
    endpoints = {case["endpoint"] for case in parity.cases}
    assert endpoints == {
        "serve", "encode", "step", "generate_greedy", "generate_beam", "generate_text",
    }  # fmt: skip
    source = trained.preprocessor.encode_sources([list("abca"), list("dcba")])
    np.save(tmp_path / "source.npy", source)
    done = subprocess.run(
        [sys.executable, "-c", DECODE_SCRIPT, *(str(tmp_path / name) for name in FILES)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    texts, by_steps, greedy = done.stdout.strip().splitlines()
    assert texts == "['a c b a', 'b c d']"
    expected = trained.inner_model.generate(source, max_length=4).sequences.tolist()
    assert json.loads(by_steps) == json.loads(greedy) == expected
    best = trained.inner_model.generate(
        source, max_length=4, strategy="beam", num_return_sequences=5
    )
    with np.load(tmp_path / "beam.npz") as beam:
        np.testing.assert_array_equal(beam["sequences"], best.sequences)
        np.testing.assert_allclose(beam["scores"], best.scores, atol=1e-5)


@pytest.mark.slow
def test_artifact_of_a_vector_encoder_decoder_equals_generate(tmp_path):
    model = zoo.get("vector_encoder_decoder", source_features=3, target_features=2, units=4)
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (4, 9, 3)).astype("float32")
    zoo.adapt(model, x, target=-x[..., :2])
    zoo.export(model, tmp_path / "served", verbose=0)
    served = zoo.load(tmp_path / "served")
    found = served.generate_greedy(x, np.int32(6))["sequences"]
    np.testing.assert_allclose(found, model.generate(x, max_length=6).sequences, rtol=1e-4)


# ------------------------------------------------------------------------------------------ search


@pytest.mark.slow
def test_search_on_pairs_returns_an_end_to_end_model_and_writes_a_report(tmp_path):
    found = zoo.search(
        "attention_gru_encoder_decoder", reversals(120, 0), max_trials=2, epochs=2, verbose=0,
        directory=tmp_path / "run", units=12, embedding_dim=6, seed=1,
    )  # fmt: skip
    assert (found.results["state"] == "complete").all()
    assert found.results["val_accuracy"].notna().all()
    assert decodes(found.best_model)
    best = evaluate(found.best_model, reversals(30, 2))
    assert 0 <= best.accuracy <= 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">Attention<" in page and "Accuracy against length" in page
    with pytest.raises(ArgumentError, match="SequencePairs"):
        zoo.search("gru_encoder_decoder", np.zeros((4, 5, 1)), directory=tmp_path / "other")


@pytest.mark.slow
def test_search_of_a_forecaster_measures_its_validation_error(tmp_path):
    pairs = forecasting_pairs(waves(400), past=20, steps=5)
    found = zoo.search(
        "vector_encoder_decoder", pairs, max_trials=2, epochs=2, verbose=0, units=8,
        directory=tmp_path / "run",
    )  # fmt: skip
    assert found.results["val_error"].notna().all()
    assert found.best_model.predict(np.stack(pairs.sources[:3]), verbose=0).shape == (3, 5, 1)
    assert ">Forecasts<" in (tmp_path / "run" / "report.html").read_text()


# ----------------------------------------------------------------------------------- command line


def run(*arguments, **options):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


@pytest.mark.slow
def test_commands_train_evaluate_audit_and_predict(tmp_path):
    pairs = reversals(200, 0)
    lines = zip(pairs.sources, pairs.targets, strict=True)
    data = tmp_path / "words.tsv"
    data.write_text("".join(f"{''.join(one)}\t{' '.join(other)}\n" for one, other in lines))
    out, sets = tmp_path / "run", [f"--set={key}={value}" for key, value in SMALL.items()]
    done = run(
        "train", "attention_gru_encoder_decoder", "--data", data, "--source-units", "characters",
        "--epochs", 8, "--learning-rate", 0.01, "--out", out, "--no-export", *sets,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "200 pairs" not in done.output or "characters to tokens" in done.output
    assert (out / "scores.png").is_file()
    scored = run("evaluate", out / "best.keras", data, "--json")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.output)["count"] == 200
    audited = run("audit", out / "best.keras", data)
    assert audited.exit_code == 0, audited.output
    assert "More padding on the right changes no real step" in audited.output
    predicted = subprocess.run(
        [sys.executable, "-c", "from keras_seqzoo.cli import main; main()", "predict",
         str(out / "best.keras")],
        input="abc\nd\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = predicted.stdout.splitlines()
    outputs, probability, sentence = first.split("\t")
    assert set(outputs.split()) <= set("abcd") and 0 <= float(probability) <= 1
    assert sentence == "abc" and second.endswith("\td")


@pytest.mark.slow
def test_commands_train_evaluate_and_predict_with_a_forecaster(tmp_path):
    np.savetxt(tmp_path / "waves.csv", waves(600), header="level", comments="")
    done = run(
        "train", "vector_encoder_decoder", "--data", tmp_path / "waves.csv",
        "--sequence-length", 30,
        "--steps", 6, "--epochs", 2, "--out", tmp_path / "run", "--no-export", "--set", "units=8",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    best = tmp_path / "run" / "best.keras"
    outputs = run("predict", best, tmp_path / "waves.csv", "--sequence-length", 30)
    assert outputs.exit_code == 0, outputs.output
    header, *rows = outputs.output.splitlines()
    assert header == "level" and len(rows) == 6 and all(map(float, rows))
    scored = run("evaluate", best, tmp_path / "waves.csv", "--sequence-length", 30)
    assert "over 6 steps" in scored.output


# ----------------------------------------------------------------------------------- invalid input


def test_invalid_pairs_and_options_are_rejected():
    pairs = reversals(20, 0)
    with pytest.raises(ArgumentError, match="LabeledSequences for the task 'tagging'"):
        zoo.train("gru_tagger", pairs)
    with pytest.raises(ArgumentError, match="SequencePairs"):
        zoo.train("gru_encoder_decoder", zoo.data.LabeledSequences([["a"]], labels=["b"]))
    with pytest.raises(ArgumentError, match="`validation_data` must be SequencePairs"):
        zoo.train(
            "gru_encoder_decoder",
            pairs,
            validation_data=zoo.data.LabeledSequences([["a"]], labels=["b"]),
        )
    with pytest.raises(ArgumentError, match="class_weight"):
        zoo.train("gru_encoder_decoder", pairs, class_weight="balanced")
    with pytest.raises(ArgumentError, match="label_smoothing"):
        zoo.train("gru_encoder_decoder", pairs, label_smoothing=1.0)
    preprocessor = PairPreprocessor.from_data(pairs)
    with pytest.raises(DataError, match="`sources` must be tokens"):
        preprocessor.batches(forecasting_pairs(waves(50), past=5, steps=2))
    for given in ({"source": 0}, {"target": "abc"}, {"target_units": "words"}, {"max_length": 0}):
        with pytest.raises(ArgumentError, match=next(iter(given))):
            dataclasses.replace(preprocessor, **given)
    for sequences in (["ab", 3], [[1, 2]]):
        with pytest.raises(DataError, match="tokens"):
            preprocessor.encode_sources(sequences)
    for ids in ([2, 3], [[-1]], [[0.5]]):
        with pytest.raises(DataError, match="ids"):
            preprocessor.decode(ids)
    of_readings = PairPreprocessor(2, 1)
    with pytest.raises(DataError, match=r"\(time, 2\)"):
        of_readings.encode_sources([np.zeros((3, 1))])
    with pytest.raises(DataError, match="targets are readings"):
        of_readings.decode([[2]])
    with pytest.raises(ArgumentError, match="source_units"):
        SequencePairs([["a"]], [["b"]], source_units="words")
    model = zoo.get("gru_encoder_decoder", **preprocessor.model_arguments(), units=4)
    for source in ([[99, 1]], [[-1, 1]], [[0.5, 1.0]]):
        with pytest.raises(DataError, match=r"ints from 0 to 5.*token ids"):
            model.generate(np.array(source))
    assert model.generate(np.zeros((1, 3), int), max_length=2).sequences.shape == (1, 2)
    with pytest.raises(ArgumentError, match="with attention"):
        model.attention(np.array([1, 2]), np.array([4]))


def test_unknown_tokens_have_id_1_and_long_targets_are_truncated(trained):
    assert trained.preprocessor.encode_sources([["never", "seen"]]).tolist() == [[1, 1]]
    source = trained.preprocessor.encode_sources([list("abcd")])
    cut = trained.inner_model.generate(source, max_length=2)
    assert (cut.sequences[0] > 0).all()  # truncated before the end token
    assert isinstance(trained.preprocessor.source, Vocabulary)


def test_attention_of_a_pair_sums_to_one_and_is_plotted(trained):
    source = trained.preprocessor.encode_sources([list("abcd")])[0]
    target = trained.preprocessor.target.encode(list("dcba"))
    weights = trained.inner_model.attention(source, target)
    assert weights.shape == (5, 4)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    outputs = trained.inner_model.generate(source[None], max_length=5, return_attention=True)
    if outputs.sequences[0].tolist()[:4] == target.tolist():
        np.testing.assert_allclose(weights, outputs.attention[0], atol=1e-4)
    ax = trained.inner_model.plot_attention(
        source, target, source_labels=list("abcd"), target_labels=list("dcba")
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == [*"dcba", "end"]
    for names in (
        {"source_labels": ["a"]},
        {"target_labels": [1, 2, 3, 4]},
        {"target_labels": "dcba"},
    ):
        with pytest.raises(ArgumentError, match=r"4 strings|a list"):
            trained.inner_model.plot_attention(source, target, **names)
