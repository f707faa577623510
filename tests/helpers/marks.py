"""Marks for values of parametrized tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any):
    """The values of one case of a parametrized test, marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_except(fast: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """Values of a parametrized test; all are marked slow, but those of `fast`."""
    fast = list(fast)
    return [value if value in fast else slow(value) for value in values]


def slow_except_default(cases: Iterable[tuple[str, str]]) -> list[Any]:
    """Pairs of an entry and a configuration; all but the default configurations are slow."""
    return [pair if pair[1] == "default" else slow(*pair) for pair in cases]
