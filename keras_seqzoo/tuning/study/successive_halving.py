"""Successive halving: at a few rungs, trials that are clearly behind end.

A trial goes on if at its rung it is among the best third of the trials that got there, of its own
population and of earlier ones: the rule of Li et al., 2020 (https://arxiv.org/abs/1810.05934,
asynchronous successive halving), without its dependence on which worker was faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FACTOR, RUNGS = 3, 3


def rungs(epochs: int) -> list[int]:
    """After how many epochs trials are compared; the last is the end.

    >>> rungs(20)
    [3, 7, 20]
    """
    return sorted({math.ceil(epochs / FACTOR**power) for power in range(RUNGS)})


def survives(costs: Sequence[float], rivals: Sequence[Sequence[float]]) -> bool:
    """Whether a trial with these costs, one after each epoch so far, goes on.

    `rivals` are the costs of all it is compared with, itself included; those with fewer epochs are
    left out. A cost is as good as the best so far, and one that is not finite is the worst.
    """
    reached = [_best(other[: len(costs)]) for other in rivals if len(other) >= len(costs)]
    ahead = sum(other < _best(costs) for other in reached)
    return ahead < math.ceil(len(reached) / FACTOR)


def _best(costs: Sequence[float]) -> float:
    return min((cost for cost in costs if math.isfinite(cost)), default=math.inf)
