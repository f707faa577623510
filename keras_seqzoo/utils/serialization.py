"""Values as JSON holds them."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_json_values(value: Any) -> Any:
    """What JSON can hold: arrays and tuples as lists, nan and infinity as None."""
    if isinstance(value, np.ndarray):
        return to_json_values(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json_values(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
