"""Texts of a table's cells as numbers."""

from __future__ import annotations

import numpy as np

_MISSING = {"", "-", "--", "?", "na", "n/a", "#n/a", "<na>", "nan", "nat", "none", "null"}


def is_missing(text: str) -> bool:
    """Whether a cell's text stands for a value that is not there."""
    return text.strip().lower() in _MISSING


def number(text: str) -> float | None:
    """A cell's text as a float, NaN where it stands for a missing value, None if it is neither."""
    try:
        # Python reads 1_000 as a number; no file of readings means that.
        return None if "_" in text else float(text)
    except ValueError:
        return float("nan") if is_missing(text) else None


def numbers(cells: list[str]) -> np.ndarray | int:
    """Texts as float64; if one is not a number, the index of the first such instead."""
    values = np.empty(len(cells))
    for index, text in enumerate(cells):
        value = number(text)
        if value is None:
            return index
        values[index] = value
    return values
