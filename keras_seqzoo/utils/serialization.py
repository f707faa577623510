"""Values as JSON holds them."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_plain(value: Any) -> Any:
    """What JSON can hold: arrays and tuples as lists, nan and infinity as None."""
    if isinstance(value, np.ndarray):
        return as_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
