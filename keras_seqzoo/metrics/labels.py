"""How well predicted names agree with true ones: tags of steps, or classes of sequences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.metrics.label_scores import LabelScores
from keras_seqzoo.utils.argument_validation import argument_message, check_choice

# Name of a strict scheme -> its class in seqeval, and the prefixes it knows.
SCHEMES = {
    "BIO": ("IOB2", "BI"),
    "IOB2": ("IOB2", "BI"),
    "IOE2": ("IOE2", "IE"),
    "BIOES": ("IOBES", "BIES"),
    "IOBES": ("IOBES", "BIES"),
    "BILOU": ("BILOU", "BILU"),
}
# seqeval's lenient mode does not know BILOU, whose L and U are the E and S of BIOES.
LENIENT = {"L": "E", "U": "S"}
COUNTS = ["hits", "predicted", "support"]
HINT = "Turn numbers into names with the model's list of classes; decode bytes."


def tagging_scores(
    true: Iterable[Iterable[str]], predicted: Iterable[Iterable[str]], *, scheme: str | None = None
) -> LabelScores:
    """Scores of one tag per step, padding left out: of entities for BIO tags, else of every tag.

    Tags are taken for entity tags if one begins with "B-" or "I-", as in "B-PER": precision, recall
    and F1 are then those of whole entities, type and both ends right, micro averaged as conlleval
    does; a tag without such a prefix is outside of any entity. Other tags, such as parts of speech,
    are classes of steps, macro averaged over all that occur. What divides by zero is 0: without
    any entity, all three are.

    Args:
        true: tag names, one list per sentence.
        predicted: tag names, in the shape of `true`.
        scheme: "BIO", "IOB2", "IOE2", "BIOES", "IOBES" or "BILOU": only entities that are
            well-formed there count, and tags are entity tags whatever they look like. Default: any
            of these, read leniently (an entity may begin with "I-").

    Returns:
        `LabelScores`: accuracy over steps, precision, recall, F1, a table by class, the confusion of
        tags.

    Raises:
        ArgumentError: if `scheme` is unknown, or seqeval is not installed and tags are entity tags.
        DataError: if the two do not have the same shape, are empty, hold anything but names, or
            hold tags that are not of `scheme`.

    Example:

    >>> import keras_seqzoo.diagnostics as diagnostics
    >>> true = [["B-PER", "I-PER", "O"], ["B-LOC", "O"]]
    >>> predicted = [["B-PER", "I-PER", "O"], ["O", "O"]]
    >>> print(diagnostics.tagging_scores(true, predicted))
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
        return _macro("step", confusion)
    table = _entity_table(_entities(true, scheme), _entities(predicted, scheme))
    return _scores("entity", confusion, table, _shares(*(table[name].sum() for name in COUNTS)))


def classification_scores(true: Iterable[str], predicted: Iterable[str]) -> LabelScores:
    """Scores of one class per sequence, macro averaged over all classes that occur.

    What divides by zero is 0, such as the recall of a class that is predicted but never true.

    Args:
        true: class names, one per sequence.
        predicted: class names, in the order of `true`.

    Returns:
        `LabelScores`: accuracy, macro precision, recall and F1, a table by class, the confusion.

    Raises:
        DataError: if the two do not have the same length, are empty or hold anything but names.

    Example:

    >>> import keras_seqzoo.diagnostics as diagnostics
    >>> scores = diagnostics.classification_scores(["up", "up", "down"], ["up", "down", "down"])
    >>> print(scores)
    F1 0.667, precision 0.750, recall 0.750 (macro over classes); accuracy 0.667 over 3 sequences.
    <BLANKLINE>
          precision  recall    f1  support
    down      0.500   1.000 0.667        1
    up        1.000   0.500 0.667        2
    >>> scores.confusion.loc["up", "down"]  # true "up", predicted "down"
    np.int64(1)
    """
    true, predicted = _names("true", true), _names("predicted", predicted)
    _check_length("", true, predicted)
    if not true:
        raise DataError(argument_message("true", "at least one class name", true))
    return _macro("sequence", _confusion(true, predicted))


def _macro(level: str, confusion: pd.DataFrame) -> LabelScores:
    counts = confusion.to_numpy()
    columns = [np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)]
    table = pd.DataFrame(dict(zip(COUNTS, columns, strict=True)), index=list(confusion.index))
    return _scores(level, confusion, table, _shares(*columns).mean(axis=-1))


