"""Result of scoring predicted labels or tags: figures, table and confusion matrix."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.metrics.figure import Figure

MAX_INCHES = 12
LABEL_POINTS, NUMBER_POINTS = 9, 24  # the size of a tick label, and of a number in a cell


@dataclasses.dataclass(frozen=True, eq=False)  # two tables have no single truth value
class LabelScores:
    """Result of `tagging_scores` and `classification_scores`.

    `str(scores)` is a sentence and a table, `scores.plot()` the confusion matrix. No score is nan:
    a division by zero gives 0.

    Attributes:
        accuracy: float in [0, 1], fraction of correct steps or sequences.
        f1, precision, recall: floats in [0, 1]; micro averaged over entities at level "entity",
            otherwise macro averaged over the classes that occur.
        table: `pandas.DataFrame`, one row per entity type or class, columns precision, recall, f1
            and support, the number of true ones.
        confusion: `pandas.DataFrame` of counts of steps or sequences; rows are true labels, columns
            predicted ones.
        count: int, number of steps; at level "sequence" of sequences.
        level: "entity", "step" or "sequence", the unit of `f1`, `precision` and `recall`.

    Example:

    >>> from keras_seqzoo.metrics import classification_scores
    >>> scores = classification_scores(["up", "down"], ["up", "up"])
    >>> scores.accuracy, scores.recall
    (0.5, 0.5)
    >>> scores.to_dict()["confusion"]
    {'labels': ['down', 'up'], 'counts': [[0, 1], [0, 1]]}
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
        """Plot the confusion matrix, shaded by the fractions of each row.

        Args:
            ax: matplotlib axes; None for those of a new figure.

        Returns:
            The matplotlib axes.
        """
        return plot_confusion(self.confusion, ax)

    def to_dict(self) -> dict[str, Any]:
        """The scores as a dict for JSON."""
        scores = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        labels, counts = list(self.confusion.index), self.confusion.to_numpy().tolist()
        return scores | {
            "table": self.table.to_dict("index"),
            "confusion": {"labels": labels, "counts": counts},
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
    """Plot a confusion matrix; labels and numbers that do not fit are left out."""
    from matplotlib.colors import PowerNorm

    counts = confusion.to_numpy()
    if ax is None:
        ax = _new_axes(len(counts))
    # Normalized by row, because the counts of the tag O would dominate all others.
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root makes rare errors visible.
    ax.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    points = ax.bbox.height / ax.figure.dpi * 72 / len(counts)  # height of a cell
    _label_ticks(ax, confusion.index, every=math.ceil(LABEL_POINTS / points))
    if points >= NUMBER_POINTS:
        _write_fractions(ax, fractions)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true (shading: fraction of the row)")
    return ax


def _new_axes(classes: int):
    from matplotlib.figure import Figure

    side = min(3 + 0.3 * classes, MAX_INCHES)
    return Figure(figsize=(side, side), layout="constrained").add_subplot()


def _label_ticks(ax, labels: pd.Index, *, every: int) -> None:
    shown = [label if len(label) <= 24 else label[:23] + "…" for label in labels[::every]]
    shown = [label.replace("$", r"\$") for label in shown]  # matplotlib would parse math text
    positions = range(0, len(labels), every)
    ax.set_xticks(positions, shown, rotation=90, fontsize=7)
    ax.set_yticks(positions, shown, fontsize=7)


def _write_fractions(ax, fractions: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(fractions >= 0.005), strict=True):
        fraction = fractions[row, column]
        color = "white" if fraction > 0.4 else "black"
        text = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
        ax.text(column, row, f"{fraction:.2f}", **text)
