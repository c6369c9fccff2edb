"""Which layer gives how many channels, by trial: each trial prunes, recovers and measures the network that it proposes.

A criterion knows what one layer loses, not what is left after hundreds of channels are gone and all layers were
re-solved around them. So its ranking within each tied set is kept, and how the sets compare is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yoloprune.errors import UserError
from yoloprune.graph import Graph, Plan
from yoloprune.graph.budget import chains, tied_set
from yoloprune.yolo.unfinished import Unfinished

__all__ = ["Searched", "search_widths"]

_SETS = 4  # most sets that one trial changes
_SPREAD = 0.8  # standard deviation of the log of a factor that a trial changes


class Searched(NamedTuple):
    """What a search found.

    Attributes:
        plan: The best plan.
        start: Error of the plan that the scores alone lead to.
        error: Error of the best plan.
    """

    plan: Plan
    start: float
    error: float


def search_widths(
    graph: Graph,
    scores: np.ndarray,
    plan_of: Callable[[np.ndarray], Plan],
    error_of: Callable[[Plan], float],
    *,
    trials: int,
    seed: int = 0,
    unfinished: Path | None = None,
    tell: Callable[[int, float], None] = lambda trial, error: None,
) -> Searched:
    """Search factors of the tied sets' scores by a (1+1) evolution strategy (Rechenberg, 1973).

    Args:
        graph: The graph of the network.
        scores: Scores of a criterion, float64 (n_components,).
        plan_of: Makes the plan that reaches the target with given scores.
        error_of: Measures a plan; see `yoloprune.yolo.planning.trial.Trial`.
        trials: How many plans to try beside the first.
        seed: Seed of the proposals.
        unfinished: File that a later call with the same arguments goes on from.
        tell: Called after each new trial with its number and the lowest error so far.

    Returns:
        The best plan and its error.
    """
    sets = [tied_set(graph, chain.steps[0][0]) for chain in chains(graph, scores, round_to=1) if chain.steps]

    def made(factors: np.ndarray) -> Plan:
        scaled = scores.copy()
        for components, factor in zip(sets, factors, strict=True):
            scaled[components] *= np.exp(factor)
        return plan_of(scaled)

    # not by the scores themselves: those of a GPU differ in their last bits when they are computed again
    found = Unfinished(unfinished, (f"{len(sets)} sets, seed {seed}".encode(),))
    if not found.results:
        found.add(error_of(made(np.zeros(len(sets)))))
    best, lowest = np.zeros(len(sets)), found.results[0]
    for trial in range(1, trials + 1):
        factors = _proposal(best, trial, seed)
        if new := trial == len(found.results):
            try:
                found.add(error_of(made(factors)))
            except UserError:  # with these factors no allowed widths come near enough to the target
                found.add(math.inf)
        if found.results[trial] < lowest:
            best, lowest = factors, found.results[trial]
        if new:
            tell(trial, lowest)
    return Searched(made(best), found.results[0], lowest)


def _proposal(factors: np.ndarray, trial: int, seed: int) -> np.ndarray:
    """The best factors so far, a few of them changed."""
    rng = np.random.default_rng((seed, trial))  # so that a resumed search makes the same proposals
    changed = rng.choice(len(factors), min(rng.integers(1, _SETS + 1), len(factors)), replace=False)
    out = factors.copy()
    out[changed] += rng.normal(0, _SPREAD, len(changed))
    return out
