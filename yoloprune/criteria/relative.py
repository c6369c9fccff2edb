"""The relative score that makes groups comparable under one global threshold."""

from __future__ import annotations

import numpy as np

__all__ = ["relative"]


def relative(graph, scores: np.ndarray) -> np.ndarray:
    """Divide each score by the mean of the upper half of its group.

    Î(g,k) = N · I(g,k) / Σ TopN(I_g) of the paper (DepGraph, CVPR 2023, section 3.3), with N = half the group's
    components. The upper half stands for the channels that stay, so that a group in which sparse training has emptied
    many channels is not flattered by its own zeros. Equal scores give 1; a group of zeros stays 0.

    Args:
        graph: Dependency graph with `groups`, each with its `components`.
        scores: Non-negative scores (n_components,).

    Returns:
        float64 array (n_components,); components of no group keep their score.
    """
    out = scores.astype(np.float64, copy=True)
    for group in graph.groups:
        own = scores[group.components]
        if own.size == 0:
            continue
        n = (own.size + 1) // 2
        mean = np.partition(own, own.size - n)[own.size - n :].mean()
        out[group.components] = own / mean if mean > 0 else 0.0
    return out
