"""Which layer gives how many channels, by trial: each trial prunes, recovers and measures the network that it proposes.

A criterion knows what one layer loses, not what is left after hundreds of channels are gone and all layers were
re-solved around them. So its ranking within each tied set is kept, and how the sets compare is searched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.graph import Graph, Plan
from yoloprune.graph.budget import chains, tied_set

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
    state: Path | None = None,
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
        state: File that a later call with the same arguments goes on from.
        tell: Called after each trial with its number and the lowest error so far.

    Returns:
        The best plan and its error.
    """
    sets = [tied_set(graph, chain.steps[0][0]) for chain in chains(graph, scores, round_to=1) if chain.steps]

    def made(factors: np.ndarray) -> Plan:
        scaled = scores.copy()
        for components, factor in zip(sets, factors, strict=True):
            scaled[components] *= np.exp(factor)
        return plan_of(scaled)

    found = _read(state, len(sets))
    if found is None:
        error = error_of(made(np.zeros(len(sets))))
        found = {"trials": 0, "start": error, "error": error, "factors": [0.0] * len(sets)}
    for trial in range(found["trials"] + 1, trials + 1):
        factors = _proposal(np.array(found["factors"]), trial, seed)
        found["trials"] = trial
        try:
            error = error_of(made(factors))
        except UserError:  # with these factors no allowed widths come near enough to the target
            error = np.inf
        if error < found["error"]:
            found |= {"error": error, "factors": factors.tolist()}
        if state:
            with atomic(state) as tmp:
                tmp.write_text(json.dumps(found))
        tell(trial, found["error"])
    return Searched(made(np.array(found["factors"])), found["start"], found["error"])


def _proposal(factors: np.ndarray, trial: int, seed: int) -> np.ndarray:
    """The best factors so far, a few of them changed."""
    rng = np.random.default_rng((seed, trial))  # so that a resumed search makes the same proposals
    changed = rng.choice(len(factors), min(rng.integers(1, _SETS + 1), len(factors)), replace=False)
    out = factors.copy()
    out[changed] += rng.normal(0, _SPREAD, len(changed))
    return out


def _read(state: Path | None, sets: int) -> dict[str, Any] | None:
    """What an interrupted search left, if it is whole and of this network."""
    if state is None or not state.exists():
        return None
    try:
        found = json.loads(state.read_text())
        return found if len(found["factors"]) == sets else None
    except (ValueError, KeyError, TypeError):
        return None
