"""The paper's matrices, for inspection on small models: which layers feed each other, and which are pruned together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from yoloprune.graph.core import Graph

__all__ = ["Matrix", "dependency", "grouping"]


class Matrix(NamedTuple):
    """A symmetric relation between the inputs and outputs of layers.

    Attributes:
        names: "conv1.in" and "conv1.out" for every layer with parameters, in the order in which they ran.
        values: bool (names, names).
    """

    names: tuple[str, ...]
    values: np.ndarray

    def __str__(self) -> str:
        width = max(map(len, self.names), default=0)
        rows = zip(self.names, self.values, strict=True)
        return "\n".join(f"{name:{width}} {' '.join('·■'[int(v)] for v in row)}" for name, row in rows)


def grouping(graph: Graph) -> Matrix:
    """G of the paper (Fang et al., CVPR 2023, Sec. 3.1): 1 where some channel is pruned on both sides at once."""
    nodes = _nodes(graph)
    touched = [np.unique(graph.component[labels]) for labels in nodes.values()]
    holds = np.zeros((len(nodes), graph.n_components), bool)
    for row, components in zip(holds, touched, strict=True):
        row[components] = True
    return Matrix(tuple(nodes), holds @ holds.T)


def dependency(graph: Graph) -> Matrix:
    """D of the paper (eq. 5): 1 where an output feeds an input, or where a layer prunes both of its sides together.

    Layers without parameters are left out: what they are fed with feeds what they feed. Where all channels go the same
    ways, the grouping matrix is the transitive closure of this one.
    """
    together = grouping(graph)
    place = {name: i for i, name in enumerate(together.names)}
    values = np.zeros_like(together.values)
    for first, second in [(f"{a}.out", f"{b}.in") for a, b in graph.links] + [
        (f"{a}.in", f"{a}.out") for a in {name.rpartition(".")[0] for name in place}
    ]:
        if first in place and second in place:
            values[place[first], place[second]] = values[place[second], place[first]] = True
    np.fill_diagonal(values, True)
    return Matrix(together.names, values & together.values)


def _nodes(graph: Graph) -> dict[str, np.ndarray]:
    """Labels of each layer's input and output; a layer of per-channel parameters has the same on both sides."""
    sides: dict[str, dict[str, list[np.ndarray]]] = {}
    for s in graph.slices:
        labels = np.arange(s.start, s.start + s.size)
        layer = s.parameter.rpartition(".")[0]
        side = sides.setdefault(layer, {"in": [], "out": [], "both": []})
        if len([n for n in graph.shapes[s.parameter] if n > 1]) == 1 and not graph.producing[s.start]:
            side["both"].append(labels)
        else:
            side["out" if graph.producing[s.start] else "in"].append(labels)
    nodes = {}
    for layer, side in sides.items():
        shared = side["both"] if not side["in"] and not side["out"] else []
        for name in ("in", "out"):
            if parts := side[name] + shared:
                nodes[f"{layer}.{name}"] = np.concatenate(parts)
    return nodes
