"""Transition constraints of tagging schemes such as BIO."""

from __future__ import annotations

from typing import Any

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_sequence,
)


def bio_constraints(tag_names: list[str], scheme: str = "BIO") -> dict[str, list]:
    """Transition constraints of a tagging scheme, as arguments of `LinearChainCRF`.

    "BIO": `I-x` follows only `B-x` or `I-x`. "BIOES": a span is `B-x`, any number of `I-x` and
    `E-x`, or the single `S-x`, and is always closed.

    Args:
        tag_names: list of str in the order of the tag ids: "O", "B-x" and "I-x" for any span types
            x, and with the scheme "BIOES" also "E-x" and "S-x".
        scheme: "BIO" or "BIOES".

    Returns:
        dict with `allowed`, `allowed_start` and `allowed_end`, lists of bool.

    Raises:
        ArgumentError: if a tag name does not belong to the scheme or is repeated, or if `scheme` is
            neither "BIO" nor "BIOES".

    Example:

    >>> from keras_seqzoo.layers import LinearChainCRF, bio_constraints
    >>> constraints = bio_constraints(["O", "B-city", "I-city"])
    >>> constraints["allowed"]
    [[True, True, False], [True, True, True], [True, True, True]]
    >>> crf = LinearChainCRF(3, **constraints)

    Reference: [Ramshaw & Marcus, 1995](https://aclanthology.org/W95-0107)
    """
    check_choice("scheme", scheme, ("BIO", "BIOES"))
    check_sequence(tag_names=tag_names)
    tags = [_parse_tag(name, scheme) for name in tag_names]
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


def _parse_tag(name: Any, scheme: str) -> tuple[str, str]:
    """A tag name as prefix and span type: "B-city" -> ("B", "city")."""
    name = name if isinstance(name, str) else ""
    prefix, _, span_type = name.partition("-")
    if name != "O" and not (span_type and prefix in set(scheme) - {"O"}):
        prefixes = " or ".join(f'"{letter}-..."' for letter in scheme if letter != "O")
        raise ArgumentError(
            argument_message("tag_names", f'names that are "O" or {prefixes}', name)
        )
    return prefix, span_type


def _may_follow(previous: tuple[str, str], tag: tuple[str, str], scheme: str) -> bool:
    in_span = previous[0] in ("B", "I")
    if tag[0] in ("I", "E"):
        return in_span and previous[1] == tag[1]
    return scheme == "BIO" or not in_span
