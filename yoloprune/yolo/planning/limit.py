"""How unevenly layers may give channels, by trial.

One threshold for all layers takes most from those with many MACs for little error, the first ones and those of the
finest scale, until a few channels are left of them: each such step looked cheap when it was scored. How far that may go
hangs on the data and on the target.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

from yoloprune.errors import UserError
from yoloprune.graph import Plan

__all__ = ["TRIALS", "Limited", "best_limit"]

_SHARES = (0.9, 0.6, 0.3, 0.0)  # least width of a layer, in widths that layers would have if all gave alike
TRIALS = len(_SHARES)


class Limited(NamedTuple):
    """The limit that kept most.

    Attributes:
        max_pruning_ratio: Share of its channels that a layer may lose.
        error: Error of the plan with this limit.
        unlimited: Error of the plan without one.
    """

    max_pruning_ratio: float
    error: float
    unlimited: float


def best_limit(plan_of: Callable[..., Plan], error_of: Callable[[Plan], float], share: float) -> Limited:
    """Try some limits on what one layer may lose, from nearly even widths to none, and return the best.

    Args:
        plan_of: Makes the plan that reaches the target, given `max_pruning_ratio`.
        error_of: Measures a plan; see `yoloprune.yolo.planning.trial.Trial`.
        share: Share of the cost that is to stay; a layer's cost goes with the square of the widths.

    Raises:
        UserError: The target is out of reach even without a limit.
    """
    errors = {}
    for part in _SHARES:
        limit = 1 - part * sqrt(share)
        try:
            errors[limit] = error_of(plan_of(max_pruning_ratio=limit))
        except UserError:
            if not part:
                raise
    best = min(errors, key=lambda limit: errors[limit])  # of equals the first, the most even one
    return Limited(best, errors[best], errors[1.0])
