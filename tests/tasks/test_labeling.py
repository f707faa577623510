"""Sequence labeling: vocabularies, batches, class weights, scores, training, end-to-end models."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

import keras_seqzoo as zoo
from keras_seqzoo import models
from keras_seqzoo.data import (
    Batches,
    LabeledSequences,
    SequencePreprocessor,
    Vocabulary,
    predict_batches,
)
from keras_seqzoo.data.sequence_preprocessor import MAX_CHARACTERS
from keras_seqzoo.errors import ArgumentError, DataError, UnknownArgumentError, UnknownNameError
from keras_seqzoo.layers import bio_constraints
from keras_seqzoo.tasks import task_for
from keras_seqzoo.wrapping import preprocessor_of

pytestmark = pytest.mark.tensorflow

CHECKS = settings(max_examples=100, deadline=None, derandomize=True, database=None)

KNOWN = ["play", "jazz", "stop", "Señor", "naïve", "東京", "don't", "a", "😀😀", "x" * 40]
# Unknown tokens, characters or both; the last is a known word with an extra, truncated character.
UNKNOWN = ["jay", "Stop", "ß", "Ωmega", "\u0301", "a\u00a0b", "y" * 50, "[UNK]", "x" * 40 + "!"]
TAGS = ["O", "B-genre", "I-genre", "B-artist"]
LABELS = ["Play", "Stop", "Other"]


def texts(count: int, words: list[str], seed: int = 0, longest: int = 9) -> LabeledSequences:
    """Random sentences of every length up to `longest`, none of them empty."""
    rng = np.random.default_rng(seed)
    lengths = [1 + row % longest for row in range(count)]
    return LabeledSequences(
        [[str(word) for word in rng.choice(words, length)] for length in lengths],
        labels=[LABELS[row % 3] for row in range(count)],
        tags=[[TAGS[number] for number in rng.integers(0, 4, length)] for length in lengths],
    )


TEXT = texts(30, KNOWN)
STRANGE = texts(24, KNOWN + UNKNOWN, seed=1, longest=6)
SMALL = {"units": 4, "embedding_dim": 5}
ENTRIES = {
    "gru_tagger": {},
    "bilstm_crf_tagger": {},
    "char_bilstm_crf_tagger": {"character_units": 3, "character_embedding_dim": 4},
    "simple_rnn_classifier": {},
}
every_entry = pytest.mark.parametrize("name", ENTRIES)


def encode(name: str, examples: LabeledSequences = TEXT) -> SequencePreprocessor:
    target = "labels" if "classifier" in name else "tags"
    return SequencePreprocessor.from_data(examples, target=target, characters="char" in name)


def network(name: str, preprocessor: SequencePreprocessor, seed: int = 0) -> keras.Model:
    """A model with random weights, large enough that predictions differ between tokens."""
    model = zoo.get(name, **preprocessor.model_arguments() | SMALL | ENTRIES[name])
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def strings(sequences) -> np.ndarray:
    return np.array([" ".join(sequence) for sequence in sequences], object)


def decode_bytes(names: np.ndarray) -> list:
    """Decode TensorFlow strings, which are bytes."""
    return np.char.decode(names.astype(bytes), "utf-8").tolist()


def predict_strings(model: keras.Model, sequences) -> list:
    """Predictions of an end-to-end model without the empty tags of padded steps."""
    found = model.predict(strings(sequences), verbose=0)
    if "labels" in found:
        return decode_bytes(found["labels"])
    rows = decode_bytes(found["tags"])
    longest = max(1, *map(len, sequences))
    for row, sequence in zip(rows, sequences, strict=True):
        assert row[len(sequence) :] == [""] * (longest - len(sequence))
    return [row[: len(sequence)] for row, sequence in zip(rows, sequences, strict=True)]


def predict_and_decode(
    model: keras.Model, preprocessor: SequencePreprocessor, examples: LabeledSequences
) -> list:
    return preprocessor.decode(
        predict_batches(model, preprocessor.batches(examples, targets=False, batch_size=5))
    )


# -------------------------------------------------------------------------------------- vocabulary

# Keras strips "\0" from the end of a token, as NumPy does.
tokens = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6
)


@CHECKS
@given(known=st.lists(tokens, min_size=1, unique=True), queries=st.lists(tokens, min_size=1))
@example(known=["東京", "é"], queries=["東京", "e\u0301", "[UNK]", "é"])
def test_vocabulary_ids_equal_those_of_string_lookup(known, queries):
    vocabulary = Vocabulary([token for token in known if token != "[UNK]"] or ["a"])
    lookup = keras.layers.StringLookup(vocabulary=list(vocabulary.tokens), mask_token="")
    queries = [*queries, *known, ""]
    numbers = vocabulary.encode(queries)
    np.testing.assert_array_equal(numbers, lookup(tf.constant(queries)))
    assert vocabulary.decode(numbers) == [
        token if token in (*vocabulary.tokens, "") else "[UNK]" for token in queries
    ]
    assert len(vocabulary) == lookup.vocabulary_size()


def test_vocabulary_is_sorted_by_frequency_and_omits_rare_tokens():
    sequences = [["b", "a", "a"], ["c", "b", "a", "", "[UNK]"], ["d"]]
    assert Vocabulary.from_data(sequences).tokens == ("a", "b", "c", "d")
    assert Vocabulary.from_data(sequences, min_count=2).tokens == ("a", "b")
    assert Vocabulary.from_data(sequences, max_size=3).tokens == ("a",)
    for options in ({"min_count": 9}, {"max_size": 2}):
        with pytest.raises(DataError, match="at least one token"):
            Vocabulary.from_data(sequences, **options)


@pytest.mark.parametrize("tokens", [["a", "a"], [""], ["[UNK]"], [5]])
def test_vocabulary_rejects_invalid_tokens(tokens):
    with pytest.raises(ArgumentError, match="different non-empty strings"):
        Vocabulary(tokens)


def test_vocabulary_methods_reject_invalid_tokens_ids_and_sequences():
    words = Vocabulary(["a", "b"])
    for tokens in (3, [3], [["a"]], np.array(3), [b"a"]):
        with pytest.raises(DataError, match="`tokens` must"):
            words.encode(tokens)
    for numbers in (3, [4], [-1], [1.0], [[1]], ["a"]):
        with pytest.raises(DataError, match="`ids` must"):
            words.decode(numbers)
    for sequences in (3, [3], [[3]]):
        with pytest.raises(DataError, match="`sequences` must"):
            Vocabulary.from_data(sequences)
    assert words.decode([]) == [] == words.encode([]).tolist()


def test_preprocessor_decode_rejects_invalid_predictions():
    of_tags, of_labels = (
        SequencePreprocessor.from_data(TEXT, target="tags"),
        SequencePreprocessor.from_data(TEXT, target="labels"),
    )
    count = len(of_labels.classes)
    for wrong in ([[99]], [[-1]], [[0.5]], [["O"]], 3, [np.full((2, count + 1), 0.1)]):
        with pytest.raises((ArgumentError, DataError), match="`predictions` must"):
            of_labels.decode(wrong)
    with pytest.raises(DataError, match="one per sequence"):
        of_labels.decode([[0, 1]])
    assert of_tags.decode([[0, 1], []]) == [list(of_tags.classes[:2]), []]


# ------------------------------------------------------------------------------ end-to-end models


@every_entry
def test_end_to_end_predictions_equal_decoded_predictions_of_the_inner_model(name):
    preprocessor = encode(name)
    plain = network(name, preprocessor)
    model = zoo.tasks.end_to_end(plain, preprocessor)
    expected = predict_and_decode(plain, preprocessor, STRANGE)
    assert predict_strings(model, STRANGE.sequences) == expected
    assert len({str(one) for one in expected}) > 2  # otherwise the comparison is trivial


def test_comparison_detects_permuted_tokens_and_classes():
    """The comparison above fails for a permuted vocabulary and for permuted classes."""
    preprocessor = encode("gru_tagger")
    plain = network("gru_tagger", preprocessor)
    expected = predict_and_decode(plain, preprocessor, STRANGE)
    for other in (
        SequencePreprocessor(
            "tags", preprocessor.classes, Vocabulary(preprocessor.tokens.tokens[::-1])
        ),
        SequencePreprocessor("tags", preprocessor.classes[::-1], preprocessor.tokens),
    ):
        assert predict_strings(zoo.tasks.end_to_end(plain, other), STRANGE.sequences) != expected


@every_entry
@pytest.mark.slow
def test_empty_sentences_have_no_tags_and_do_not_affect_other_sentences(name):
    preprocessor = encode(name)
    model = zoo.tasks.end_to_end(network(name, preprocessor), preprocessor)
    sequences = STRANGE.sequences
    alone, mixed = predict_strings(model, [()]), predict_strings(model, [(), *sequences, ()])
    assert mixed == [*alone, *predict_strings(model, sequences), *alone]
    assert alone == ([[]] if preprocessor.target == "tags" else [alone[0]])
    empty = LabeledSequences([[], ["play"], []], labels=["Play"] * 3, tags=[[], ["O"], []])
    assert predict_and_decode(network(name, preprocessor), preprocessor, empty) == predict_strings(
        model, empty.sequences
    )


def test_end_to_end_models_output_probabilities_except_for_a_crf():
    for name, outputs in {
        "gru_tagger": {"tags", "probabilities"},
        "simple_rnn_classifier": {"labels", "probabilities"},
        "bilstm_crf_tagger": {"tags"},
    }.items():
        preprocessor = encode(name)
        plain = network(name, preprocessor)
        found = zoo.tasks.end_to_end(plain, preprocessor).predict(
            strings(TEXT.sequences), verbose=0
        )
        assert set(found) == outputs
        if "probabilities" in outputs:
            target = preprocessor.target
            names = np.array(preprocessor.classes)[found["probabilities"].argmax(-1)]
            predicted = np.array(decode_bytes(found[target]))
            real = predicted != ""
            assert real.any()
            assert (predicted == names)[real].all()


def test_whitespace_around_tokens_is_ignored():
    preprocessor = encode("gru_tagger")
    model = zoo.tasks.end_to_end(network("gru_tagger", preprocessor), preprocessor)
    first, second = (
        model.predict(np.array([one], object), verbose=0)["tags"].tolist()
        for one in ("play jazz", "  play \t jazz\n")
    )
    assert first == second


@pytest.mark.parametrize("first", [0, 5, 20])
def test_end_to_end_model_and_preprocessor_have_equal_token_and_character_ids(first):
    preprocessor = encode("char_bilstm_crf_tagger")
    model = zoo.tasks.end_to_end(network("char_bilstm_crf_tagger", preprocessor), preprocessor)
    some = STRANGE.take(range(first, len(STRANGE)))
    ((expected,),) = preprocessor.batches(some, targets=False, shuffle=False, batch_size=99)
    order = np.argsort(some.lengths, kind="stable")
    sentences = tf.constant(strings(some.take(order).sequences))
    for name in ("token", "character"):
        numbers = keras.Model(model.input, model.get_layer(f"{name}_ids").output)(sentences)
        np.testing.assert_array_equal(numbers, expected[f"{name}s"])
    assert expected["characters"].shape[2] == MAX_CHARACTERS  # some words are truncated


def test_long_words_are_truncated_to_their_first_characters():
    preprocessor = encode("char_bilstm_crf_tagger")
    plain = network("char_bilstm_crf_tagger", preprocessor)
    spell = keras.Model(plain.input, plain.get_layer("spelling").output)
    start = "東京" * (MAX_CHARACTERS // 2)
    words = [start + end for end in ("", "a", "jazz" * 30)] + ["é" + start[1:]]
    (x,) = preprocessor.batches(LabeledSequences([words]), targets=False)[0]
    assert x["characters"].shape == (1, 4, MAX_CHARACTERS)
    vectors = np.asarray(spell([x["tokens"], x["characters"]]))[0]
    np.testing.assert_array_equal(vectors[1], vectors[0])
    np.testing.assert_array_equal(vectors[2], vectors[0])
    assert not np.allclose(vectors[3], vectors[0])


@every_entry
def test_model_file_restores_the_end_to_end_model(name, tmp_path):
    preprocessor = encode(name)
    model = zoo.tasks.end_to_end(network(name, preprocessor), preprocessor)
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    assert predict_strings(loaded, STRANGE.sequences) == predict_strings(model, STRANGE.sequences)
    assert preprocessor_of(loaded) == preprocessor == preprocessor_of(model)
    assert type(loaded.get_layer("inner_model")) is type(model.get_layer("inner_model"))
    again = zoo.tasks.end_to_end(loaded.get_layer("inner_model"), preprocessor)
    assert predict_strings(again, STRANGE.sequences) == predict_strings(model, STRANGE.sequences)


READINGS = LabeledSequences(
    [np.random.default_rng(row).normal(size=(1 + row, 2)) for row in range(9)],
    labels=["up", "down", "up"] * 3,
    tags=[["in", "out"][row % 2 :][:1] * (1 + row) for row in range(9)],
)


@pytest.mark.parametrize(("name", "target"), [("gru_tagger", "tags"), ("gru_classifier", "labels")])
def test_end_to_end_models_of_readings_output_tags_or_labels(name, target, tmp_path):
    preprocessor = SequencePreprocessor.from_data(READINGS, target=target)
    plain = zoo.get(name, units=4, **preprocessor.model_arguments())
    zoo.adapt(plain, np.concatenate(READINGS.sequences)[None])
    model = zoo.tasks.end_to_end(plain, preprocessor)
    batches = preprocessor.batches(READINGS, targets=False, batch_size=9, shuffle=False)
    found = decode_bytes(model.predict(batches[0][0], verbose=0)[target])
    if target == "tags":
        found = [[tag for tag in tags if tag] for tags in found]
    assert found == preprocessor.decode(predict_batches(plain, batches))
    model.save(tmp_path / "model.keras")
    assert preprocessor_of(zoo.load(tmp_path / "model.keras")) == preprocessor


def test_end_to_end_rejects_a_model_with_another_number_of_classes():
    preprocessor = encode("gru_tagger")
    model = zoo.get("gru_tagger", vocabulary_size=len(preprocessor.tokens), classes=9)
    with pytest.raises(ArgumentError, match="one of 9 classes"):
        zoo.tasks.end_to_end(model, preprocessor)
    with pytest.raises(ArgumentError, match="must be an end-to-end model"):
        preprocessor_of(model)


def test_end_to_end_rejects_a_crf_with_another_number_of_classes():
    preprocessor = encode("bilstm_crf_tagger")
    model = zoo.get("bilstm_crf_tagger", vocabulary_size=len(preprocessor.tokens), classes=9)
    with pytest.raises(ArgumentError, match="one of 9 classes"):
        zoo.tasks.end_to_end(model, preprocessor)


SERVE = """
import sys
sys.modules["keras"] = sys.modules["keras_seqzoo"] = None
import json, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
found = [model.serve(tf.constant(one))["tags"].numpy().tolist() for one in json.load(sys.stdin)]
print(json.dumps([[[tag.decode() for tag in row] for row in one] for one in found]))
"""


def test_artifact_predicts_from_sentences_without_keras(tmp_path):
    name = "char_bilstm_crf_tagger"
    preprocessor = encode(name)
    model = zoo.tasks.end_to_end(network(name, preprocessor), preprocessor)
    zoo.export(model, tmp_path / "served", verify=False)
    batches = [
        strings(STRANGE.sequences).tolist(),
        ["", "play  jazz now", "東京 " + "y" * 50],
        ["never-seen-before"],
        [""],
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVE, str(tmp_path / "served")],
        input=json.dumps(batches), env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for batch, served in zip(batches, json.loads(done.stdout), strict=True):
        expected = model.predict(np.array(batch, object), verbose=0)["tags"]
        assert served == decode_bytes(expected)


# ------------------------------------------------------------------------------------------ batches


def sequences(lengths, offset: int = 1) -> list[np.ndarray]:
    """Sequences whose values identify their row: row r is filled with r + offset."""
    return [np.full(length, row + offset, np.int32) for row, length in enumerate(lengths)]


def rows_of(batches: Batches) -> list[list[int]]:
    """The rows of each batch, recovered from its values."""
    return [(batches[index][0].max(axis=1) - 1).tolist() for index in range(len(batches))]


@CHECKS
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    seed=st.integers(0, 3),
    multiple=st.integers(1, 8),
)
def test_every_epoch_contains_every_sequence_once(lengths, batch_size, shuffle, seed, multiple):
    batches = Batches(
        sequences(lengths), list(range(len(lengths))), weights=sequences(lengths, 0),
        batch_size=batch_size, shuffle=shuffle, seed=seed, pad_to_multiple_of=multiple,
    )  # fmt: skip
    for _ in range(3):
        found = rows_of(batches)
        assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
        assert len(found) == len(batches) == -(-len(lengths) // batch_size)
        for index, rows in enumerate(found):
            x, y, weights = batches[index]
            equal = len(set(lengths)) == 1  # equal lengths are not padded
            assert x.shape[1] == lengths[0] if equal else x.shape[1] % multiple == 0
            np.testing.assert_array_equal(y, rows)
            for row, values, weight in zip(rows, x, weights, strict=True):
                np.testing.assert_array_equal(values[: lengths[row]], row + 1)
                assert not values[lengths[row] :].any()
                assert not weight[lengths[row] :].any()
        if len(found) > 1 and len(set(lengths)) > 1:  # Keras makes an equal size static
            assert batches[0][0].shape[1] != batches[1][0].shape[1]
        batches.on_epoch_end()


def test_order_differs_between_epochs_and_is_determined_by_the_seed():
    lengths = np.random.default_rng(0).integers(1, 50, 200)

    def epochs(seed, shuffle=True):
        batches = Batches(sequences(lengths), batch_size=8, seed=seed, shuffle=shuffle)
        found = []
        for _ in range(3):
            found.append(rows_of(batches))
            batches.on_epoch_end()
        return found

    first, second, third = epochs(0)
    assert first != second != third != first
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))  # batches have other rows
    assert epochs(0) == [first, second, third]
    assert epochs(1)[0] != first
    unshuffled = epochs(0, shuffle=False)
    assert unshuffled[0] == unshuffled[1] == epochs(5, shuffle=False)[0]
    inside = [lengths[row] for rows in unshuffled[0] for row in rows]
    assert inside == sorted(inside)


def test_batches_contain_sequences_of_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    batches = Batches(sequences(lengths), batch_size=20)
    padded = sum(batches[index][0].size for index in range(len(batches)))
    assert padded < 1.1 * lengths.sum()
    assert Batches(sequences(lengths), batch_size=2000)[0][0].size > 1.8 * lengths.sum()


class Traces(keras.layers.Layer):
    """Counts how often Keras traces the Python code: once for each compiled program."""

    def __init__(self):
        super().__init__(name="traces")
        self.count = 0

    def call(self, inputs):
        self.count += 1
        return inputs


def build(name: str, preprocessor: SequencePreprocessor, **arguments) -> keras.Model:
    """A model of an entry for the classes of a preprocessor."""
    return task_for(name).bound(preprocessor=preprocessor).build(**arguments)


def traced_model(preprocessor: SequencePreprocessor) -> tuple[keras.Model, Traces]:
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    traces = Traces()
    x = keras.layers.Embedding(len(preprocessor.tokens), 3)(traces(inputs))
    model = keras.Model(inputs, keras.layers.Dense(len(preprocessor.classes), "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, traces


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_training_is_not_retraced_for_other_lengths_and_epochs(batch_size):
    text = texts(41, KNOWN, longest=20)
    preprocessor = encode("gru_tagger", text)
    model, traces = traced_model(preprocessor)
    batches = preprocessor.batches(text, batch_size=batch_size)
    model.fit(batches, epochs=1, verbose=0)
    after_one = traces.count
    model.fit(batches, epochs=4, verbose=0)
    assert traces.count == after_one <= 4


def test_first_batches_of_equal_size_cause_errors_or_retracing():
    """The reason to pad the second batch further: otherwise Keras raises an error or retraces."""
    text = texts(41, KNOWN, longest=20)
    preprocessor = encode("gru_tagger", text)
    model, traces = traced_model(preprocessor)
    batches = preprocessor.batches(text, batch_size=1, shuffle=False)
    batches._varies = {name: varies & False for name, varies in batches._varies.items()}
    try:
        model.fit(batches, epochs=1, verbose=0)
    except Exception as error:
        assert "shape" in str(error)
        return
    assert traces.count > 4


@every_entry
@pytest.mark.slow
def test_entries_train_on_sequences_of_different_lengths(name):
    preprocessor = encode(name, STRANGE)
    model = network(name, preprocessor)
    loss = None if "crf" in name else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.02), loss)
    losses = model.fit(
        preprocessor.batches(STRANGE, batch_size=5, class_weight="balanced"), epochs=5, verbose=0
    ).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "words"),
    [
        ([], None, {}, "at least one sequence"),
        ([[1, 2]], [0, 1], {}, "one per sequence, 1 in all"),
        ([[1, 2]], [[0]], {}, "1 for the 2 steps of sequence 0"),
        ({"a": [[1]], "b": [[1, 2]]}, None, {}, "2 for the 1 steps"),
        ([[1]], None, {"batch_size": 0}, "`batch_size`"),
        ([[1]], None, {"pad_to_multiple_of": 0}, "`pad_to_multiple_of`"),
        ([[1]], None, {"seed": -1}, "`seed`"),
        ([[1]], None, {"shuffle": 1}, "`shuffle`"),
        ([[1], [2]], [[1], 2], {}, "`targets` must be arrays of numbers"),
        ([[1]], [[None]], {}, "`targets` must be arrays of numbers"),
    ],
)
def test_batches_reject_invalid_arguments(inputs, targets, options, words):
    with pytest.raises((ArgumentError, DataError), match=words):
        Batches(inputs, targets, **options)


# ----------------------------------------------------------------------------- preprocessor


def test_preprocessor_determines_classes_vocabularies_and_model_arguments():
    text = LabeledSequences(
        [["play", "jazz"], ["stop"]], labels=["P", "S"], tags=[["O", "B-g"], ["O"]]
    )
    preprocessor = SequencePreprocessor.from_data(text, target="tags", characters=True)
    assert preprocessor.classes == ("B-g", "O")
    assert set(preprocessor.characters.tokens) == set("playjazzstop")
    assert preprocessor.model_arguments() == {
        "classes": 2, "vocabulary_size": 5, "character_vocabulary_size": 11,
    }  # fmt: skip
    arguments = SequencePreprocessor.from_data(READINGS, target="labels").model_arguments()
    assert np.isnan(arguments.pop("mask_value"))
    assert arguments == {"classes": 2, "features": 2}


@pytest.mark.parametrize(
    ("examples", "options", "words"),
    [
        (TEXT, {}, "labels, tags"),
        (TEXT, {"target": "words"}, "labels, tags"),
        (LabeledSequences([["a"]]), {}, "without any cannot be learned"),
        (
            LabeledSequences([["a"]], labels=["x"]),
            {"target": "tags"},
            "what the examples have: labels",
        ),
        (READINGS, {"target": "tags", "characters": True}, "False for readings"),
    ],
)
def test_preprocessor_from_data_rejects_invalid_targets_and_options(examples, options, words):
    with pytest.raises(ArgumentError, match=words):
        SequencePreprocessor.from_data(examples, **options)


def test_preprocessor_rejects_sequences_of_another_kind():
    of_text, of_readings = (
        encode("gru_tagger"),
        SequencePreprocessor.from_data(READINGS, target="tags"),
    )
    for preprocessor, examples in ((of_text, READINGS), (of_readings, TEXT)):
        with pytest.raises(DataError, match="must be sequences of"):
            preprocessor.batches(examples)
    with pytest.raises(DataError, match="must have tags"):
        of_text.batches(LabeledSequences([["a"]]))
    with pytest.raises(ArgumentError, match="and not both"):
        SequencePreprocessor("tags", ("a",))


# ------------------------------------------------------------------------------------ class weights

OTHER = LabeledSequences(
    [["play", "jazz", "a"], ["stop"], ["don't", "play"]],
    labels=["Play", "Stop", "Sing"],
    tags=[["O", "B-genre", "O"], ["B-new"], ["O", "I-genre"]],
)


def weights_by_hand(given, names: list[str], classes) -> list[float]:
    """The class weight of each label; 0 for labels that are not classes of the preprocessor."""
    known = [name for name in names if name in classes]
    if given == "balanced":
        share = {name: len(known) / len(set(known)) / known.count(name) for name in known}
    else:
        share = {name: 1.0 for name in classes} | (given or {})
    return [share.get(name, 0.0) for name in names]


@pytest.mark.parametrize("kind", ["none", "dict", "balanced"])
@pytest.mark.parametrize(
    "name", ["gru_tagger", "bilstm_crf_tagger", "char_bilstm_crf_tagger", "simple_rnn_classifier"]
)
@pytest.mark.slow
def test_class_weights_multiply_the_loss(name, kind):
    preprocessor = encode(name)
    model = network(name, preprocessor)
    per_step = preprocessor.target == "tags"
    given = {"O": 0.25, "B-genre": 3.0} if per_step else {"Play": 0.25, "Stop": 3.0}
    given = {"none": None, "dict": given, "balanced": "balanced"}[kind]
    names = [tag for tags in OTHER.tags for tag in tags] if per_step else OTHER.labels
    weights = np.array(weights_by_hand(given, list(names), preprocessor.classes))
    assert (weights == 0).sum() == 1

    # The loss of each step or row, from the same batch with all other weights 0.
    (batch,) = preprocessor.batches(OTHER, shuffle=False, class_weight=given)
    x, y, given_weights = batch
    loss = None if "crf" in name else keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", loss)
    order = np.argsort(OTHER.lengths, kind="stable")
    places = [
        (row, step) if per_step else (row,)
        for row in np.argsort(order)
        for step in range(OTHER.lengths[order[row]] if per_step else 1)
    ]
    losses = np.zeros(len(places))
    for index, place in enumerate(places):
        alone = np.zeros_like(given_weights)
        alone[place] = 1
        losses[index] = model.test_on_batch(x, y, sample_weight=alone)
    found = model.test_on_batch(x, y, sample_weight=given_weights)
    np.testing.assert_allclose(found, (weights * losses).sum(), rtol=1e-5)
    if name == "gru_tagger":  # and the loss itself, from the probabilities
        chances = model.predict(x, verbose=0)
        by_hand = [-np.log(chances[place][y[place]]) / len(places) for place in places]
        np.testing.assert_allclose(losses, by_hand, rtol=1e-5)


def test_batches_have_sample_weights_only_for_class_weights_or_unknown_tags():
    preprocessor = encode("gru_tagger")
    assert len(preprocessor.batches(TEXT)[0]) == 2
    assert len(preprocessor.batches(TEXT, class_weight={})[0]) == 3
    assert len(preprocessor.batches(OTHER)[0]) == 3
    assert len(preprocessor.batches(OTHER, targets=False)[0]) == 1


@pytest.mark.parametrize(
    "weights", ["even", 5, {"B-nothing": 1.0}, {"O": -1.0}, {"O": "much"}, {"O": float("nan")}]
)
def test_invalid_class_weights_are_rejected(weights):
    with pytest.raises(ArgumentError, match="`class_weight`"):
        encode("gru_tagger").batches(TEXT, class_weight=weights)


# ------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("name", ["char_bilstm_crf_tagger", "gru_tagger", "simple_rnn_classifier"])
@pytest.mark.slow
def test_logged_metrics_equal_the_scores_of_the_predictions(name):
    preprocessor = encode(name)
    model = network(name, preprocessor)
    model.compile("adam", None if "crf" in name else "sparse_categorical_crossentropy")
    scored = zoo.callbacks.SequenceMetrics(preprocessor, STRANGE, batch_size=4)
    history = model.fit(preprocessor.batches(TEXT), epochs=2, verbose=0, callbacks=[scored]).history
    predicted = predict_and_decode(model, preprocessor, STRANGE)
    if preprocessor.target == "tags":
        scores = zoo.metrics.tagging_scores(STRANGE.tags, predicted)
        assert scores.level == "entity"
    else:
        scores = zoo.metrics.classification_scores(STRANGE.labels, predicted)
    for figure in ("f1", "precision", "recall", "accuracy"):
        assert history[f"val_{figure}"][-1] == getattr(scores, figure)
        assert len(history[f"val_{figure}"]) == 2
        assert getattr(scored.scores, figure) == getattr(scores, figure)
    assert 0 < scores.accuracy < 1


def test_early_stopping_monitors_the_scores():
    preprocessor = encode("gru_tagger")
    model = network("gru_tagger", preprocessor)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    stopping = keras.callbacks.EarlyStopping("val_f1", mode="max", patience=2)
    history = model.fit(
        preprocessor.batches(TEXT), epochs=9, verbose=0,
        callbacks=[zoo.callbacks.SequenceMetrics(preprocessor, TEXT), stopping],
    )  # fmt: skip
    assert len(history.epoch) == 3  # no improvement, and no warning of a missing metric


# ---------------------------------------------------------------------------------------- training

# A token has one tag in any context; sentences labeled "Stop" contain "stop".
TAG_OF_TOKEN = {
    "play": "O",
    "some": "O",
    "stop": "O",
    "jazz": "B-genre",
    "blues": "B-genre",
    "Miles": "B-artist",
    "Davis": "I-artist",
}


def learnable(count: int, seed: int = 0) -> LabeledSequences:
    rng = np.random.default_rng(seed)
    sentences = []
    for row in range(count):
        words = [str(word) for word in rng.choice(["play", "some", "jazz", "blues"], 1 + row % 6)]
        if row % 3 == 0:
            words += ["Miles", "Davis"]
        sentences.append([*words, "stop"] if row % 2 else words)
    return LabeledSequences(
        sentences,
        labels=["Stop" if "stop" in words else "Play" for words in sentences],
        tags=[[TAG_OF_TOKEN[word] for word in words] for words in sentences],
    )


QUICK = {"epochs": 4, "batch_size": 8, "units": 8, "embedding_dim": 8, "verbose": 0}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru_classifier", {}),
        ("gru_tagger", {}),
        ("char_bilstm_crf_tagger", {"character_units": 4, "dropout": 0.0, "input_dropout": 0.0}),
    ],
)
@pytest.mark.slow
def test_training_returns_an_accurate_end_to_end_model(name, options):
    text, unseen = learnable(60), learnable(30, seed=1)
    options = QUICK | options | {"learning_rate": 0.05, "epochs": 8}
    trained = zoo.train(name, text, validation_data=unseen, **options)
    assert trained.scores.f1 > 0.9
    assert trained.scores.f1 == max(trained.history["val_f1"]) or name == "gru_classifier"
    assert {"loss", "val_f1", "val_accuracy", "learning_rate"} <= set(trained.history.columns)
    assert trained.history.index.name == "epoch"
    assert len(trained.history) <= 8
    assert trained.seconds > 0
    assert preprocessor_of(trained.model) == trained.preprocessor
    predicted = predict_strings(trained.model, unseen.sequences)
    assert predicted == predict_and_decode(trained.inner_model, trained.preprocessor, unseen)
    true = unseen.labels if "classifier" in name else unseen.tags
    score = (
        zoo.metrics.classification_scores if "classifier" in name else zoo.metrics.tagging_scores
    )
    assert score(true, predicted).f1 == trained.scores.f1


@pytest.mark.slow
def test_training_is_determined_by_the_seed():
    text = learnable(40)
    before = iter(range(9))
    options = QUICK | {"epochs": 2, "dropout": 0.3, "word_dropout": 0.2, "class_weight": "balanced"}

    def run(seed):
        keras.utils.set_random_seed(next(before))  # the global seed has no effect
        return zoo.train("gru_tagger", text, seed=seed, **options)

    first, again, other = run(3), run(3), run(4)
    assert first.history.equals(again.history)
    assert first.scores.f1 == again.scores.f1
    for one, same in zip(
        first.inner_model.get_weights(), again.inner_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, same)
    assert not first.history.equals(other.history)


def test_cosine_decay_keeps_the_weights_of_the_last_epoch():
    text, unseen = learnable(40), learnable(20, seed=1)
    options = QUICK | {
        "learning_rate_schedule": "cosine",
        "epochs": 5,
        "learning_rate": 0.05,
        "patience": 1,
    }
    trained = zoo.train("gru_classifier", text, validation_data=unseen, **options)
    assert len(trained.history) == 5
    assert trained.history["val_accuracy"].iloc[-1] == trained.scores.accuracy
    rates = trained.history["loss"].diff().abs()
    assert rates.iloc[-1] < rates.max()  # the last steps are small
    alone = zoo.train("gru_classifier", text, validation_data=None, validation_split=0, **options)
    for one, other in zip(
        trained.inner_model.get_weights(), alone.inner_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ArgumentError, match="`learning_rate_schedule`"):
        zoo.train(
            "gru_classifier",
            text,
            validation_data=None,
            **options | {"validation_split": 0, "learning_rate_schedule": "plateau"},
        )


def test_training_on_readings_adapts_the_scaling():
    trained = zoo.train(
        "gru_classifier", READINGS, validation_data=READINGS, epochs=2, units=4, verbose=0
    )
    steps = np.concatenate(READINGS.sequences)
    scale = trained.inner_model.get_layer("scale")
    np.testing.assert_allclose(scale.get_weights()[0], steps.mean(axis=0), rtol=1e-5)
    batch = trained.preprocessor.batches(READINGS, targets=False, shuffle=False)[0][0]
    labels = trained.model.predict(batch, verbose=0)["labels"]
    assert set(decode_bytes(labels)) <= {"up", "down"}


def test_bio_tags_constrain_the_crf():
    text = learnable(24)
    preprocessor = encode("bilstm_crf_tagger", text)
    crf = build("bilstm_crf_tagger", preprocessor, **SMALL).get_layer("crf")
    known = bio_constraints(list(preprocessor.classes))
    assert {name: getattr(crf, name) for name in known} == known
    assert not crf.allowed[preprocessor.classes.index("O")][preprocessor.classes.index("I-artist")]
    plain = LabeledSequences(text.sequences, tags=[[tag[:1] for tag in tags] for tags in text.tags])
    crf = build("bilstm_crf_tagger", encode("bilstm_crf_tagger", plain), **SMALL).get_layer("crf")
    assert crf.allowed is None
    crf = build("bilstm_crf_tagger", preprocessor, constraints=None, **SMALL).get_layer("crf")
    assert crf.allowed is None
    build("gru_tagger", preprocessor, **SMALL)  # has no argument `constraints`


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("simple_rnn_identity", {}, ArgumentError, "TimeSeries for the task 'identity'"),
        ("gru_forecaster", {}, ArgumentError, "TimeSeries for the task 'forecasting'"),
        ("gru_tager", {}, UnknownNameError, "Did you mean 'gru_tagger'"),
        ("gru_tagger", {"unit": 8}, UnknownArgumentError, "Did you mean 'units'"),
        ("gru_tagger", {"epochs": 0}, ArgumentError, "`epochs`"),
        ("gru_tagger", {"batch_size": 2.5}, ArgumentError, "`batch_size`"),
        ("gru_tagger", {"patience": -1}, ArgumentError, "`patience`"),
        ("gru_tagger", {"min_count": 0}, ArgumentError, "`min_count`"),
        (
            "gru_tagger",
            {"learning_rate_schedule": "linear"},
            ArgumentError,
            "`learning_rate_schedule`",
        ),
        ("gru_tagger", {"seed": -1}, ArgumentError, "`seed`"),
        ("gru_tagger", {"learning_rate": 0}, ArgumentError, "`learning_rate`"),
        ("gru_tagger", {"learning_rate": "fast"}, ArgumentError, "`learning_rate`"),
        ("gru_tagger", {"verbose": np.zeros(0)}, ArgumentError, "`verbose`"),
        ("gru_tagger", {"class_weight": {"B-x": 1}}, ArgumentError, "`class_weight`"),
        ("gru_tagger", {"units": 0}, ArgumentError, "`units`"),
        ("gru_tagger", {"head": "regression"}, ArgumentError, "head='regression'"),
    ],
)
def test_train_rejects_invalid_entries_and_options(name, options, error, words):
    with pytest.raises(error, match=words):
        zoo.train(name, TEXT, validation_data=TEXT, **options)


def test_learning_rate_may_be_an_int():
    trained = zoo.train("gru_tagger", TEXT, validation_data=TEXT, learning_rate=1, **QUICK)
    assert float(np.asarray(trained.inner_model.optimizer.learning_rate)) == 1.0


def test_entry_without_a_search_space_trains_with_the_default_learning_rate():
    zoo.register("mine", models.sequence_tagger, task="tagging", summary="Mine.", inputs="tokens",
                 outputs="probabilities", causal=True, defaults={"units": 3})  # fmt: skip
    trained = zoo.train("mine", TEXT, validation_data=TEXT, **QUICK)
    np.testing.assert_allclose(np.asarray(trained.inner_model.optimizer.learning_rate), 1e-3)


def test_train_rejects_data_without_the_target_or_of_another_kind():
    labeled = LabeledSequences([["a"], ["b"]], labels=["x", "y"])
    with pytest.raises(ArgumentError, match="`target`"):
        zoo.train("gru_tagger", labeled, validation_data=labeled)
    with pytest.raises(DataError, match="must be sequences of tokens"):
        zoo.train("gru_tagger", TEXT, validation_data=READINGS, **QUICK)


def test_sequence_metrics_reject_validation_data_without_tags():
    with pytest.raises(DataError, match="must have tags"):
        zoo.callbacks.SequenceMetrics(encode("gru_tagger"), LabeledSequences([["a"]], labels=["x"]))
