"""The dependency graph of a network: components of coupled slices, layer-level groups, ties and costs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from yoloprune.errors import UserError
from yoloprune.exclusive import exclusive
from yoloprune.graph import budget, matrices
from yoloprune.graph.cost import Cost
from yoloprune.graph.labels import Ledger, Slice
from yoloprune.graph.matrices import Matrix
from yoloprune.graph.parameters import named_tensors
from yoloprune.graph.plan import Plan
from yoloprune.graph.ties import distinct, resolve
from yoloprune.graph.tracing import tracer
from yoloprune.graph.union_find import FROZEN

__all__ = ["Graph", "Group", "Part", "trace"]

Freeze = str | type | Callable[[str, nn.Module], bool]
Part = tuple[str, int, int, int]  # parameter, dimension, start, stop


@dataclass(frozen=True)
class Group:
    """Components that touch the same parameter dimensions: the paper's group (Fang et al., CVPR 2023, Sec. 3.2).

    Attributes:
        name: Parameter of the first layer that produces these channels.
        size: Number of components (channels that go one by one).
        members: (parameter, dimension) pairs that shrink together.
        frozen: Whether nothing of it may be removed.
        reason: Why it is frozen, else "".
        components: Component ids, shape (size,).
    """

    name: str
    size: int
    members: tuple[tuple[str, int], ...]
    frozen: bool
    reason: str
    components: np.ndarray


class Graph:
    """What `trace` found. Label l belongs to component `component[l]`; component 0 is that of constants.

    Attributes:
        slices: Labelled parameter dimensions.
        component: Component of each label, int32 (labels,).
        n_components: Number of components.
        producing: Whether a label is an output of some layer, bool (labels,).
        links: Layers of which the first feeds the second.
        produced: Whether a component is an output channel of some layer, bool (n_components,).
        frozen: Whether a component must stay, bool (n_components,).
        groups: Layer-level groups, frozen ones included.
        tied: For each component the number of its tied set and its class in it, or -1, int64 (n_components, 2).
        least: How many channels of a component's layer must stay, int64 (n_components,).
        unsupported: Operators without a rule that carried labels, with how often; what they touch is frozen.
        statistics: Operators that take statistics over prunable channels (LayerNorm …).
        uncalled: Modules with parameters of which the execution reached none (a head that only trains, an expert that
            no token chose): their widths do not follow.
        cost: MACs and parameters as a function of what is kept.
    """

    def __init__(
        self,
        ledger: Ledger,
        model: nn.Module,
        user_frozen: list[tuple[np.ndarray, str]],
        user_ties: list[np.ndarray],
        user_least: list[tuple[np.ndarray, int]],
    ) -> None:
        self.slices: list[Slice] = ledger.slices
        tensors = named_tensors(model)
        self.shapes = {name: t.shape for name, t in tensors.items()}
        self.is_parameter = {name: isinstance(t, nn.Parameter) for name, t in tensors.items()}
        self.unsupported = dict(ledger.unsupported)
        self.statistics = sorted(ledger.statistics)
        self.uncalled = _uncalled(model, {id(tensors[name]) for name in ledger.reached})
        n = ledger.size
        self.component, meets_constant = ledger.union_find.components(n)
        self.n_components = int(self.component.max()) + 1

        events = [(meets_constant, "meets a constant's channels")]
        events += [(labels.numpy(), reason) for labels, reason in ledger.frozen] + user_frozen
        producing = ledger.producing()
        produced = np.zeros(self.n_components, bool)
        produced[self.component[producing]] = True
        self.produced, self.producing, self.links = produced, producing, list(ledger.links)
        reason = np.full(self.n_components, -1)
        texts = [text for _, text in events] + ["no layer produces these channels", "is tied to channels that stay"]
        texts.append("is tied to parts that cannot lose equally many")
        for i in reversed(range(len(events))):
            reason[self.component[events[i][0]]] = i
        reason[(reason < 0) & ~produced] = len(events)
        reason[self.component[FROZEN]] = 0
        ties = []
        for tie in [self.component[t.numpy()] for t in ledger.ties] + [self.component[t] for t in user_ties]:
            if (plain := distinct(tie)) is None:
                reason[tie[reason[tie] < 0]] = len(events) + 2
            else:
                ties.append(plain)
        self._freeze_columns(reason, ties, len(events) + 1)
        self.frozen = reason >= 0
        self.groups, classes = self._group(producing, lambda c: texts[reason[c]] if self.frozen[c] else "")
        # from here on, a column of a tie is kept or removed as a whole
        classes, sets = resolve(classes, [tie[:, ~self.frozen[tie[0]]] for tie in ties])
        self.tied = np.full((self.n_components, 2), -1, np.int64)
        live = classes >= 0
        self.tied[live] = np.stack([sets[classes[live]], classes[live]], 1)
        self.least = np.zeros(self.n_components, np.int64)
        for labels, count in user_least:
            self.least[self.component[labels]] = np.maximum(self.least[self.component[labels]], count)
        self.cost = Cost(self, ledger.costs)

    @staticmethod
    def _freeze_columns(reason: np.ndarray, ties: list[np.ndarray], code: int) -> None:
        """A channel that is opposite a frozen one in a tie must stay too, or the parts would lose different counts."""
        changed = True
        while changed:
            changed = False
            for tie in ties:
                frozen = reason[tie] >= 0
                bad = tie[:, frozen.any(0)]
                bad = bad[reason[bad] < 0]
                if bad.size:
                    reason[bad] = code
                    changed = True

    def _group(self, producing: np.ndarray, why: Callable[[int], str]) -> tuple[list[Group], np.ndarray]:
        salts = np.random.default_rng(0).integers(1, 2**61, size=len(self.slices), dtype=np.int64)
        key = np.zeros(self.n_components, np.int64)
        for s, salt in zip(self.slices, salts, strict=True):
            key[self.components_of(s)] += salt  # once, however many of its labels the component has
        key = key * 2 + self.frozen
        # every component except that of constants has labels in slices
        _, first, inverse = np.unique(key[1:], return_index=True, return_inverse=True)
        number = np.argsort(np.argsort(first))[inverse]  # groups in the order of their first components
        first = np.sort(first) + 1
        order, sizes = np.argsort(number, kind="stable") + 1, np.bincount(number)
        classes = np.full(self.n_components, -1, np.int64)
        groups: list[Group] = []
        for c, own, size, end in zip(first, self._slices_of(first), sizes, np.cumsum(sizes), strict=True):
            components = order[end - size : end]
            name = next((s.parameter for s in own if producing[s.start]), own[0].parameter)
            frozen = bool(self.frozen[c])
            if not frozen:
                classes[components] = len(groups)
            pairs = tuple((s.parameter, s.dim) for s in own)
            groups.append(Group(name, len(components), pairs, frozen, why(c), components))
        return groups, classes

    def _slices_of(self, components: np.ndarray) -> list[list[Slice]]:
        """The slices that have labels of each of these components."""
        place = np.full(self.n_components, -1, np.int32)
        place[components] = np.arange(len(components))
        touched: list[list[Slice]] = [[] for _ in components]
        for s in self.slices:
            here = place[self.components_of(s)]
            for i in np.unique(here[here >= 0]):
                touched[i].append(s)
        return touched

    def components_of(self, dimension: Slice) -> np.ndarray:
        """The component of each index of a parameter's dimension, int32 (size,)."""
        return self.component[dimension.start : dimension.start + dimension.size]

    def parameters(self, model: nn.Module) -> dict[str, Tensor]:
        """Tensors of a model by the names that slices use; shared tensors once."""
        return named_tensors(model)

    def macs(self) -> int:
        """Multiply-accumulates of one execution at the traced input."""
        return round(self.cost.macs(np.ones(self.n_components, bool)))

    def params(self) -> int:
        """Number of parameters."""
        return self.cost.params(np.ones(self.n_components, bool))

    def grouping_matrix(self) -> Matrix:
        """Which inputs and outputs of layers lose channels together, for inspection on small models."""
        return matrices.grouping(self)

    def dependency_matrix(self) -> Matrix:
        """Which of them depend on each other directly, for inspection on small models."""
        return matrices.dependency(self)

    def plan(self, removed: np.ndarray) -> Plan:
        """The plan that removes these components.

        Args:
            removed: bool (n_components,).

        Raises:
            ValueError: If a frozen component is among them.
        """
        removed = np.asarray(removed, bool)
        if (removed & self.frozen).any():
            raise ValueError(f"component {int(np.flatnonzero(removed & self.frozen)[0])} is frozen and cannot go")
        gone = removed[self.component]
        keep: dict[str, dict[int, list[int]]] = {}
        for s in self.slices:
            here = gone[s.start : s.start + s.size]
            if here.any():
                keep.setdefault(s.parameter, {})[s.dim] = np.flatnonzero(~here).tolist()
        kept = ~removed
        shapes = {p: list(self.shapes[p]) for p in keep}
        return Plan(keep, shapes, round(self.cost.macs(kept)), self.cost.params(kept))

    def random_plan(self, ratio: float = 0.5, seed: int = 0) -> Plan:
        """Remove `ratio` of every group's channels at random; ties are respected and no group dies."""
        rng = np.random.default_rng(seed)
        removed = np.zeros(self.n_components, bool)
        for chain in budget.chains(self, rng.random(self.n_components), round_to=1):
            for step in chain.steps[: round(len(chain.steps) * ratio)]:
                removed[step] = True
        return self.plan(removed)

    def budget_plan(
        self,
        scores: np.ndarray,
        *,
        target_macs: float,
        round_to: int = 8,
        max_pruning_ratio: float | np.ndarray = 1.0,
    ) -> Plan:
        """Remove the lowest-scored channels, globally, until at most `target_macs` are left.

        Args:
            scores: Importance of each component, float64 (n_components,); higher stays.
            target_macs: MACs of one execution at the traced input.
            round_to: Widths become multiples of this (a width that is not one may stay as it is).
            max_pruning_ratio: Share of its channels that a layer may lose; 1: all but one step of `round_to`. An array
                (n_components,) gives each component's layer a share of its own.

        Raises:
            ValueError: If no plan reaches the target; the message names the smallest reachable figure.
        """
        return self.plan(budget.search(self, scores, target_macs, round_to, self.cost.macs, max_pruning_ratio))


