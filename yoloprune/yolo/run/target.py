"""From what was asked for to the figures that each step aims at."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from yoloprune.errors import UserError
from yoloprune.graph import Graph
from yoloprune.yolo.planning.budget import gflops, reachable

from .options import GFLOPS_IMGSZ, Options

__all__ = ["Cost", "Target", "check_reachable", "cost", "step_targets"]


class Cost(NamedTuple):
    """GFLOPs at 640 px and parameters of a network, as `model.info()` prints them."""

    gflops: float
    params: int


class Target(NamedTuple):
    """What a step aims at; one of the two is None."""

    gflops: float | None
    params: int | None

    @property
    def value(self) -> float:
        """The one that is asked for."""
        return self.params if self.gflops is None else self.gflops

    def share(self, own: Cost) -> float:
        """What part of a network's own figure is to stay."""
        return self.params / own.params if self.gflops is None else self.gflops / own.gflops

    def __str__(self) -> str:
        return f"{self.params / 1e6:.3f}M parameters" if self.gflops is None else f"{self.gflops:.2f} GFLOPs"


def cost(network: nn.Module) -> Cost:
    """GFLOPs at 640 px and parameters."""
    return Cost(gflops(network, GFLOPS_IMGSZ), sum(p.numel() for p in network.parameters()))


def _final(options: Options, own: Cost) -> Target:
    if options.target_ratio is not None:
        return Target(options.target_ratio * own.gflops, None)
    return Target(options.target_gflops, options.target_params)


def step_targets(options: Options, own: Cost) -> list[Target]:
    """The targets of all steps: a geometric series from the model's own figure to the one asked for."""
    final = _final(options, own)
    shares = [(k + 1) / options.steps for k in range(options.steps)]
    if final.gflops is not None:
        return [Target(own.gflops * (final.gflops / own.gflops) ** s, None) for s in shares[:-1]] + [final]
    return [Target(None, round(own.params * (final.params / own.params) ** s)) for s in shares[:-1]] + [final]


def check_reachable(options: Options, graph: Graph, network: nn.Module, own: Cost) -> None:
    """Check the target before any work.

    Raises:
        UserError: The target is above the model's own figure or below the smallest that pruning can reach.
    """
    reach = reachable(
        graph,
        network,
        imgsz=GFLOPS_IMGSZ,
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
        more = "" if options.prune_head else ", or prune the head's hidden layers too (--prune-head)"
        more += ", or give a smaller --round-to" if options.round_to > 1 else ""
        more += ", or a larger --max-pruning-ratio" if options.max_pruning_ratio else ""
        raise UserError(f"{text[0]} is out of reach; choose one in the reachable range, {text[1]}{more}.")
