"""What shrinks together: the grouping of the paper, and what it is compared with.

A scope says which labels of a graph take part, which of them share one score, and among which scores the greatest and
the least are sought.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from yoloprune.graph.tracing.internals import BatchNorm, ConvNd, ConvTransposeNd

from ..graph.parameters import owners

__all__ = ["SCOPES", "Division"]


@dataclass(frozen=True)
class Division:
    """Labels that take part, in the order of the graph's slices.

    Attributes:
        slices: Numbers of the graph's slices that take part; their labels follow one another in what is below.
        score: Score that each label counts to, or -1 for a label that stays as it is, int64 (labels that take part,).
        group: Group of each score, int64 (scores,).
    """

    slices: list[int]
    score: np.ndarray
    group: np.ndarray


def full(graph, model: nn.Module) -> Division:
    """Full grouping: all parameters of a component share its score."""
    return _by_component(graph, lambda piece: True)


def convolutions(graph, model: nn.Module) -> Division:
    """As full grouping, without vectors: no norms, no biases."""
    return _by_component(graph, lambda piece: len(graph.shapes[piece.parameter]) > 1)


def layer(graph, model: nn.Module) -> Division:
    """No grouping: each convolution and linear layer has scores of its own, for its output channels."""
    outputs = {}
    for name, where in owners(model).items():
        for module, attribute in where:
            if attribute == "weight" and isinstance(module, (ConvNd, nn.Linear)):
                outputs[name] = 1 if isinstance(module, ConvTransposeNd) and module.groups == 1 else 0
    return _by_slice(graph, lambda piece: outputs.get(piece.parameter) == piece.dim)


def bn(graph, model: nn.Module) -> Division:
    """Scales of batch norms, each a score of its own."""
    scales = {id(module.weight) for module in model.modules() if isinstance(module, BatchNorm)}
    named = {name for name, tensor in graph.parameters(model).items() if id(tensor) in scales}
    return _by_slice(graph, lambda piece: piece.parameter in named)


SCOPES: dict[str, Callable[[object, nn.Module], Division]] = {
    "group": full,
    "convolutions": convolutions,
    "layer": layer,
    "bn": bn,
}
"""Name of a scope -> how it divides a graph's labels."""


def _chosen(graph, takes_part: Callable) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Numbers of the prunable slices of parameters that take part, their labels, and the number of each one's slice."""
    live = ~graph.frozen[graph.component]
    slices = [
        i
        for i, piece in enumerate(graph.slices)
        if graph.is_parameter[piece.parameter]
        and live[piece.start : piece.start + piece.size].any()
        and takes_part(piece)
    ]
    pieces = [graph.slices[i] for i in slices]
    labels = [np.arange(piece.start, piece.start + piece.size) for piece in pieces]
    sizes = [piece.size for piece in pieces]
    return slices, np.concatenate(labels or [np.zeros(0, np.int64)]), np.repeat(np.arange(len(pieces)), sizes)


def _by_component(graph, takes_part: Callable) -> Division:
    slices, labels, _ = _chosen(graph, takes_part)
    component = graph.component[labels]
    group_of = np.full(graph.n_components, -1)
    for number, group in enumerate(graph.groups):
        group_of[group.components] = number
    live = ~graph.frozen[component]
    return Division(slices, *_numbered(component, live, group_of[component]))


def _by_slice(graph, takes_part: Callable) -> Division:
    slices, labels, which = _chosen(graph, takes_part)
    live = ~graph.frozen[graph.component[labels]]
    return Division(slices, *_numbered(np.arange(len(labels)), live, which))


def _numbered(key: np.ndarray, live: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct keys, and the groups of them, from 0 without gaps; -1 for a key that is not live."""
    score = np.full(len(key), -1)
    _, first, score[live] = np.unique(key[live], return_index=True, return_inverse=True)
    return score, np.unique(group[live][first], return_inverse=True)[1]
