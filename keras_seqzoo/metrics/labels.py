"""Accuracy, precision, recall and F1 of predicted tags and labels."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.metrics.label_report import LabelScores
from keras_seqzoo.utils.argument_validation import argument_message, check_choice

# Name of a strict scheme -> its class in seqeval, and its prefixes.
SCHEMES = {
    "BIO": ("IOB2", "BI"),
    "IOB2": ("IOB2", "BI"),
    "IOE2": ("IOE2", "IE"),
    "BIOES": ("IOBES", "BIES"),
    "IOBES": ("IOBES", "BIES"),
    "BILOU": ("BILOU", "BILU"),
}
# seqeval's lenient mode does not support BILOU, whose L and U are the E and S of BIOES.
BILOU_TO_BIOES = {"L": "E", "U": "S"}
COUNTS = ["hits", "predicted", "support"]
HINT = "Convert class ids to labels with the preprocessor's `decode`, and bytes to str."


def tagging_scores(
    true: Iterable[Iterable[str]], predicted: Iterable[Iterable[str]], *, scheme: str | None = None
) -> LabelScores:
    """Scores of one tag per step: of whole entities for BIO-like tags, otherwise of every tag.

    Tags are entity tags if at least one begins with "B-" or "I-", as in "B-PER". Precision, recall
    and F1 then count whole entities with the right type, start and end, micro averaged as in
    conlleval; a tag without a prefix is outside any entity. Other tags, such as parts of speech,
    are classes of steps, macro averaged over the classes that occur. A division by zero gives 0, so
    all three are 0 without entities.

    Args:
        true: tags, one list of str per sentence, without padding.
        predicted: tags, in the shape of `true`.
        scheme: "BIO", "IOB2", "IOE2", "BIOES", "IOBES" or "BILOU": all tags are entity tags, and
            only entities that are well-formed in this scheme count. None detects entity tags of any
            of these schemes leniently (an entity may begin with "I-").

    Returns:
        `LabelScores`: accuracy over steps, precision, recall, F1, a table by class, the confusion
        matrix of tags.

    Raises:
        ArgumentError: if `scheme` is unknown, or seqeval is not installed and tags are entity tags.
        DataError: if the two do not have the same shape, are empty, are not str, or have tags that
            are not in `scheme`.

    Example:

    >>> from keras_seqzoo.metrics import tagging_scores
    >>> true = [["B-PER", "I-PER", "O"], ["B-LOC", "O"]]
    >>> predicted = [["B-PER", "I-PER", "O"], ["O", "O"]]
    >>> print(tagging_scores(true, predicted))
    F1 0.667, precision 1.000, recall 0.500 (micro over entities); accuracy 0.800 over 5 steps.
    <BLANKLINE>
         precision  recall    f1  support
    LOC      0.000   0.000 0.000        1
    PER      1.000   1.000 1.000        1
    """
    if scheme is not None:
        check_choice("scheme", scheme, SCHEMES)
    true, predicted = _sentences("true", true), _sentences("predicted", predicted)
    _check_lengths(true, predicted)
    steps = [tag for tags in true for tag in tags], [tag for tags in predicted for tag in tags]
    if not steps[0]:
        raise DataError(argument_message("true", "at least one sentence with a step", true))
    entities = scheme is not None or any(tag[:2] in ("B-", "I-") for tag in {*steps[0], *steps[1]})
    confusion = _confusion(*steps, key=_by_type if entities else None)
    if not entities:
        return _macro_scores("step", confusion)
    table = _entity_table(_entities(true, scheme), _entities(predicted, scheme))
    micro = _precision_recall_f1(*(table[name].sum() for name in COUNTS))
    return _label_scores("entity", confusion, table, micro)


def classification_scores(true: Iterable[str], predicted: Iterable[str]) -> LabelScores:
    """Scores of one label per sequence, macro averaged over the classes that occur.

    A division by zero gives 0, such as the recall of a class that is predicted but never true.

    Args:
        true: labels, one str per sequence.
        predicted: labels, in the order of `true`.

    Returns:
        `LabelScores`: accuracy, macro precision, recall and F1, a table by class, the confusion
        matrix.

    Raises:
        DataError: if the two do not have the same length, are empty or are not str.

    Example:

    >>> from keras_seqzoo.metrics import classification_scores
    >>> scores = classification_scores(["up", "up", "down"], ["up", "down", "down"])
    >>> print(scores)
    F1 0.667, precision 0.750, recall 0.750 (macro over classes); accuracy 0.667 over 3 sequences.
    <BLANKLINE>
          precision  recall    f1  support
    down      0.500   1.000 0.667        1
    up        1.000   0.500 0.667        2
    >>> scores.confusion.loc["up", "down"]  # true "up", predicted "down"
    np.int64(1)
    """
    true, predicted = _labels("true", true), _labels("predicted", predicted)
    _check_length("", true, predicted)
    if not true:
        raise DataError(argument_message("true", "at least one label", true))
    return _macro_scores("sequence", _confusion(true, predicted))


def _macro_scores(level: str, confusion: pd.DataFrame) -> LabelScores:
    counts = confusion.to_numpy()
    columns = [np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)]
    table = pd.DataFrame(dict(zip(COUNTS, columns, strict=True)), index=list(confusion.index))
    macro = _precision_recall_f1(*columns).mean(axis=-1)
    return _label_scores(level, confusion, table, macro)


def _label_scores(
    level: str, confusion: pd.DataFrame, table: pd.DataFrame, averages: np.ndarray
) -> LabelScores:
    precision, recall, f1 = _precision_recall_f1(*(table[name].to_numpy() for name in COUNTS))
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": table["support"]}
    counts = confusion.to_numpy()
    return LabelScores(
        level=level,
        accuracy=float(np.trace(counts) / counts.sum()),
        **dict(zip(("precision", "recall", "f1"), map(float, averages), strict=True)),
        table=pd.DataFrame(columns, index=table.index.rename("class")),
        confusion=confusion,
        count=int(counts.sum()),
    )


def _precision_recall_f1(hits, predicted, support) -> np.ndarray:
    """Precision, recall and F1 of counts; a division by zero gives 0."""
    denominators = np.array([predicted, support, predicted + support])
    return np.array([hits, hits, 2 * hits]) / np.maximum(denominators, 1)


def _confusion(true: list[str], predicted: list[str], *, key=None) -> pd.DataFrame:
    labels = sorted({*true, *predicted}, key=key)
    size = len(labels)
    ids = {label: index for index, label in enumerate(labels)}
    cells = [ids[row] * size + ids[column] for row, column in zip(true, predicted, strict=True)]
    counts = np.bincount(cells, minlength=size**2).reshape(size, size)
    return pd.DataFrame(
        counts, index=pd.Index(labels, name="true"), columns=pd.Index(labels, name="predicted")
    )


def _by_type(tag: str) -> tuple[bool, str, str]:
    """Sort key: "O" first, and the tags of one entity type together."""
    prefix, _, entity_type = tag.partition("-")
    return tag != "O", entity_type, prefix


def _entity_table(true: set[tuple], predicted: set[tuple]) -> pd.DataFrame:
    entity_sets = (true & predicted, predicted, true)
    columns = [Counter(entity[0] for entity in entities) for entities in entity_sets]
    types = sorted(columns[1] | columns[2])
    counts = np.array([[column[type_] for column in columns] for type_ in types], dtype=int)
    return pd.DataFrame(counts.reshape(-1, 3), index=types, columns=COUNTS)


def _entities(sentences: list[list[str]], scheme: str | None) -> set[tuple]:
    """The type, sentence, start and end of every entity."""
    try:
        from seqeval.metrics.sequence_labeling import get_entities
        from seqeval.scheme import Entities
    except ImportError as error:
        raise ArgumentError(
            "`true` or `predicted` has entity tags, and scoring them needs seqeval. "
            'Install it with pip install "keras-seqzoo[text]".'
        ) from error
    normalized = {tag: _normalized_tag(tag, scheme) for tags in sentences for tag in tags}
    sentences = [[normalized[tag] for tag in tags] for tags in sentences]
    if scheme is None:
        return set(get_entities(sentences))
    entities = itertools.chain(*Entities(sentences, _seqeval_scheme(scheme)).entities)
    return {(entity.tag, entity.sent_id, entity.start, entity.end) for entity in entities}


def _seqeval_scheme(scheme: str) -> type:
    import seqeval.scheme

    return getattr(seqeval.scheme, SCHEMES[scheme][0])


def _normalized_tag(tag: str, scheme: str | None) -> str:
    """The tag in the form that seqeval expects."""
    if not re.match(r"[BIESLU](-|$)", tag):
        return "O"  # seqeval would warn about "[UNK]" and count it as an entity
    if scheme is None:
        return BILOU_TO_BIOES.get(tag[0], tag[0]) + tag[1:]
    prefixes = SCHEMES[scheme][1]
    if tag[0] not in prefixes:
        expected = f"{scheme} tags, 'O' or a type behind one of {', '.join(prefixes)}"
        raise DataError(argument_message("true, predicted", expected, tag, "Leave `scheme` out."))
    return tag


def _sentences(argument: str, value: Any) -> list[list[str]]:
    sentences = _as_list(argument, value, "a list of sentences, each a list of tags")
    return [_labels(f"{argument}[{index}]", tags) for index, tags in enumerate(sentences)]


def _labels(argument: str, value: Any) -> list[str]:
    labels = _as_list(argument, value, "a list of str")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise DataError(
                argument_message(f"{argument}[{index}]", "a non-empty str", label, HINT)
            )
    return [str(label) for label in labels]  # NumPy's strings become plain ones


def _as_list(argument: str, value: Any, expected: str) -> list:
    if isinstance(value, (str, bytes, dict, set)):  # iterable, but not lists of labels
        raise DataError(argument_message(argument, expected, value))
    try:
        return list(value)
    except TypeError:
        raise DataError(argument_message(argument, expected, value)) from None


def _check_lengths(true: list[list[str]], predicted: list[list[str]]) -> None:
    _check_length("", true, predicted)
    for index, (true_tags, predicted_tags) in enumerate(zip(true, predicted, strict=True)):
        _check_length(f"[{index}]", true_tags, predicted_tags)


def _check_length(position: str, true: list, predicted: list) -> None:
    if len(true) != len(predicted):
        expected = f"len(true{position}), which is {len(true)}"
        hint = "Leave padding out of both." if position else ""
        raise DataError(
            argument_message(f"len(predicted{position})", expected, len(predicted), hint)
        )
