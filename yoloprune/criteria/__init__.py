"""Importance: one score per component of a dependency graph, higher = keep."""

from __future__ import annotations

from . import gradient, lamp, magnitude, norm_scale, output_error, uniform  # noqa: F401  (each registers its criteria)
from .registry import CRITERIA, Criterion, score

__all__ = ["CRITERIA", "Criterion", "score"]
