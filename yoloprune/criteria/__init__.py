"""Importance: one score per component of a dependency graph, higher = keep."""

from __future__ import annotations

from . import compensated, gradient, lamp, magnitude, norm_scale, output_error, uniform  # noqa: F401  (they register)
from .registry import CRITERIA, Criterion, score

__all__ = ["CRITERIA", "Criterion", "score"]
