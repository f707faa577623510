"""Which tags may follow which, for tagging schemes such as BIO."""

from __future__ import annotations

from typing import Any

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_sequence,
)


def bio_constraints(tag_names: list[str], scheme: str = "BIO") -> dict[str, list]:
    """Which tags may follow which, where tags mark spans, for `LinearChainCRF(n, **constraints)`.

    "BIO": `I-x` only after `B-x` or `I-x`. "BIOES": a span is `B-x`, any number of `I-x` and
    `E-x`, or the single `S-x`, and is always closed.

    Args:
        tag_names: list of str in the order of the tags: "O", "B-x", "I-x", and "E-x" and "S-x" in
            the scheme "BIOES", for any kinds x of spans.
        scheme: "BIO" or "BIOES".

    Returns:
        dict with `allowed`, `allowed_start` and `allowed_end`, lists of bool.

    Raises:
        ArgumentError: if a name is none of these or comes twice, or the scheme is neither.

    Example:

    >>> from keras_seqzoo.layers import bio_constraints
    >>> bio_constraints(["O", "B-city", "I-city"])["allowed"]
    [[True, True, False], [True, True, True], [True, True, True]]

    Reference: [Ramshaw & Marcus, 1995](https://aclanthology.org/W95-0107)
    """
    check_choice("scheme", scheme, ("BIO", "BIOES"))
    check_sequence(tag_names=tag_names)
    tags = [_parsed(name, scheme) for name in tag_names]
    if len(tags) < 2 or len(set(tags)) < len(tags):
        raise ArgumentError(
            argument_message("tag_names", "at least two different names", tag_names)
        )
    outside = ("O", "")
    return {
        "allowed": [[_may_follow(a, b, scheme) for b in tags] for a in tags],
        "allowed_start": [_may_follow(outside, tag, scheme) for tag in tags],
        "allowed_end": [_may_follow(tag, outside, scheme) for tag in tags],
    }


def _parsed(name: Any, scheme: str) -> tuple[str, str]:
    name = name if isinstance(name, str) else ""
    position, _, kind = name.partition("-")
    if name != "O" and not (kind and position in set(scheme) - {"O"}):
        marks = " or ".join(f'"{mark}-..."' for mark in scheme if mark != "O")
        raise ArgumentError(argument_message("tag_names", f'names that are "O" or {marks}', name))
    return position, kind


def _may_follow(before: tuple[str, str], after: tuple[str, str], scheme: str) -> bool:
    is_open = before[0] in ("B", "I")
    if after[0] in ("I", "E"):
        return is_open and before[1] == after[1]
    return scheme == "BIO" or not is_open
