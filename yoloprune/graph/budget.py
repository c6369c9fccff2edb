"""From scores to what is removed: chains of steps, and the global threshold that lands on a budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from yoloprune.graph.core import Graph

__all__ = ["Chain", "chains", "cheapest", "merged", "search", "tied_set"]

_NEAR = 0.98  # of the target: what users are promised
_WORTHWHILE = 0.5  # of a chain's mean saving by step: less is no step of its own
_BACK = 3  # steps of one chain that are given back at most, so that the result follows the scores closely


class Chain(NamedTuple):
    """Steps of one tied set in the order in which they go; a prefix may be removed, never all.

    Attributes:
        scores: Mean importance of each step, never falling, float64 (steps,).
        steps: Component ids that each step removes.
    """

    scores: np.ndarray
    steps: list[np.ndarray]


def chains(graph: Graph, scores: np.ndarray, round_to: int, max_pruning_ratio: float | np.ndarray = 1.0) -> list[Chain]:
    """Rank each tied set's channels, weakest first, and cut the ranking into steps that end on allowed widths.

    The parts of a tied set are ranked on their own and lose their weakest channels in step, at most `max_pruning_ratio`
    of them: one share for all or one for each component, float64 (n_components,).
    """
    limits = np.broadcast_to(max_pruning_ratio, graph.n_components)
    group_of = np.full(graph.n_components, -1)
    for i, group in enumerate(graph.groups):
        group_of[group.components] = i
    order = np.lexsort((np.arange(graph.n_components), scores, graph.tied[:, 1], graph.tied[:, 0]))
    order = order[graph.tied[order, 0] >= 0]
    sets, starts = np.unique(graph.tied[order, 0], return_index=True)
    found = []
    for _, part in zip(sets, np.split(order, starts[1:]), strict=False):
        _classes, first = np.unique(graph.tied[part, 1], return_index=True)
        rows = np.stack(np.split(part, first[1:]))  # (parts, width), weakest first
        groups = group_of[rows[:, 0]]
        parts = np.bincount(groups)
        parallel = int(parts.max())  # parts of one and the same layer: their widths add up
        asked = np.ceil(graph.least[rows].max(1) / parts[groups]).max()
        step = round_to // math.gcd(round_to, parallel)
        width = rows.shape[1]
        least = max(math.ceil(round((1 - limits[part].min()) * width, 6)), int(asked), 1)
        widths = list(range((width - 1) // step * step, least - 1, -step))
        cuts = [0] + [width - w for w in widths]
        steps = [rows[:, a:b].ravel() for a, b in itertools.pairwise(cuts)]
        means = np.array([scores[s].mean() for s in steps])
        found.append(Chain(np.maximum.accumulate(means) if len(means) else means, steps))
    return found


def merged(graph: Graph, found: list[Chain], cost: Callable[[np.ndarray], float]) -> list[Chain]:
    """Join steps that save next to nothing with the one behind them, so that widths end where the cost really falls.

    Kernels compute in blocks of channels: on some processors 56 and 64 outputs take the same time, and 48 much less.

    Args:
        graph: The graph.
        found: Chains, as `chains` returns them.
        cost: Non-decreasing function of bool (n_components,), such as milliseconds on a device.
    """
    kept = np.ones(graph.n_components, bool)
    whole = cost(kept)
    result = []
    for chain in found:
        left, costs = kept.copy(), [whole]
        for step in chain.steps:
            left[step] = False
            costs.append(cost(left))
        enough = _WORTHWHILE * (whole - costs[-1]) / max(len(chain.steps), 1)
        ends, last = [], whole
        for i, now in enumerate(costs[1:]):
            if last - now >= enough or (i == len(chain.steps) - 1 and last > now):
                ends.append(i + 1)
                last = now
        parts = list(itertools.pairwise([0, *ends]))
        steps = [np.concatenate(chain.steps[a:b]) for a, b in parts]
        means = np.array([np.average(chain.scores[a:b], weights=[len(s) for s in chain.steps[a:b]]) for a, b in parts])
        result.append(Chain(np.maximum.accumulate(means) if len(means) else means, steps))
    return result


def tied_set(graph: Graph, component: int) -> np.ndarray:
    """The components of the tied set that `component` is in, int64."""
    return np.flatnonzero(graph.tied[:, 0] == graph.tied[component, 0])


def cheapest(graph: Graph, round_to: int, max_pruning_ratio: float | np.ndarray = 1.0) -> np.ndarray:
    """What goes when everything goes that may, bool (n_components,)."""
    removed = np.zeros(graph.n_components, bool)
    for chain in chains(graph, np.zeros(graph.n_components), round_to, max_pruning_ratio):
        for step in chain.steps:
            removed[step] = True
    return removed


def search(
    graph: Graph,
    scores: np.ndarray,
    target: float,
    round_to: int,
    cost: Callable[[np.ndarray], float],
    max_pruning_ratio: float | np.ndarray = 1.0,
    closeness: float = 0.995,
    in_blocks: bool = False,
) -> np.ndarray:
    """The components to remove so that `cost` of the rest is at most `target`, and as near to it as steps allow.

    Args:
        graph: The graph.
        scores: float64 (n_components,).
        target: Upper bound on `cost(kept)`.
        round_to: Multiple for widths.
        cost: Non-decreasing function of bool (n_components,).
        max_pruning_ratio: Share of its channels that a tied set may lose, as `chains` takes it.
        closeness: The search ends at the first result whose cost is at least this share of the target; if there is
            none, it returns the nearest that it found.
        in_blocks: Whether steps that save next to nothing are joined with others; see `merged`.

    Raises:
        ValueError: If no plan is cheap enough.
    """
    all_chains = chains(graph, scores, round_to, max_pruning_ratio)
    if in_blocks:
        all_chains = merged(graph, all_chains, cost)
    entries = sorted((float(s), i) for i, c in enumerate(all_chains) for s in c.scores)  # a chain's scores never fall

    components = np.concatenate([step for c in all_chains for step in c.steps] or [np.zeros(0, np.int64)])
    sizes = [(i, rank, len(step)) for i, c in enumerate(all_chains) for rank, step in enumerate(c.steps)]
    chain, rank, size = np.array(sizes, np.int64).reshape(-1, 3).T
    chain, rank = np.repeat(chain, size), np.repeat(rank, size)

    def removed(counts: np.ndarray) -> np.ndarray:
        gone = np.zeros(graph.n_components, bool)
        gone[components[rank < counts[chain]]] = True
        return gone

    def weakest(n: int) -> np.ndarray:
        """How many steps each chain has among the n weakest of all."""
        return np.bincount([i for _, i in entries[:n]], minlength=len(all_chains)).astype(np.int64)

    def left(counts: np.ndarray) -> float:
        return cost(~removed(counts))

    if left(weakest(0)) <= target:
        return removed(weakest(0))
    smallest = left(weakest(len(entries)))
    if smallest > target:
        raise ValueError(f"target {target:.4g} is below the smallest reachable figure, {smallest:.4g}")
    low, high = 0, len(entries)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if left(weakest(middle)) <= target else (middle, high)
    best = weakest(high)
    best_cost = left(best)
    # a step that goes too far is left out, with what follows it in its chain, and smaller ones are tried instead
    counts, closed = weakest(low), set()
    for _, i in entries[low:]:
        if best_cost >= closeness * target:
            break
        if i in closed:
            continue
        trial = _moved(counts, i, 1)
        now = left(trial)
        if now > target:
            counts = trial
        else:
            closed.add(i)
            if now > best_cost:
                best, best_cost = trial, now
    lengths = np.array([len(c.steps) for c in all_chains])
    while best_cost < _NEAR * target:  # coarse steps: give some back and take others instead
        fitting: list[tuple[float, int, np.ndarray]] = []
        for i, j in itertools.permutations(range(len(all_chains)), 2):
            for back in range(1, min(_BACK, best[i]) + 1):
                trial = _moved(best, i, -back)
                while left(trial) > target and trial[j] < lengths[j]:
                    trial = _moved(trial, j, 1)
                if best_cost < left(trial) <= target:
                    fitting.append((left(trial), len(fitting), trial))
        if not fitting:
            break
        best_cost, _, best = max(fitting)
    return removed(best)


def _moved(counts: np.ndarray, chain: int, by: int) -> np.ndarray:
    counts = counts.copy()
    counts[chain] += by
    return counts
