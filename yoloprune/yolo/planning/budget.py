"""Plans that land on a figure as Ultralytics prints it."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from ultralytics.utils.torch_utils import get_flops

from yoloprune.errors import UserError
from yoloprune.exclusive import exclusive
from yoloprune.graph import Graph, Plan
from yoloprune.graph import budget as core
from yoloprune.yolo.exact import check_exact

__all__ = ["Reach", "gflops", "plan_for_target", "reachable"]

_TOLERANCE = 0.98


class Reach(NamedTuple):
    """Smallest and own figures of a model under one rounding."""

    min_gflops: float
    max_gflops: float
    min_params: int
    max_params: int


@exclusive  # Ultralytics counts by hooks in the model
def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """GFLOPs (2 x MACs) that `model.info()` prints for square images of `imgsz` pixels.

    Raises:
        UserError: They cannot be counted. Names the cause, of which Ultralytics makes a figure of 0.
    """
    found = float(get_flops(model, imgsz))
    if not found > 0:
        raise UserError(f"The GFLOPs at {imgsz} px cannot be counted: {_cause(model, imgsz)}.")
    return found


def _cause(model: nn.Module, imgsz: int) -> str:
    """Why Ultralytics counts nothing, found by doing what it does without its `except`."""
    if importlib.util.find_spec("thop") is None:
        return "Ultralytics counts with the package ultralytics-thop, which is not installed; pip install it"
    network = copy.deepcopy(model).eval()
    weight = next(network.parameters(), None)
    if weight is None:
        return "the model has no parameters; give a checkpoint that holds a network"
    channels = (getattr(model, "yaml", None) or {}).get("channels", 3)
    image = torch.zeros(1, channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            network(image)
    except Exception as error:  # the model's code can raise anything
        return (
            f"the model fails on an image of {channels} x {imgsz} x {imgsz} ({_first_line(error)}); give a checkpoint "
            "that predicts"
        )
    try:
        import thop

        thop.profile(network, inputs=[image], verbose=False)
    except Exception as error:
        return f"Ultralytics' profiler fails on the model, which runs ({_first_line(error)})"
    return "Ultralytics' profiler knows none of the model's layers, or takes it for one of other input channels"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _pruned_gflops(graph: Graph, model: nn.Module, plan: Plan, imgsz: int) -> float:
    try:
        return gflops(plan.apply(model), imgsz)
    except UserError:
        check_exact(model, graph, plan)  # if the pruned network does not run, this names the layers to keep
        raise


def reachable(
    graph: Graph, model: nn.Module, *, imgsz: int, round_to: int = 8, max_pruning_ratio: float | np.ndarray = 1.0
) -> Reach:
    """What this model can be pruned to when every layer keeps its narrowest allowed width; see `Graph.budget_plan`."""
    smallest = graph.plan(core.cheapest(graph, round_to, max_pruning_ratio))
    own = gflops(model, imgsz)
    return Reach(_pruned_gflops(graph, model, smallest, imgsz), own, smallest.params(), graph.params())


def plan_for_target(
    graph: Graph,
    model: nn.Module,
    scores: np.ndarray,
    *,
    imgsz: int,
    target_gflops: float | None = None,
    target_params: int | None = None,
    round_to: int = 8,
    max_pruning_ratio: float | np.ndarray = 1.0,
) -> Plan:
    """The plan whose pruned model is at most the target and at least 98 % of it.

    Ultralytics' profiler also counts norms and activations, so the target is put to the cost model in its own unit,
    measured on the pruned network, and corrected until it fits.

    Raises:
        UserError: If no plan gets there; the message names the reachable range.
    """
    limits: dict[str, Any] = {"round_to": round_to, "max_pruning_ratio": max_pruning_ratio}
    if target_params is not None:
        try:
            return graph.plan(core.search(graph, scores, target_params, cost=graph.cost.params, **limits))
        except ValueError as error:
            reach = reachable(graph, model, imgsz=imgsz, **limits)
            raise UserError(
                f"{target_params} parameters cannot be reached; choose from {reach.min_params} to {reach.max_params}."
            ) from error
    assert target_gflops is not None
    own = gflops(model, imgsz)
    best, best_value = None, 0.0
    points = [(float(graph.macs()), own)]
    ask = graph.macs() * target_gflops / own
    floor = graph.cost.macs(~core.cheapest(graph, **limits))
    for _ in range(10):
        ask = max(ask, floor)
        plan = graph.budget_plan(scores, target_macs=ask, **limits)
        value = _pruned_gflops(graph, model, plan, imgsz)
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
        reach = reachable(graph, model, imgsz=imgsz, **limits)
        raise UserError(
            f"{target_gflops:g} GFLOPs cannot be reached at multiples of {round_to}; the model can be pruned to "
            f"{reach.min_gflops:.2f} … {reach.max_gflops:.2f} GFLOPs, so choose a target in that range or a smaller "
            "--round-to."
        )
    return best
