"""Scores of predicted labels and tags against hand-computed values, seqeval and invariances."""

import itertools
import json
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from seqeval import scheme as seqeval_schemes
from seqeval.metrics import classification_report

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.metrics import LabelScores, classification_scores, tagging_scores

pytestmark = pytest.mark.tensorflow

CHECKS = settings(max_examples=150, deadline=None, derandomize=True, database=None)

BIO = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "LOC", "a-b"))]
BIOES = [*BIO, *(f"{prefix}-{kind}" for prefix in "ES" for kind in ("PER", "LOC", "a-b"))]
POS_TAGS = ["DET", "NOUN", "VERB", "X", "O"]

COLUMNS = ["precision", "recall", "f1", "support"]


def tag_pairs(tags):
    """True and predicted tags of the same shape."""
    steps = st.lists(st.tuples(st.sampled_from(tags), st.sampled_from(tags)), max_size=9)
    return st.lists(steps, min_size=1, max_size=6).filter(any).map(unzip)


def unzip(sentences):
    return tuple([[step[side] for step in steps] for steps in sentences] for side in (0, 1))


def flatten(sentences):
    return [tag for tags in sentences for tag in tags]


def has_entities(*sides):
    return any(tag[:2] in ("B-", "I-") for side in sides for tag in flatten(side))


def check_against_seqeval(scores, true, predicted, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval averages over no entities
        report = classification_report(
            true, predicted, output_dict=True, zero_division=0, **options
        )
    micro = report.pop("micro avg")
    del report["macro avg"], report["weighted avg"]
    assert list(scores.table.index) == list(report)
    keys = ["precision", "recall", "f1-score", "support"]
    expected = np.array([[row[key] for key in keys] for row in report.values()]).reshape(-1, 4)
    np.testing.assert_allclose(scores.table.to_numpy(), expected, rtol=1e-12)
    figures = [scores.precision, scores.recall, scores.f1]
    np.testing.assert_allclose(figures, [micro[key] for key in keys[:3]], rtol=1e-12)


def test_entity_scores_match_hand_computed_values():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC", "O", "B-ORG"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "I-LOC", "I-LOC", "O", "O"]]
    scores = tagging_scores(true, predicted)
    # True: PER, LOC, LOC, ORG. Predicted: PER, LOC, and a LOC that is one step too long.
    assert scores.level == "entity"
    np.testing.assert_allclose([scores.precision, scores.recall, scores.f1], [2 / 3, 1 / 2, 4 / 7])
    np.testing.assert_allclose(scores.accuracy, 6 / 9)
    assert scores.count == 9
    assert list(scores.table.columns) == COLUMNS
    assert scores.table.index.name == "class"
    np.testing.assert_allclose(scores.table.loc["LOC"], [0.5, 0.5, 0.5, 2])
    np.testing.assert_allclose(scores.table.loc["ORG"], [0, 0, 0, 1])
    np.testing.assert_allclose(scores.table.loc["PER"], [1, 1, 1, 1])
    assert scores.confusion.loc["B-LOC", "I-LOC"] == 1
    assert scores.confusion.loc["I-LOC", "B-LOC"] == 0
    tags = ["O", "B-LOC", "I-LOC", "B-ORG", "B-PER", "I-PER"]  # grouped by entity type
    assert list(scores.confusion.index) == list(scores.confusion.columns) == tags


def test_tags_without_prefixes_are_scored_as_classes_of_steps():
    true = [["DET", "NOUN"], ["VERB", "NOUN"]]
    predicted = [["DET", "VERB"], ["VERB", "NOUN"]]
    scores = tagging_scores(true, predicted)
    assert scores.level == "step"
    expected = [[1, 1, 1, 1], [1, 0.5, 2 / 3, 2], [0.5, 1, 2 / 3, 1]]
    np.testing.assert_allclose(scores.table.loc[["DET", "NOUN", "VERB"]], expected)
    figures = [scores.precision, scores.recall, scores.f1, scores.accuracy]
    np.testing.assert_allclose(figures, [5 / 6, 5 / 6, 7 / 9, 3 / 4])


def test_classification_scores_match_hand_computed_values():
    scores = classification_scores(["a", "a", "b", "b"], ["a", "b", "b", "c"])
    assert scores.level == "sequence"
    assert scores.count == 4
    expected = [[1, 0.5, 2 / 3, 2], [0.5, 0.5, 0.5, 2], [0, 0, 0, 0]]
    np.testing.assert_allclose(scores.table.loc[["a", "b", "c"]], expected)
    figures = [scores.precision, scores.recall, scores.f1, scores.accuracy]
    np.testing.assert_allclose(figures, [0.5, 1 / 3, 7 / 18, 0.5])
    np.testing.assert_array_equal(scores.confusion, [[1, 1, 0], [0, 1, 1], [0, 0, 0]])


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(BIOES))
def test_lenient_entity_scores_equal_seqeval(sides):
    assume(has_entities(*sides))
    check_against_seqeval(tagging_scores(*sides), *sides)


