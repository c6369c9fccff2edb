"""The run: load, measure, (prune, fine-tune) x steps, validate, export, write results."""

from __future__ import annotations

from .api import PruneResult, prune

__all__ = ["PruneResult", "prune"]
