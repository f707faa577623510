"""Matplotlib figures that no window manager holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def new_axes():
    """Axes of a new figure of 6 by 3.5 inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 3.5), layout="constrained").add_subplot()