@CHECKS
@given(tag_pairs(BIO))
def test_strict_bio_scores_equal_seqeval(sides):
    for scheme in ("BIO", "IOB2"):
        scores = tagging_scores(*sides, scheme=scheme)
        check_against_seqeval(scores, *sides, mode="strict", scheme=seqeval_schemes.IOB2)


@CHECKS
@given(tag_pairs(BIOES))
def test_strict_bioes_and_bilou_scores_equal_seqeval(sides):
    scores = tagging_scores(*sides, scheme="BIOES")
    check_against_seqeval(scores, *sides, mode="strict", scheme=seqeval_schemes.IOBES)
    letters = {"E": "L", "S": "U"}
    bilou = [[[letters.get(t[0], t[0]) + t[1:] for t in tags] for tags in side] for side in sides]
    pd.testing.assert_frame_equal(tagging_scores(*bilou, scheme="BILOU").table, scores.table)
    if has_entities(*sides):
        lenient = tagging_scores(*bilou)
        pd.testing.assert_frame_equal(lenient.table, tagging_scores(*sides).table)


def test_scheme_decides_which_entities_are_well_formed():
    tags = [["I-PER", "I-PER", "O"]]  # no "B-"
    assert tagging_scores(tags, tags).f1 == 1
    assert tagging_scores(tags, tags, scheme="BIO").table.empty
    assert tagging_scores(tags, tags, scheme="IOE2").table.empty


def test_tags_without_prefixes_are_outside_entities_without_warnings():
    true = [["B-PER", "[UNK]", "OTHER", "."]]
    for scheme in (None, "BIO"):
        scores = tagging_scores(true, true, scheme=scheme)
        assert list(scores.table.index) == ["PER"]
        assert scores.f1 == 1
    assert tagging_scores(true, [["B-PER", "O", "O", "O"]]).accuracy == 0.25


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(POS_TAGS))
def test_perfect_predictions_have_scores_of_one(sides):
    true = sides[0]
    scores = tagging_scores(true, [list(tags) for tags in true])
    assert [scores.accuracy, scores.precision, scores.recall, scores.f1] == [1, 1, 1, 1]
    np.testing.assert_array_equal(scores.table[COLUMNS[:3]], 1)
    labels = classification_scores(flatten(true), flatten(true))
    assert [labels.accuracy, labels.precision, labels.recall, labels.f1] == [1, 1, 1, 1]


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(POS_TAGS), st.randoms())
def test_scores_do_not_depend_on_the_order_of_sentences(sides, random):
    order = list(range(len(sides[0])))
    random.shuffle(order)
    shuffled = [[side[index] for index in order] for side in sides]
    assert tagging_scores(*shuffled).to_dict() == tagging_scores(*sides).to_dict()


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(POS_TAGS))
def test_confusion_matrix_counts_every_step_once(sides):
    scores = tagging_scores(*sides)
    counts = scores.confusion.to_numpy()
    true, predicted = map(flatten, sides)
    assert scores.count == counts.sum() == len(true)
    assert scores.accuracy == np.trace(counts) / counts.sum()
    for tag in scores.confusion.index:
        assert scores.confusion.loc[tag].sum() == true.count(tag)
        assert scores.confusion[tag].sum() == predicted.count(tag)
    if scores.level == "step":
        assert list(scores.table.index) == list(scores.confusion.index)
        np.testing.assert_array_equal(scores.table["support"], counts.sum(axis=1))


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(POS_TAGS))
def test_swapping_true_and_predicted_swaps_precision_and_recall(sides):
    scores, swapped = tagging_scores(*sides), tagging_scores(*reversed(sides))
    np.testing.assert_allclose([scores.precision, scores.f1], [swapped.recall, swapped.f1])
    np.testing.assert_array_equal(scores.confusion, swapped.confusion.T)


