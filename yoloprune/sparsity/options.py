"""What a group-sparse training is told, and where it writes."""

from __future__ import annotations

from dataclasses import dataclass

from .regulariser import check_settings
from .schedule import Schedule

__all__ = ["TABLE", "Sparsity"]

TABLE = "sparsity.csv"
"""File in a trainer's folder with the distribution of relative scores after each epoch."""


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Options of a group-sparse training.

    Attributes:
        strength: Factor on the regulariser, see `GroupSparsity`. What it does depends on the length
            of the training: on the digits, strength · mean learning rate · steps / (1 − momentum) of .5 to .8 moved the
            weak channels to a tenth of the others (benchmarks/sparsity.md).
        alpha: Growth of the strength from strong to weak channels.
        scope: What shrinks together: `group`, or for comparison `convolutions`, `layer` or `bn`.
        warmup: Share of the training over which the strength rises from 0.
        growth: Factor by which the strength grows from there to the end.

    Raises:
        UserError: A value is out of its range.
    """

    strength: float = 1e-3
    alpha: float = 4.0
    scope: str = "group"
    warmup: float = 0.1
    growth: float = 1.0

    def __post_init__(self):
        check_settings(self.strength, self.alpha, self.scope)
        _ = self.schedule  # checks its own

    @property
    def schedule(self) -> Schedule:
        """The course of the strength."""
        return Schedule(self.warmup, self.growth)
