"""A record seen through windows, and what was said in the windows put back in its place."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.array_validation import as_array

COMBINE = ("longest", "mean")


@dataclasses.dataclass(frozen=True)
class Record:
    """Values `(steps, features)` in unbroken stretches that begin at `starts`."""

    values: np.ndarray
    starts: tuple[int, ...]
    times: Any = None
    columns: tuple[str, ...] = ()

    def edges(self) -> list[tuple[int, int]]:
        """First row of each stretch and the row behind its last."""
        return list(itertools.pairwise([*self.starts, len(self.values)]))


def as_record(name: str, x: Any) -> Record:
    """Readings, an array `(steps, features)` or `(steps,)`, or windows, each a stretch of its own.

    Raises:
        DataError: if it is none of these, is empty, or is not real.
    """
    if hasattr(x, "segments"):
        return Record(x.values, x.starts, x.times, x.columns)
    values = as_array(name, x)
    if values.ndim not in (1, 2, 3) or values.dtype.kind not in "iuf" or 0 in values.shape:
        raise DataError(
            f"`{name}` must be readings, an array (steps, features), or windows (batch, time, "
            f"features), and some. Received: shape {values.shape}, dtype {values.dtype}."
        )
    length = values.shape[1] if values.ndim == 3 else len(values)
    features = 1 if values.ndim == 1 else values.shape[-1]
    values = values.reshape(-1, features)
    columns = tuple(f"feature {number}" for number in range(features))
    return Record(values, tuple(range(0, len(values), length)), None, columns)


def window_rows(
    record: Record, sequence_length: int, sequence_stride: int
) -> dict[int, np.ndarray]:
    """Where windows begin, by their length, so that every reading is in one.

    The last window of a stretch ends where the stretch does; a stretch shorter than `sequence_length` is a
    window of its own length.
    """
    found: dict[int, list[int]] = {}
    for first, last in record.edges():
        length = min(sequence_length, last - first)
        begins = list(range(first, last - length + 1, sequence_stride))
        if begins[-1] != last - length:
            begins.append(last - length)
        found.setdefault(length, []).extend(begins)
    return {length: np.array(begins) for length, begins in found.items()}


def cut(record: Record, begins: np.ndarray, length: int) -> np.ndarray:
    """Windows `(batch, length, features)` that begin at these rows."""
    return record.values[begins[:, None] + np.arange(length)]


def averaged(
    record: Record,
    function: Callable[[np.ndarray], np.ndarray],
    *,
    sequence_length: int,
    sequence_stride: int,
    combine: str,
) -> np.ndarray:
    """What `function` says of windows, `(steps, features)`, one value for each of the record's.

    NaN in a window stands for nothing said. Of what several windows say, "longest" takes the one in
    which the reading has the longest past, "mean" their mean.
    """
    total = np.zeros(record.values.shape)
    count = np.zeros(len(total))
    for length, begins in window_rows(record, sequence_length, sequence_stride).items():
        found = function(cut(record, begins, length))
        # By steps, since no reading is at the same step of two windows; later steps overwrite.
        for step in range(length):
            said = ~np.isnan(found[:, step]).any(axis=-1)
            rows = begins[said] + step
            if combine == "longest":
                total[rows], count[rows] = found[said, step], 1
            else:
                total[rows] += found[said, step]
                count[rows] += 1
    with np.errstate(invalid="ignore"):
        return total / count[:, None]  # 0 / 0 where nothing was said
