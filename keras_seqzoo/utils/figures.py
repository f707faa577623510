"""Matplotlib figures that no window manager holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def new_axes():
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 3.5), layout="constrained").add_subplot()
