"""What can be pruned in a model, what cannot and why, and what each layer costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from yoloprune.detectors.base import Detector, Part
from yoloprune.graph import Graph
from yoloprune.graph import budget as core
from yoloprune.pipeline.targets import Reach, reachable

__all__ = ["GroupRow", "Inspection", "LayerRow", "PartRow", "group_rows", "inspect"]

_KERNEL = "is a kernel size"  # the graph's reason for dimensions that are no channels, which would fill the table


@dataclass
class GroupRow:
    """Channels that are coupled over the same layers.

    Attributes:
        number: Number of the group, from 1.
        name: The layer that produces the channels.
        width: How many channels.
        layers: Layers whose parameters shrink with them, as (name, dimension of the weight).
        frozen: Whether all of them stay.
        reason: Why they stay, as the graph says it.
        why: The same in plain words.
        tied: Numbers of the groups that lose equally many channels, this one included; empty if it is free.
        parts: Into how many equally long parts a tie cuts this group itself.
    """

    number: int
    name: str
    width: int
    layers: list[tuple[str, int]]
    frozen: bool
    reason: str
    why: str
    tied: list[int]
    parts: int


@dataclass
class PartRow:
    """Backbone, neck or head: what it costs, and what is left when all of its layers are as narrow as they can be.

    Attributes:
        name: Which one.
        modules: Its modules.
        gflops: GFLOPs at 640 px.
        min_gflops: The least that pruning leaves of them.
        params: Parameters.
        min_params: The least that pruning leaves of them.
    """

    name: str
    modules: str
    gflops: float
    min_gflops: float
    params: int
    min_params: int


@dataclass
class LayerRow:
    """One layer: its share of the cost.

    Attributes:
        name: Module name.
        part: Name of the part that it belongs to.
        kind: Module class.
        shape: Shape of its weight; empty for an operator without one.
        params: Number of parameters.
        share: Share of the model's MACs at 640 px, 0 … 1.
    """

    name: str
    part: str
    kind: str
    shape: list[int]
    params: int
    share: float


@dataclass
class Inspection:
    """All of it.

    Attributes:
        family: Family of the model.
        task: Ultralytics task.
        reach: Smallest and own GFLOPs (at 640 px) and parameters.
        parts: Backbone, neck and head.
        groups: Coupled channels, frozen ones included.
        layers: Layers that cost something, in the order in which they run.
        unsupported: Operators that the graph does not understand; what they touch stays.
        uncalled: Layers that do not run when the model predicts; their widths do not follow.
    """

    family: str
    task: str
    reach: Reach
    parts: list[PartRow]
    groups: list[GroupRow]
    layers: list[LayerRow]
    unsupported: dict[str, int]
    uncalled: list[str]


def inspect(detector: Detector, *, prune_head: bool = False, keep: Sequence[str] = (), round_to: int = 8) -> Inspection:
    """Trace a network and say what was found; it is not changed."""
    graph = detector.trace(prune_head, keep)
    reach = reachable(detector, graph, round_to=round_to)
    flops = detector.layer_flops()
    return Inspection(
        detector.family,
        detector.task,
        reach,
        _parts(detector, graph, reach, flops, round_to),
        group_rows(detector, graph, prune_head),
        _layers(detector, flops),
        dict(graph.unsupported),
        graph.uncalled,
    )


def _parts(detector: Detector, graph: Graph, reach: Reach, flops: dict[str, int], round_to: int) -> list[PartRow]:
    smallest = detector.holding(graph.plan(core.cheapest(graph, round_to)).apply(detector.network))
    found = detector.parts()
    shares, least = _shares(found, flops), _shares(found, smallest.layer_flops())
    return [
        PartRow(
            part.name,
            " to ".join(dict.fromkeys((part.modules[0], part.modules[-1]))),
            shares[part.name] * reach.max_gflops,
            least[part.name] * reach.min_gflops,
            _params(detector.network, part),
            _params(smallest.network, part),
        )
        for part in found
    ]


def _shares(found: Sequence[Part], flops: Mapping[str, int]) -> dict[str, float]:
    """Share of the FLOPs that each part holds, 0 … 1, by its name."""
    total = sum(flops.values())
    return {part.name: sum(value for name, value in flops.items() if part.has(name)) / total for part in found}


def _params(network: nn.Module, part: Part) -> int:
    return sum(p.numel() for name in part.modules for p in network.get_submodule(name).parameters())


def group_rows(detector: Detector, graph: Graph, prune_head: bool) -> list[GroupRow]:
    """The coupled channels of a network's graph, which was made with this `prune_head`."""
    groups = [group for group in graph.groups if group.reason != _KERNEL]
    sets: dict[int, set[int]] = defaultdict(set)  # tied set -> group numbers
    for number, group in enumerate(groups, start=1):
        for which in _tied_sets(graph, group.components):
            sets[which].add(number)
    rows = []
    for number, group in enumerate(groups, start=1):
        own = _tied_sets(graph, group.components)
        parts = len(np.unique(graph.tied[group.components, 1])) if own else 1
        tied = sorted(set().union(*(sets[which] for which in own)))
        free = len(tied) == 1 and parts == 1
        layers = list(dict.fromkeys((_layer(parameter), dim) for parameter, dim in group.members))
        rows.append(
            GroupRow(
                number,
                _layer(group.name),
                group.size,
                layers,
                group.frozen,
                group.reason,
                detector.why_it_stays(group, graph, prune_head=prune_head) if group.frozen else "",
                [] if free else tied,
                parts,
            )
        )
    return rows


def _tied_sets(graph: Graph, components: np.ndarray) -> list[int]:
    numbers = np.unique(graph.tied[components, 0])
    return numbers[numbers >= 0].tolist()


def _layers(detector: Detector, flops: dict[str, int]) -> list[LayerRow]:
    modules, found = dict(detector.network.named_modules()), detector.parts()
    total = sum(flops.values())
    rows = []
    for name, value in flops.items():
        module = modules[name]
        weight = getattr(module, "weight", None)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        shape = [] if weight is None else list(weight.shape)
        part = next((part.name for part in found if part.has(name)), "")
        rows.append(LayerRow(name, part, type(module).__name__, shape, own, value / total))
    return rows


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
