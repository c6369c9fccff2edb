"""One pruning: score, plan, prune, recover without training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from yoloprune.criteria import CRITERIA, score
from yoloprune.deploy.latency_model import LatencyModel
from yoloprune.detectors.base import Detector
from yoloprune.graph import Graph, Plan
from yoloprune.graph.per_step_limit import per_step_limit
from yoloprune.progress import counter
from yoloprune.recovery import reconstruct

from .exact import check_exact
from .given_plan import read_plan
from .on_device import OnDevice
from .options import Options
from .planning import TRIALS, Trial, best_limit, ranking_options, rankings
from .scores import calibrated, run_images
from .state import fingerprint
from .targets import OutOfReachError, Target, cost, plan_for_target

__all__ = ["Pruned", "prune_once"]

_FEW = 2  # images that saved networks are checked on: a detector of the largest size takes a second for each


class Pruned(NamedTuple):
    """What a pruning gave.

    Attributes:
        detector: The smaller one.
        plan: The plan that led to it, against the weights before.
        notes: Lines for the user.
        error: What `check_exact` found.
        images: A few of the calibration images on the CPU, if any were looked at.
    """

    detector: Detector
    plan: Plan
    notes: list[str]
    error: float
    images: Tensor | None


def prune_once(
    detector: Detector,
    target: Target,
    options: Options,
    *,
    earlier: tuple[Detector, Plan] | None = None,
    device: OnDevice | None = None,
) -> Pruned:
    """Prune to the target and, if asked for, recover without training.

    Args:
        detector: The one to prune; left as it is.
        target: GFLOPs or parameters to reach.
        options: Criterion, rounding, data and so on.
        earlier: The detector before the first step and the plan of the steps so far, if there were any.
        device: Where the network is to be faster, if the target is a time.

    Raises:
        OutOfReachError: The target cannot be reached.
        UserError: The criterion lacks what it needs.
    """
    network = detector.network
    graph = detector.trace(options.prune_head, options.keep, options.portable)
    looks = options.recover or (CRITERIA[options.criterion].needs_batches and not options.plan)
    batches = run_images(detector, options) if looks else []
    notes: list[str] = []
    if options.plan:
        network.cpu()
        plan, _, said = read_plan(options.plan, detector)
        notes.append(said)
    else:
        plan = _ranked_plan(detector, graph, target, options, batches, notes, earlier, device)
    plan = replace(plan, weights=fingerprint(network))
    error = check_exact(detector, graph, plan)
    pruned = detector.holding(plan.apply(network))
    pruned.block_foreign_training()
    if options.recover:
        notes += _recover(pruned, detector, plan, batches, options.seed)
    images = batches[0]["img"][:_FEW].cpu() if batches else None
    return Pruned(pruned, plan, notes, error, images)


def _ranked_plan(
    detector: Detector,
    graph: Graph,
    target: Target,
    options: Options,
    batches: list[dict[str, Any]],
    notes: list[str],
    earlier: tuple[Detector, Plan] | None,
    device: OnDevice | None,
) -> Plan:
    """The plan that reaches the target by the ranking, or by the better of two; adds to the notes what was decided."""
    network, entry = detector.network, CRITERIA[options.criterion]
    share = target.share(cost(detector))
    tries = bool(options.recover) and options.max_pruning_ratio is None
    ranked = {
        name: score(
            graph,
            network,
            name,
            seed=options.seed,
            batches=batches if entry.needs_batches else None,
            loss=_loss(detector, options) if entry.needs_batches else None,
            tell=counter("ranking batch"),
            **(ranking_options(name, share) if entry.per_mac else {}),
        )
        for name in rankings(options.criterion, tries)
    }
    model = device.model(detector, graph, target.before_ms) if device else None
    if model:
        ranked = {name: _by_time(graph, model, values, name, share) for name, values in ranked.items()}
    scores = ranked[options.criterion]
    plan_of = partial(
        plan_for_target,
        detector,
        graph,
        target_gflops=target.gflops,
        target_params=target.params,
        target_ms=target.ms,
        latency=model,
        round_to=options.round_to,
    )
    trial = Trial(detector, batches, options.seed, TRIALS + len(ranked) - 1) if tries else None
    if options.max_pruning_ratio is None:
        scores, limit = _limited(plan_of, ranked, trial, share, notes)
    else:
        limit = _given_limit(options, graph, earlier)
    network.cpu()
    final = partial(plan_of, scores, max_pruning_ratio=limit)
    if device:
        plan, said = device.settle(model, final, lambda plan: detector.holding(plan.apply(network)), target.ms)
        notes.append(said)
        return plan
    return final()


def _by_time(graph: Graph, model: LatencyModel, scores: np.ndarray, name: str, share: float) -> np.ndarray:
    """Scores that were divided by a power of the MACs saved, divided by the same power of the time saved instead."""
    if not CRITERIA[name].per_mac:
        return scores
    macs, ms = np.maximum(graph.cost.savings(), 1.0), model.savings()
    ms = np.maximum(ms / ms.sum() * macs.sum(), 1e-3 * macs)
    return scores * (macs / ms) ** ranking_options(name, share)["per_mac"]


def _given_limit(options: Options, graph: Graph, earlier: tuple[Detector, Plan] | None) -> float | np.ndarray:
    """Share of its channels that a layer may lose in this step, so that in all it loses what was asked for at most."""
    if earlier is None:
        return options.max_pruning_ratio
    first, plan = earlier
    original = first.trace(options.prune_head, options.keep, options.portable)
    return per_step_limit(options.max_pruning_ratio, graph, original, plan)


def _limited(
    plan_of: Callable[..., Plan], ranked: dict[str, np.ndarray], trial: Trial | None, share: float, notes: list[str]
) -> tuple[np.ndarray, float]:
    """The scores, and the share of its channels that a layer may lose: by trial, where there are images.

    Limits are tried with the first ranking, the other rankings with the best of these.
    """
    name, *others = ranked
    if trial is None:
        return ranked[name], 1.0
    found = best_limit(partial(plan_of, ranked[name]), trial, share)
    limit, errors = found.max_pruning_ratio, {name: found.error}
    for other in others:
        with suppress(OutOfReachError):  # with this limit
            errors[other] = trial(plan_of(ranked[other], max_pruning_ratio=limit))
    best = min(errors, key=lambda name: errors[name])
    if len(errors) > 1:
        rest = ", ".join(f"by {other} {error:.3g}" for other, error in errors.items() if other != best)
        notes.append(
            f"Channels are ranked by {best}: disagreement with the unpruned network {errors[best]:.3g}, {rest}, on "
            "calibration images that recovery did not use."
        )
    if found.error < found.unlimited:
        notes.append(
            f"No layer loses more than {limit:.0%} of its channels: disagreement with the unpruned network "
            f"{found.error:.3g}, without this limit {found.unlimited:.3g}, on calibration images that recovery did not "
            "use."
        )
    return ranked[best], limit


def _recover(pruned: Detector, original: Detector, plan: Plan, batches: list[dict[str, Any]], seed: int) -> list[str]:
    images = [b["img"] for b in batches]
    networks = [of.network.to(images[0].device) for of in (pruned, original)]
    skip = original.unreconstructed
    report = reconstruct(*networks, plan, images, skip=skip, seed=seed, tell=counter("layer"))
    calibrated(pruned, original, images)
    if report.batches == len(batches):
        return []
    return [
        f"Recovery used {report.batches} of {len(batches)} calibration batches, to stay within 8 GB; "
        "a smaller imgsz lets more of them fit."
    ]


def _loss(detector: Detector, options: Options) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
    if CRITERIA[options.criterion].needs_loss:
        return detector.training_loss(options.train)
    return detector.ranking_loss(options.seed)
