"""What one step may take of a network that was pruned before, under a limit for all steps together."""

from __future__ import annotations

import numpy as np

from yoloprune.graph.core import Graph
from yoloprune.graph.plan import Plan

__all__ = ["per_step_limit"]


def per_step_limit(limit: float, graph: Graph, original: Graph, plan: Plan) -> np.ndarray:
    """The share of its present channels that each layer may still lose, to lose at most `limit` of its original ones.

    Args:
        limit: Share of its original channels that a layer may lose.
        graph: Graph of the pruned network.
        original: Graph of the network before.
        plan: The plan that led from the original to the pruned network.

    Returns:
        The share for each component, that of the layer it belongs to, float64 (n_components,).
    """
    starts = {(s.parameter, s.dim): s.start for s in original.slices}
    origin = np.zeros(graph.n_components, np.int64)  # component of the original that each component is
    for s in graph.slices:
        kept = np.asarray(plan.keep.get(s.parameter, {}).get(s.dim, range(s.size)))
        labels = starts[s.parameter, s.dim] + kept
        origin[graph.components_of(s)] = original.component[labels]
    share: np.ndarray = 1 - (1 - limit) * _widths(original)[origin] / _widths(graph)
    return share


def _widths(graph: Graph) -> np.ndarray:
    """How many channels the part of a layer has that each component is in, int64 (n_components,)."""
    part = graph.tied[:, 1] + 1  # 0: may not be removed
    return np.bincount(part)[part]
