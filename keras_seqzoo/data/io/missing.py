"""Missing values of a time series: counted, and left out or filled."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_seqzoo.errors import DataError

_TREATMENTS = {
    "split": "rows with a missing value were left out, and a new segment begins after each of them",
    "ffill": "each was filled with the last value before it in its segment",
    "interpolate": "each was interpolated between its neighbors, which uses later readings",
}


def handle_missing(
    values: np.ndarray, after_gap: np.ndarray, names: list[str], missing: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Fill or leave out missing values; adds to `notes`.

    Shapes: `values` `(steps, features)` with NaN where a value is missing; `after_gap` bool
    `(steps,)`.

    Returns:
        the values without NaN; which rows were kept, bool `(steps,)`; and the rows of the result
        at which segments begin.

    Raises:
        DataError: if `missing` is "error" and a value is missing, or if no row is left.
    """
    is_nan = np.isnan(values)
    if is_nan.any():
        counts = _counts(is_nan, names)
        if missing == "error":
            row = int(np.flatnonzero(is_nan.any(axis=1))[0])
            raise DataError(
                f"`path` must have no missing value with missing='error'. Received: {counts}, "
                f"the first in reading {row + 1}. Fix the file, or use missing='split', 'ffill' "
                "or 'interpolate'."
            )
        notes.append(f"Missing values: {counts}; {_TREATMENTS[missing]}.")
        values = _filled(values, np.cumsum(after_gap), missing)
    kept = np.asarray(~np.isnan(values).any(axis=1))
    if not kept.any():
        raise DataError(
            "`path` must have a row without a missing value. Received: none, with "
            f"{_counts(is_nan, names)}. Choose other columns=, or try missing='ffill'."
        )
    left = int((~kept).sum())
    if left and missing != "split":
        notes.append(f"{left} rows at the edges of segments could not be filled and were left out.")
    elif left:
        notes.append(f"{left} of {len(kept)} rows were left out.")
    # A row begins a segment if a gap or a row that was left out precedes it.
    segment = np.cumsum(after_gap | ~kept)[kept]
    starts = (0, *(int(row) + 1 for row in np.flatnonzero(np.diff(segment))))
    return values[kept], kept, starts


def _filled(values: np.ndarray, segment: np.ndarray, missing: str) -> np.ndarray:
    """Values filled within each segment, never across a gap."""
    if missing == "split":
        return values
    groups = pd.DataFrame(values).groupby(segment)
    if missing == "ffill":
        return groups.ffill().to_numpy()
    parts = [part.interpolate("linear", limit_area="inside") for _, part in groups]
    return pd.concat(parts).to_numpy()


def _counts(is_nan: np.ndarray, names: list[str]) -> str:
    """The number of missing values of each column, as text."""
    counts = zip(names, is_nan.sum(axis=0).tolist(), strict=True)
    return ", ".join(f"{count} in {name!r}" for name, count in counts if count)
