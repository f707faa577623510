"""Successive halving: early stopping of trials that are clearly worse than others.

A trial continues if at its rung it is in the best third of the trials that reached that rung, of
its own population and of earlier ones. This is the rule of asynchronous successive halving (Li et
al., 2020, https://arxiv.org/abs/1810.05934), but the result does not depend on which worker was
faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

REDUCTION_FACTOR, NUM_RUNGS = 3, 3


def rung_epochs(epochs: int) -> list[int]:
    """Numbers of epochs after which trials are compared; the last is `epochs`.

    >>> rung_epochs(20)
    [3, 7, 20]
    """
    return sorted({math.ceil(epochs / REDUCTION_FACTOR**power) for power in range(NUM_RUNGS)})


def is_promoted(costs: Sequence[float], cohort: Sequence[Sequence[float]]) -> bool:
    """Whether a trial continues to the next rung.

    A trial counts with its lowest cost so far; without a finite cost it counts as the worst.

    Args:
        costs: cost of the trial after each epoch so far.
        cohort: costs of all trials it is compared with, itself included. Trials with fewer epochs
            are left out.
    """
    reached = [_lowest(other[: len(costs)]) for other in cohort if len(other) >= len(costs)]
    better = sum(other < _lowest(costs) for other in reached)
    return better < math.ceil(len(reached) / REDUCTION_FACTOR)


def _lowest(costs: Sequence[float]) -> float:
    return min((cost for cost in costs if math.isfinite(cost)), default=math.inf)
