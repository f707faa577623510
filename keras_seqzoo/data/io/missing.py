"""Missing values: counted, and left out or filled as asked."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_seqzoo.errors import DataError

_DONE = {
    "split": "rows with a missing value were left out and a new stretch begins after each hole",
    "ffill": "each took the last value before it in its stretch",
    "interpolate": "each was put on the line between its neighbours, which uses later readings",
}


def without_missing(
    values: np.ndarray, after_gap: np.ndarray, names: list[str], missing: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Fills or leaves out missing values; adds to `notes`.

    Shapes: `values` `(steps, features)` with NaN where a value is missing; `after_gap` bool
    `(steps,)`.

    Returns:
        the values without NaN; which rows were kept, bool `(steps,)`; and the rows of the result
        at which a stretch begins.

    Raises:
        DataError: if `missing` is "error" and a value is, or if no row is left.
    """
    holes = np.isnan(values)
    if holes.any():
        counts = _counts(holes, names)
        if missing == "error":
            row = int(np.flatnonzero(holes.any(axis=1))[0])
            raise DataError(
                f"`path` must have no missing value, as missing='error' asks. Received: {counts}, "
                f"the first in reading {row + 1}. Mend the file, or use missing='split', 'ffill' "
                "or 'interpolate'."
            )
        notes.append(f"Missing values: {counts}; {_DONE[missing]}.")
        values = _filled(values, np.cumsum(after_gap), missing)
    kept = ~np.isnan(values).any(axis=1)
    if not kept.any():
        raise DataError(
            "`path` must have a row without a missing value. Received: none, with "
            f"{_counts(holes, names)}. Choose other columns=, or try missing='ffill'."
        )
    left = int((~kept).sum())
    if left and missing != "split":
        notes.append(
            f"{left} rows at the edges of stretches could not be filled and were left out."
        )
    elif left:
        notes.append(f"{left} of {len(kept)} rows were left out.")
    # A row begins a stretch when a gap or a row that was left out is between it and the last.
    stretch = np.cumsum(after_gap | ~kept)[kept]
    starts = (0, *(int(row) + 1 for row in np.flatnonzero(np.diff(stretch))))
    return values[kept], kept, starts


def _filled(values: np.ndarray, stretch: np.ndarray, missing: str) -> np.ndarray:
    """Fills inside each stretch; nothing is carried over a gap."""
    if missing == "split":
        return values
    groups = pd.DataFrame(values).groupby(stretch)
    if missing == "ffill":
        return groups.ffill().to_numpy()
    parts = [part.interpolate("linear", limit_area="inside") for _, part in groups]
    return pd.concat(parts).to_numpy()


def _counts(holes: np.ndarray, names: list[str]) -> str:
    """How many values each column misses, in words."""
    counts = zip(names, holes.sum(axis=0).tolist(), strict=True)
    return ", ".join(f"{count} in {name!r}" for name, count in counts if count)
