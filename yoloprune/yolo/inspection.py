"""What can be pruned in a model, what cannot and why, and what each layer costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yoloprune.graph import Graph
from yoloprune.yolo import checkpoints
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.planning.budget import Reach, reachable
from yoloprune.yolo.run.options import GFLOPS_IMGSZ
from yoloprune.yolo.trace import trace_yolo

__all__ = ["GroupRow", "Inspection", "LayerRow", "inspect"]

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
        reason: Why they stay.
        tied: Numbers of the groups that lose equally many channels, this one included; empty if it is free.
        parts: Into how many equally long parts a tie cuts this group itself.
    """

    number: int
    name: str
    width: int
    layers: list[tuple[str, int]]
    frozen: bool
    reason: str
    tied: list[int]
    parts: int


@dataclass
class LayerRow:
    """One layer: its share of the cost.

    Attributes:
        name: Module name.
        kind: Module class.
        shape: Shape of its weight; empty for an operator without one.
        params: Number of parameters.
        share: Share of the model's MACs, 0 … 1.
    """

    name: str
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
        groups: Coupled channels, frozen ones included.
        layers: Layers that cost something, in the order in which they run.
        unsupported: Operators that the graph does not understand; what they touch stays.
    """

    family: str
    task: str
    reach: Reach
    groups: list[GroupRow]
    layers: list[LayerRow]
    unsupported: dict[str, int]


def inspect(yolo: YOLO, *, prune_head: bool = False, keep: Sequence[str] = (), round_to: int = 8) -> Inspection:
    """Trace a model and say what was found; the model is not changed."""
    graph = trace_yolo(yolo.model, prune_head, keep)
    reach = reachable(graph, yolo.model, imgsz=GFLOPS_IMGSZ, round_to=round_to)
    family = checkpoints.family(yolo)
    return Inspection(family, yolo.task, reach, _groups(graph), _layers(graph, yolo), dict(graph.unsupported))


def _groups(graph: Graph) -> list[GroupRow]:
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
                [] if free else tied,
                parts,
            )
        )
    return rows


def _tied_sets(graph: Graph, components: np.ndarray) -> list[int]:
    numbers = np.unique(graph.tied[components, 0])
    return numbers[numbers >= 0].tolist()


def _layers(graph: Graph, yolo: YOLO) -> list[LayerRow]:
    modules = dict(yolo.model.named_modules())
    macs: dict[str, float] = defaultdict(float)
    for term, value in zip(graph.cost.terms, graph.cost.per_term(np.ones(graph.n_components, bool)), strict=True):
        macs[term.module] += value
    total = sum(macs.values())
    rows = []
    for name, value in macs.items():
        module = modules[name]
        weight = getattr(module, "weight", None)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        shape = [] if weight is None else list(weight.shape)
        rows.append(LayerRow(name, type(module).__name__, shape, own, value / total))
    return rows


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
