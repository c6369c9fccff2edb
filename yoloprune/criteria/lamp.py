"""Layer-adaptive magnitude."""

from __future__ import annotations

import numpy as np
from torch import nn

from .magnitude import l2
from .registry import Inputs, criterion

__all__ = ["lamp"]


@criterion("lamp")
def lamp(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Share of a channel in the squared norm of those of its group that are at least as large: I_k / Σ_{I_j ≥ I_k} I_j.

    LAMP (Lee et al., ICLR 2021, equation 2) for channels instead of weights, on top of `l2`. Comparable between groups
    without further scaling.
    """
    scores = l2(graph, model, inputs)
    for group in graph.groups:
        own = scores[group.components]
        values, inverse, counts = np.unique(own, return_inverse=True, return_counts=True)
        at_least = np.cumsum((values * counts)[::-1])[::-1]
        share = np.divide(values, at_least, out=np.zeros_like(values), where=at_least > 0)
        scores[group.components] = share[inverse.reshape(-1)]
    return scores
