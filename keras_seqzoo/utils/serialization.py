"""Conversion of report values to JSON."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_json_values(value: Any) -> Any:
    """Convert arrays and tuples to lists, and NaN and infinity to None, at any depth of lists.

    Example:

    >>> to_json_values((np.array([1.0, np.nan]), "a"))
    [[1.0, None], 'a']
    """
    if isinstance(value, np.ndarray):
        return to_json_values(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json_values(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
