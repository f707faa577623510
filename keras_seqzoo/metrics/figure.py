"""A labeled number of a report or a terminal table."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number with its label and how to read it.

    Attributes:
        label: str, name of the metric.
        value: str, formatted.
        note: str, range, interval or unit.
    """

    label: str
    value: str
    note: str = ""
