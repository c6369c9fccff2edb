"""From what was asked for to the figures that each step aims at, and the plans that reach them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from yoloprune.deploy.latency_model import LatencyModel
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.graph import Graph, Plan
from yoloprune.graph import budget as core

from .exact import check_exact
from .options import Options

__all__ = [
    "Cost",
    "OutOfReachError",
    "Reach",
    "Target",
    "check_reachable",
    "cost",
    "plan_for_target",
    "reachable",
    "step_targets",
]

_TOLERANCE = 0.98


class OutOfReachError(UserError):
    """A target that pruning alone cannot reach."""


class Reach(NamedTuple):
    """Smallest and own figures of a model under one rounding."""

    min_gflops: float
    max_gflops: float
    min_params: int
    max_params: int


def _pruned_gflops(detector: Detector, graph: Graph, plan: Plan) -> float:
    try:
        return detector.holding(plan.apply(detector.network)).gflops()
    except UserError:
        check_exact(detector, graph, plan)  # if the pruned network does not run, this names the layers to keep
        raise


def reachable(
    detector: Detector, graph: Graph, *, round_to: int = 8, max_pruning_ratio: float | np.ndarray = 1.0
) -> Reach:
    """What this model can be pruned to when every layer keeps its narrowest allowed width; see `Graph.budget_plan`."""
    smallest = graph.plan(core.cheapest(graph, round_to, max_pruning_ratio))
    return Reach(_pruned_gflops(detector, graph, smallest), detector.gflops(), smallest.params(), graph.params())


def plan_for_target(
    detector: Detector,
    graph: Graph,
    scores: np.ndarray,
    *,
    target_gflops: float | None = None,
    target_params: int | None = None,
    target_ms: float | None = None,
    latency: LatencyModel | None = None,
    round_to: int = 8,
    max_pruning_ratio: float | np.ndarray = 1.0,
) -> Plan:
    """The plan whose pruned model is at most the target and at least 98 % of it.

    Milliseconds are what `latency` says; for them widths end where the backend gains by it.

    Ultralytics' profiler also counts norms and activations, so the target is put to the cost model in its own unit,
    measured on the pruned network, and corrected until it fits.

    Raises:
        OutOfReachError: If no plan gets there; the message names the reachable range.
    """
    limits: dict[str, Any] = {"round_to": round_to, "max_pruning_ratio": max_pruning_ratio}
    if target_params is not None:
        try:
            return graph.plan(core.search(graph, scores, target_params, cost=graph.cost.params, **limits))
        except ValueError as error:
            reach = reachable(detector, graph, **limits)
            raise OutOfReachError(
                f"{target_params} parameters cannot be reached; choose from {reach.min_params} to {reach.max_params}."
            ) from error
    if target_ms is not None:
        try:
            return graph.plan(core.search(graph, scores, target_ms, cost=latency, in_blocks=True, **limits))
        except ValueError as error:
            least = latency(~core.cheapest(graph, **limits))
            raise OutOfReachError(
                f"{target_ms:.2f} ms are out of reach; the least that pruning can reach here is some {least:.2f} ms. "
                "Give more, prune the head's hidden layers too (--prune-head), or take a smaller --imgsz."
            ) from error
    assert target_gflops is not None
    own = detector.gflops()
    best, best_value = None, 0.0
    points = [(float(graph.macs()), own)]
    ask = graph.macs() * target_gflops / own
    floor = graph.cost.macs(~core.cheapest(graph, **limits))
    for _ in range(10):
        ask = max(ask, floor)
        plan = graph.budget_plan(scores, target_macs=ask, **limits)
        value = _pruned_gflops(detector, graph, plan)
        if best_value < value <= target_gflops:
            best, best_value = plan, value
        if _TOLERANCE * target_gflops <= value <= target_gflops or (ask == floor and value > target_gflops):
            break
        points.append((float(plan.macs()), value))
        (m0, g0), (m1, g1) = points[0], points[-1]
        slope = (g0 - g1) / (m0 - m1) if m0 != m1 else own / graph.macs()
        aim = target_gflops * (0.997 if value > target_gflops else 1.0)
        ask += (aim - value) / slope
    if best is None or best_value < _TOLERANCE * target_gflops:
        reach = reachable(detector, graph, **limits)
        raise OutOfReachError(
            f"{target_gflops:g} GFLOPs cannot be reached at multiples of {round_to}; the model can be pruned to "
            f"{reach.min_gflops:.2f} … {reach.max_gflops:.2f} GFLOPs, so choose a target in that range or a smaller "
            "--round-to."
        )
    return best


class Cost(NamedTuple):
    """GFLOPs at 640 px and parameters of a network, as `model.info()` prints them."""

    gflops: float
    params: int


class Target(NamedTuple):
    """What a step aims at: one of the first three; `before_ms` is what the step's network takes before it."""

    gflops: float | None = None
    params: int | None = None
    ms: float | None = None
    before_ms: float | None = None

    @property
    def value(self) -> float:
        """The one that is asked for."""
        return next(value for value in (self.ms, self.params, self.gflops) if value is not None)

    def share(self, own: Cost) -> float:
        """What part of a network's own figure is to stay."""
        if self.ms is not None:
            return self.ms / self.before_ms
        return self.params / own.params if self.gflops is None else self.gflops / own.gflops

    def __str__(self) -> str:
        if self.ms is not None:
            return f"{self.ms:.2f} ms"
        return f"{self.params / 1e6:.3f}M parameters" if self.gflops is None else f"{self.gflops:.2f} GFLOPs"


