"""What each task requires of the constructor of an entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection


@dataclasses.dataclass(frozen=True)
class Requirements:
    """Arguments that a constructor must accept, and what its model must be.

    A task passes the sizes that it finds in the data. Arguments beyond these (such as `mask_value`
    or `word_dropout`) are passed where the constructor accepts them.

    Attributes:
        arguments: tuple of groups of argument names; of each group at least one must be accepted.
        model: str, the inputs and outputs that the model must have.
    """

    arguments: tuple[tuple[str, ...], ...]
    model: str

    def missing(self, accepted: Collection[str]) -> list[str]:
        """Groups of which a constructor that accepts these arguments takes none, in words."""
        return [
            " or ".join(f"`{name}`" for name in group)
            for group in self.arguments
            if not set(group) & set(accepted)
        ]


_WINDOWS = "`(batch, time, features)` -> the same, or `(batch, features)` of the last step"
_CLASSES = (("classes",), ("features", "vocabulary_size"))

REQUIREMENTS = {
    "identity": Requirements((), _WINDOWS),
    "reconstruction": Requirements((), _WINDOWS),
    "forecasting": Requirements((), _WINDOWS),
    "classification": Requirements(
        _CLASSES,
        "`(batch, time, features)` or `(batch, time)` -> `(batch, classes)`, probabilities",
    ),
    "tagging": Requirements(
        _CLASSES,
        "`(batch, time, features)` or `(batch, time)` -> `(batch, time, classes)`, probabilities, "
        "or `(batch, time)`, tags of a `layers.CRFModel`",
    ),
    "seq2seq": Requirements(
        (
            ("source_vocabulary_size", "source_features"),
            ("target_vocabulary_size", "target_features"),
        ),
        "`layers.EncoderDecoderModel`",
    ),
}
