"""How the strength of the regulariser grows over a training."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A factor on the strength: up from 0 during the warm-up, then geometrically from 1 to `growth`.

    It depends on progress alone, so that a training that is resumed has nothing to remember.

    Attributes:
        warmup: Share of the training over which the factor rises linearly from 0 to 1, in [0, 1).
        growth: The factor at the end; 1 keeps it constant after the warm-up.

    Raises:
        UserError: A value is out of its range.

    Examples:
        >>> schedule = Schedule(warmup=0.5, growth=4.0)
        >>> [schedule(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
        [0.0, 0.5, 1.0, 2.0, 4.0]
    """

    warmup: float = 0.1
    growth: float = 1.0

    def __post_init__(self):
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup={self.warmup} is no share of the training; give a number from 0 to below 1.")
        if not 0 < self.growth < float("inf"):
            raise UserError(f"growth={self.growth} is no factor on the strength; give a positive number.")

    def __call__(self, progress: float) -> float:
        """The factor at `progress`, the finished share of the training in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        return self.growth ** ((progress - self.warmup) / (1 - self.warmup))