def cost(detector: Detector) -> Cost:
    """GFLOPs at 640 px and parameters."""
    return Cost(detector.gflops(), detector.params)


def _final(options: Options, own: Cost, own_ms: float | None = None) -> Target:
    if options.timed:
        return Target(ms=options.target_ms or own_ms / options.target_speedup, before_ms=own_ms)
    if options.target_ratio is not None:
        return Target(options.target_ratio * own.gflops, None)
    return Target(options.target_gflops, options.target_params)


def step_targets(options: Options, own: Cost, own_ms: float | None = None) -> list[Target]:
    """The targets of all steps: a geometric series from the model's own figure to the one asked for.

    Args:
        options: The target and the number of steps.
        own: What the model costs.
        own_ms: Milliseconds that it takes, if the target is a time.
    """
    final = _final(options, own, own_ms)
    shares = [(k + 1) / options.steps for k in range(options.steps)]
    if final.ms is not None:
        times = [own_ms, *(own_ms * (final.ms / own_ms) ** s for s in shares[:-1]), final.ms]
        return [Target(ms=after, before_ms=before) for before, after in itertools.pairwise(times)]
    if final.gflops is not None:
        return [Target(own.gflops * (final.gflops / own.gflops) ** s, None) for s in shares[:-1]] + [final]
    return [Target(None, round(own.params * (final.params / own.params) ** s)) for s in shares[:-1]] + [final]


def check_reachable(options: Options, detector: Detector, graph: Graph, own: Cost, own_ms: float | None = None) -> None:
    """Check the target before any work; what time can be reached is known once a table is measured.

    Raises:
        UserError: The target is above the model's own figure.
        OutOfReachError: It is below the smallest that pruning can reach.
    """
    if options.timed:
        if options.target_ms and options.target_ms >= own_ms:
            raise UserError(
                f"The target of {options.target_ms:g} ms is not below the {own_ms:.2f} ms that the model takes itself "
                f"at {options.imgsz} px; choose fewer."
            )
        return
    reach = reachable(
        detector,
        graph,
        round_to=options.round_to,
        max_pruning_ratio=options.max_pruning_ratio or 1.0,
    )
    final = _final(options, own)
    if final.gflops is not None:
        wanted, least, most = final.gflops, reach.min_gflops, own.gflops
        text = f"The target of {wanted:,g} GFLOPs", f"{least:.2f} to {most:.2f} GFLOPs"
    else:
        wanted, least, most = final.params, reach.min_params, own.params
        text = f"The target of {wanted / 1e6:,g}M parameters", f"{least / 1e6:.3f}M to {most / 1e6:.3f}M parameters"
    if wanted >= most:
        raise UserError(f"{text[0]} is not below the model's own figure; choose one in the reachable range, {text[1]}.")
    if wanted < least:
        more = (
            ""
            if options.prune_head or not detector.prunes_head
            else ", or prune the head's hidden layers too (--prune-head)"
        )
        more += ", or give a smaller --round-to" if options.round_to > 1 else ""
        more += ", or a larger --max-pruning-ratio" if options.max_pruning_ratio else ""
        raise OutOfReachError(f"{text[0]} is out of reach; choose one in the reachable range, {text[1]}{more}.")