@CHECKS
@given(tag_pairs(BIO) | tag_pairs(POS_TAGS), st.sampled_from([None, "BIO"]))
def test_scores_are_never_nan_and_serialize_to_json(sides, scheme):
    if scheme:
        sides = [[[t if t in BIO else "O" for t in tags] for tags in side] for side in sides]
    scores = tagging_scores(*sides, scheme=scheme)
    plain = scores.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "nan" not in str(scores).lower()
    assert type(plain["accuracy"]) is type(plain["f1"]) is float


def test_to_dict_and_str_have_all_scores():
    scores = classification_scores(["a", "b"], ["a", "a"])
    assert scores.to_dict() == {
        "accuracy": 0.5,
        "f1": pytest.approx(1 / 3),
        "precision": 0.25,
        "recall": 0.5,
        "table": {
            "a": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
            "b": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        },
        "confusion": {"labels": ["a", "b"], "counts": [[1, 0], [1, 0]]},
        "count": 2,
        "level": "sequence",
    }
    assert "F1 0.333" in str(scores)
    assert "macro over classes" in str(scores)
    assert "over 2 sequences" in str(scores)
    assert "over 1 step." in str(tagging_scores([["DET"]], [["DET"]]))
    assert len(str(scores).splitlines()) == 5
    no_entities = tagging_scores([["O"]], [["O"]], scheme="BIO")
    assert "no entity" in str(no_entities)
    assert no_entities.accuracy == 1
    assert no_entities.f1 == 0
    assert no_entities.table.empty


def test_scores_accept_arrays_tuples_and_series():
    lists = [["B-PER", "O"], ["O", "I-PER"]]
    expected = tagging_scores(lists, lists).to_dict()
    for predicted in (np.array(lists), tuple(map(tuple, lists)), pd.Series(lists), iter(lists)):
        assert tagging_scores(lists, predicted).to_dict() == expected
    labels = pd.Series(["a", "b"], dtype="category")
    assert classification_scores(labels, np.array(["a", "b"])).accuracy == 1


def test_empty_sentences_do_not_change_scores():
    sentences = [["B-PER", "O"]]
    with_empty = tagging_scores([[], *sentences, []], [[], *sentences, []])
    assert with_empty.to_dict() == tagging_scores(sentences, sentences).to_dict()


def test_entities_end_with_their_sentence():
    assert tagging_scores([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]]).table.support["PER"] == 2


