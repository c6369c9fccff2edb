"""What is left of a limit on the widths, for a network that was pruned before."""

from __future__ import annotations

import numpy as np

from yoloprune.graph.core import Graph
from yoloprune.graph.plan import Plan

__all__ = ["per_step_limit"]


def per_step_limit(limit: float, graph: Graph, original: Graph, plan: Plan) -> np.ndarray:
    """What share of its present channels each layer may still lose, to lose at most `limit` of its original ones.

    Args:
        limit: Share of its original channels that a layer may lose.
        graph: Graph of the pruned network.
        original: Graph of the network before.
        plan: What led from the one to the other.

    Returns:
        The share for each component, as the layer has it that the component belongs to, float64 (n_components,).
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
