"""Numbers in the text cells of a table."""

from __future__ import annotations

import numpy as np

_MISSING = {"", "-", "--", "?", "na", "n/a", "#n/a", "<na>", "nan", "nat", "none", "null"}


def is_missing(text: str) -> bool:
    """Whether a cell stands for a missing value."""
    return text.strip().lower() in _MISSING


def parse_number(text: str) -> float | None:
    """A cell as a float; NaN for a missing value, None for any other text."""
    try:
        # Python reads 1_000 as a number; files of readings do not use that notation.
        return None if "_" in text else float(text)
    except ValueError:
        return float("nan") if is_missing(text) else None


def parse_numbers(cells: list[str]) -> np.ndarray | int:
    """Cells as float64, or the index of the first cell that is not a number."""
    values = np.empty(len(cells))
    for index, text in enumerate(cells):
        value = parse_number(text)
        if value is None:
            return index
        values[index] = value
    return values