@exclusive
def trace(
    model: nn.Module,
    example_inputs: Any,
    freeze: Sequence[Freeze] = (),
    tie: Sequence[Sequence[str | Part]] = (),
    least: Mapping[str, int] | None = None,
) -> Graph:
    """Find the coupled parameters of any network from one execution (DepGraph, Fang et al., CVPR 2023, Sec. 3.1).

    Args:
        model: Any module; it is not changed.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        freeze: Layers whose outputs must stay: module name patterns ("head.*"), module classes or predicates
            `(name, module) -> bool`. Their inputs still follow.
        tie: Sets of parts that must lose equally many channels: layers by name, or (parameter, dimension, start, stop).
        least: Layer -> number of its output channels that must stay.

    Raises:
        UserError: If one of these names what the model does not have, or ties parts of different sizes.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))
        >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
        >>> [(g.name, g.size) for g in graph.groups if not g.frozen]
        [('0.weight', 16)]
    """
    ledger = tracer.run(model, example_inputs)
    starts = {(s.parameter, s.dim): s for s in ledger.slices}
    chosen = set()
    for f in freeze:
        found = {name for name, module in model.named_modules() if _matches(name, module, f)}
        if isinstance(f, str) and not found:
            raise UserError(f"freeze names {f!r}, which is no layer of the model")
        chosen |= found
    user_frozen = []
    if chosen:
        producing = ledger.producing()
        for s in ledger.slices:
            owner = s.parameter.rpartition(".")[0]
            if owner in chosen or any(owner.startswith(f"{c}.") for c in chosen if c):
                labels = np.arange(s.start, s.start + s.size)
                user_frozen.append((labels[producing[labels]], "is kept on request"))
    user_ties = []
    for entries in tie:
        rows = []
        for entry in entries:
            parameter, dim, start, stop = _outputs(ledger, entry) if isinstance(entry, str) else entry
            if (parameter, dim) not in starts or not 0 <= start < stop <= starts[parameter, dim].size:
                raise UserError(f"tie names {start}:{stop} of {parameter!r} in dimension {dim}, which there is not")
            rows.append(np.arange(starts[parameter, dim].start + start, starts[parameter, dim].start + stop))
        if len({len(row) for row in rows}) != 1:
            raise UserError(f"tie needs parts of equal size, but {list(entries)} have {[len(row) for row in rows]}")
        user_ties.append(np.stack(rows))
    user_least = []
    for layer, count in (least or {}).items():
        parameter, dim, start, stop = _outputs(ledger, layer)
        first = starts[parameter, dim].start
        user_least.append((np.arange(first + start, first + stop), count))
    return Graph(ledger, model, user_frozen, user_ties, user_least)


def _uncalled(model: nn.Module, reached: set[int]) -> list[str]:
    """Names of the modules with parameters of their own, of which none is among those reached."""
    return [
        name
        for name, module in model.named_modules()
        if (own := [id(p) for p in module.parameters(recurse=False)]) and reached.isdisjoint(own)
    ]


def _outputs(ledger: Ledger, layer: str) -> Part:
    """The output channels of a layer as an entry of `tie`."""
    producing = ledger.producing()
    for s in ledger.slices:
        if s.parameter.rpartition(".")[0] == layer and producing[s.start]:
            return s.parameter, s.dim, 0, s.size
    raise UserError(f"tie or least names {layer!r}, which is no layer with output channels")


def _matches(name: str, module: nn.Module, freeze: Freeze) -> bool:
    if isinstance(freeze, str):
        return fnmatch.fnmatchcase(name, freeze)
    if isinstance(freeze, type):
        return isinstance(module, freeze)
    return bool(freeze(name, module))
