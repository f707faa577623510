"""What a comparison of predicted names with true ones says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.metrics.figure import Figure

LARGEST = 12  # inches
NAME_POINTS, NUMBER_POINTS = 9, 24  # what a name beside a row needs, and a number in a cell


@dataclasses.dataclass(frozen=True, eq=False)  # two tables have no single truth value
class LabelScores:
    """What `tagging_scores` and `classification_scores` found.

    `str(scores)` is a sentence and a table, `scores.plot()` the confusion matrix. No figure is ever
    nan: what divides by zero is 0.

    Attributes:
        accuracy: float in [0, 1], share of steps (of sequences) whose name is right.
        f1, precision, recall: floats in [0, 1]; at level "entity" micro averaged (every entity
            counts the same), else macro averaged (every class that occurs counts the same).
        table: `pandas.DataFrame`, one row per entity type or class, columns precision, recall, f1
            and support, the number of true ones.
        confusion: `pandas.DataFrame` of counts of steps or sequences; rows are true names, columns
            predicted ones.
        count: int, number of steps; at level "sequence" of sequences.
        level: "entity", "step" or "sequence", what `f1`, `precision` and `recall` count.

    Example:

    >>> from keras_seqzoo.diagnostics import classification_scores
    >>> scores = classification_scores(["up", "down"], ["up", "up"])
    >>> scores.accuracy, scores.recall
    (0.5, 0.5)
    >>> scores.to_dict()["confusion"]
    {'names': ['down', 'up'], 'counts': [[0, 1], [0, 1]]}
    """

    accuracy: float
    f1: float
    precision: float
    recall: float
    table: pd.DataFrame
    confusion: pd.DataFrame
    count: int
    level: str

    def plot(self, ax=None):
        """Draws the confusion matrix, each row shaded by its own shares; returns the axes.

        Args:
            ax: matplotlib axes; default those of a new figure.
        """
        return plot_confusion(self.confusion, ax)

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        names, counts = list(self.confusion.index), self.confusion.to_numpy().tolist()
        return plain | {
            "table": self.table.to_dict("index"),
            "confusion": {"names": names, "counts": counts},
        }

    def figures(self) -> list[Figure]:
        """Labeled numbers, for a table or a report."""
        unit = "sequences" if self.level == "sequence" else "steps"
        note = f"precision {100 * self.precision:.1f}, recall {100 * self.recall:.1f}"
        return [
            Figure("F1", f"{100 * self.f1:.1f} %", note),
            Figure("accuracy", f"{100 * self.accuracy:.1f} %", f"of {self.count} {unit}"),
        ]

    def __str__(self) -> str:
        average = "micro over entities" if self.level == "entity" else "macro over classes"
        unit = "sequence" if self.level == "sequence" else "step"
        head = (
            f"F1 {self.f1:.3f}, precision {self.precision:.3f}, recall {self.recall:.3f} "
            f"({average}); accuracy {self.accuracy:.3f} over {self.count} {unit}"
            f"{'s' * (self.count != 1)}."
        )
        if self.table.empty:
            return f"{head}\n\nThere is no entity, neither true nor predicted."
        table = self.table.rename_axis(None).to_string(float_format="{:.3f}".format, max_rows=200)
        return f"{head}\n\n{table}"


def plot_confusion(confusion: pd.DataFrame, ax=None):
    """Shares of each true name's row. Names and numbers are left out where there is no room."""
    from matplotlib.colors import PowerNorm

    counts = confusion.to_numpy()
    if ax is None:
        ax = _new_axes(len(counts))
    # By row: of all counts, those of the tag O would leave nothing of the others to see.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The root: rare mistakes are what one looks for.
    ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    cell = ax.bbox.height / ax.figure.dpi * 72 / len(counts)  # in points
    _name_cells(ax, confusion.index, every=math.ceil(NAME_POINTS / cell))
    if cell >= NUMBER_POINTS:
        _number_cells(ax, shares)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true (shading: share of the row)")
    return ax


def _new_axes(classes: int):
    from matplotlib.figure import Figure

    side = min(3 + 0.3 * classes, LARGEST)
    return Figure(figsize=(side, side), layout="constrained").add_subplot()


def _name_cells(ax, names: pd.Index, *, every: int) -> None:
    shown = [name if len(name) <= 24 else name[:23] + "…" for name in names[::every]]
    shown = [name.replace("$", r"\$") for name in shown]  # no formulas
    places = range(0, len(names), every)
    ax.set_xticks(places, shown, rotation=90, fontsize=7)
    ax.set_yticks(places, shown, fontsize=7)


def _number_cells(ax, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        share = shares[row, column]
        color = "white" if share > 0.4 else "black"
        text = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
        ax.text(column, row, f"{share:.2f}", **text)
