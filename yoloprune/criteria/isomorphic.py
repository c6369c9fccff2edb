"""Ranking like with like: groups of the same structure compete with each other only."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from torch import nn

__all__ = ["isomorphic"]


def isomorphic(graph, model: nn.Module, scores: np.ndarray) -> np.ndarray:
    """Turn scores into percentiles within each class of groups that have the same structure.

    Isomorphic Pruning (Fang et al., ECCV 2024, section 3): scores of unlike sub-structures, such as a chain of plain
    convolutions and a residual stream, have unlike distributions, so each class is ranked on its own and one global
    threshold takes the same share of each. Two groups are isomorphic if the same kinds of layers, with equal kernel
    sizes and groups, hold their channels in the same dimensions; widths may differ.

    Args:
        graph: Dependency graph with `groups`.
        model: The network.
        scores: Finite scores (n_components,).

    Returns:
        float64 array (n_components,) in (0, 1): the share of the class that lies below, equal scores counted by half.
        What is frozen has 1.
    """
    modules = dict(model.named_modules())
    classes: dict[tuple, list[np.ndarray]] = defaultdict(list)
    for group in graph.groups:
        if not group.frozen:
            classes[_structure(group, modules)].append(group.components)
    out = np.ones(len(scores), np.float64)
    for parts in classes.values():
        own = np.concatenate(parts)
        _, inverse, counts = np.unique(scores[own], return_inverse=True, return_counts=True)
        middle = (np.cumsum(counts) - counts / 2) / len(own)
        out[own] = middle[inverse.reshape(-1)]
    return out


def _structure(group, modules: dict[str, nn.Module]) -> tuple:
    """The multiset of a group's members, without their names and widths."""
    kinds = []
    for parameter, dim in group.members:
        owner, _, attribute = parameter.rpartition(".")
        module = modules[owner]
        groups = getattr(module, "groups", 1)
        depthwise = groups > 1 and groups == getattr(module, "in_channels", None)  # then it is a width
        kernel = getattr(module, "kernel_size", ())
        kinds.append((type(module).__qualname__, attribute, dim, str(kernel), -1 if depthwise else groups))
    return tuple(sorted(kinds))