def save_figure(axes, path):
    """The texts of the axes, once they are saved as a PNG."""
    axes.figure.savefig(path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    return [text.get_text() for text in axes.texts]


def test_plot_of_two_classes_has_labels_and_cell_values(tmp_path):
    axes = classification_scores(["a", "b", "b", "b"], ["a", "a", "b", "b"]).plot()
    assert save_figure(axes, tmp_path / "two.png") == ["1.00", "0.33", "0.67"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel().split()[0]) == ("predicted", "true")


def test_plot_of_eighty_classes_omits_overlapping_labels(tmp_path):
    labels = [f"$class number {number} of very many" for number in range(80)]
    rng = np.random.default_rng(0)
    axes = classification_scores(labels, rng.permutation(labels)).plot()
    assert save_figure(axes, tmp_path / "eighty.png") == []
    assert len(axes.get_images()[0].get_array()) == 80
    assert 20 <= len(axes.get_yticks()) <= 80
    assert max(len(tick.get_text()) for tick in axes.get_yticklabels()) <= 25
    axes.figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert all(low[1] <= high[0] + 1 for low, high in itertools.pairwise(heights))


def test_plot_normalizes_rows_and_uses_the_given_axes(tmp_path):
    true, predicted = ["O"] * 10_000 + ["B-X"] * 4, ["O"] * 10_001 + ["B-X"] * 3
    axes = Figure().add_subplot()
    assert tagging_scores([true], [predicted]).plot(axes) is axes
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[1, 0], [0.25, 0.75]])
    save_figure(axes, tmp_path / "given.png")


def test_scores_are_immutable():
    scores = classification_scores(["a"], ["a"])
    assert isinstance(scores, LabelScores)
    assert scores == scores  # identity, because tables have no truth value
    with pytest.raises(AttributeError):
        scores.f1 = 1.0


def test_entity_scores_without_seqeval_name_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    monkeypatch.setitem(sys.modules, "seqeval.scheme", None)
    with pytest.raises(ArgumentError, match=r'pip install "keras-seqzoo\[text\]"'):
        tagging_scores([["B-PER"]], [["O"]])
    assert tagging_scores([["NOUN"]], [["NOUN"]]).f1 == 1


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([["a"]], [["a"], ["b"]], r"`len\(predicted\)` must be len\(true\), which is 1.*=2"),
        ([["a"], ["a", "b"]], [["a"], ["a"]], r"`len\(predicted\[1\]\)`.*which is 2.*=1.*padding"),
        ([], [], "at least one sentence"),
        ([[], []], [[], []], "at least one sentence"),
        ([["a"]], [[3]], r"`predicted\[0\]\[0\]` must be a non-empty str.*=3.*Convert class ids"),
        ([["a", None]], [["a", "b"]], r"`true\[0\]\[1\]`"),
        ([["a", float("nan")]], [["a", "b"]], r"`true\[0\]\[1\]`"),
        ([["a", ""]], [["a", "b"]], r"`true\[0\]\[1\]`.*non-empty"),
        ([[b"a"]], [["a"]], "bytes to str"),
        (["B-PER"], ["B-PER"], r"`true\[0\]` must be a list of str"),
        ("B-PER", "B-PER", "list of sentences"),
        (3, [["a"]], "list of sentences"),
        (None, [["a"]], "list of sentences"),
        ([["a"]], np.array(3), "list of sentences"),
        ([["a"]], {"a": 1}, "list of sentences"),
    ],
)
def test_tagging_scores_rejects_invalid_tags(true, predicted, message):
    with pytest.raises(DataError, match=message):
        tagging_scores(true, predicted)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (["a"], ["a", "b"], r"`len\(predicted\)`.*which is 1"),
        ([], [], "at least one label"),
        (["a"], [1], r"`predicted\[0\]`"),
        ([["a"]], [["a"]], r"`true\[0\]`"),
        ("ab", "ab", "`true` must be a list of str"),
    ],
)
def test_classification_scores_rejects_invalid_labels(true, predicted, message):
    with pytest.raises(DataError, match=message):
        classification_scores(true, predicted)


def test_tagging_scores_rejects_invalid_schemes():
    with pytest.raises(ArgumentError, match="'BIOES'"):
        tagging_scores([["B-X"]], [["B-X"]], scheme="IOBE")
    with pytest.raises(DataError, match=r"BIO tags.*'E-X'.*Leave `scheme` out"):
        tagging_scores([["B-X"]], [["E-X"]], scheme="BIO")