def _scores(
    level: str, confusion: pd.DataFrame, table: pd.DataFrame, means: np.ndarray
) -> LabelScores:
    precision, recall, f1 = _shares(*(table[name].to_numpy() for name in COUNTS))
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": table["support"]}
    counts = confusion.to_numpy()
    return LabelScores(
        level=level,
        accuracy=float(np.trace(counts) / counts.sum()),
        **dict(zip(("precision", "recall", "f1"), map(float, means), strict=True)),
        table=pd.DataFrame(columns, index=table.index.rename("class")),
        confusion=confusion,
        count=int(counts.sum()),
    )


def _shares(hits, predicted, support) -> np.ndarray:
    """Precision, recall and F1 of counts; 0 where there is nothing to divide by."""
    over = np.array([predicted, support, predicted + support])
    return np.array([hits, hits, 2 * hits]) / np.maximum(over, 1)


def _confusion(true: list[str], predicted: list[str], *, key=None) -> pd.DataFrame:
    names = sorted({*true, *predicted}, key=key)
    code = {name: at for at, name in enumerate(names)}
    pairs = zip(true, predicted, strict=True)
    cells = [code[one] * len(names) + code[other] for one, other in pairs]
    counts = np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), len(names))
    return pd.DataFrame(
        counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted")
    )


def _by_type(tag: str) -> tuple[bool, str, str]:
    """Sorts "O" to the front and the tags of one type together."""
    prefix, _, kind = tag.partition("-")
    return tag != "O", kind, prefix


def _entity_table(true: set[tuple], predicted: set[tuple]) -> pd.DataFrame:
    columns = [Counter(kind for kind, *_ in found) for found in (true & predicted, predicted, true)]
    kinds = sorted(columns[1] | columns[2])
    counts = np.array([[column[kind] for column in columns] for kind in kinds], dtype=int)
    return pd.DataFrame(counts.reshape(-1, 3), index=kinds, columns=COUNTS)


def _entities(sentences: list[list[str]], scheme: str | None) -> set[tuple]:
    """(type, where it is) of every entity."""
    try:
        from seqeval.metrics.sequence_labeling import get_entities
        from seqeval.scheme import Entities
    except ImportError as error:
        raise ArgumentError(
            "`true` or `predicted` holds entity tags, and scoring them needs seqeval. "
            'Install it with pip install "keras-seqzoo[text]".'
        ) from error
    read = {tag: _read(tag, scheme) for tags in sentences for tag in tags}
    sentences = [[read[tag] for tag in tags] for tags in sentences]
    if scheme is None:
        return set(get_entities(sentences))
    found = Entities(sentences, _strict(scheme)).entities
    return {(one.tag, one.sent_id, one.start, one.end) for entities in found for one in entities}


def _strict(scheme: str) -> type:
    import seqeval.scheme

    return getattr(seqeval.scheme, SCHEMES[scheme][0])


def _read(tag: str, scheme: str | None) -> str:
    """The tag as seqeval is to see it."""
    if not re.match(r"[BIESLU](-|$)", tag):
        return "O"  # of "[UNK]", seqeval would warn, and make an entity
    if scheme is None:
        return LENIENT.get(tag[0], tag[0]) + tag[1:]
    prefixes = SCHEMES[scheme][1]
    if tag[0] not in prefixes:
        expected = f"{scheme} tags, 'O' or a type behind one of {', '.join(prefixes)}"
        raise DataError(argument_message("true, predicted", expected, tag, "Leave `scheme` out."))
    return tag


def _sentences(argument: str, value: Any) -> list[list[str]]:
    sentences = _listed(argument, value, "a list of sentences, each a list of tag names")
    return [_names(f"{argument}[{at}]", tags) for at, tags in enumerate(sentences)]


def _names(argument: str, value: Any) -> list[str]:
    names = _listed(argument, value, "a list of names")
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise DataError(
                argument_message(f"{argument}[{at}]", "a name, a str not empty", name, HINT)
            )
    return [str(name) for name in names]  # NumPy's own strings become plain ones


def _listed(argument: str, value: Any, expected: str) -> list:
    if isinstance(value, (str, bytes, dict, set)):  # these iterate, but not over what is meant
        raise DataError(argument_message(argument, expected, value))
    try:
        return list(value)
    except TypeError:
        raise DataError(argument_message(argument, expected, value)) from None


def _check_lengths(true: list[list[str]], predicted: list[list[str]]) -> None:
    _check_length("", true, predicted)
    for at, (one, other) in enumerate(zip(true, predicted, strict=True)):
        _check_length(f"[{at}]", one, other)


def _check_length(place: str, true: list, predicted: list) -> None:
    if len(true) != len(predicted):
        expected = f"len(true{place}), which is {len(true)}"
        hint = "Leave padding out of both." if place else ""
        raise DataError(argument_message(f"len(predicted{place})", expected, len(predicted), hint))
