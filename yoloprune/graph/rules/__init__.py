"""Label rules for ATen operators, one file per operator family, in one table."""

from __future__ import annotations

from yoloprune.graph.rules import (
    attention,
    contraction,
    cutting,
    fill,
    indexing,
    joining,
    movement,
    norm,
    pointwise,
    positions,
    reduction,
    spatial,
)
from yoloprune.graph.rules.registry import COMPOSITES, RULES, Call, RuleError, rule

__all__ = [
    "COMPOSITES",
    "RULES",
    "Call",
    "RuleError",
    "attention",
    "contraction",
    "cutting",
    "fill",
    "indexing",
    "joining",
    "movement",
    "norm",
    "positions",
    "pointwise",
    "reduction",
    "rule",
    "spatial",
]
