"""What pruning must leave alone, or keep in step, so that stock rows can say the pruned widths.

Two parts of a network follow formulas that no row overrides. Hidden widths of a head with P channels at its first
input, `nc` classes and R bins are max(P, min(nc, 100)) for classes, max(16, P // 4, 4 R) for boxes, and likewise for
masks, keypoints and angles. Around attention, and around an SPPF with a shortcut, widths are halves and doubles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn
from ultralytics.nn.modules import block, head

from yoloprune.graph.core import Part

from .stock_rows import PSA

__all__ = ["Limits", "limits_of"]


@dataclass
class Limits:
    """What `yoloprune.graph.trace` takes.

    Attributes:
        freeze: Names of layers whose output channels stay.
        tie: Sets of parts that lose equally many channels.
        least: Layer -> number of its output channels that stay at least.
    """

    freeze: list[str] = field(default_factory=list)
    tie: list[list[str | Part]] = field(default_factory=list)
    least: dict[str, int] = field(default_factory=dict)


def limits_of(network: nn.Module) -> Limits:
    """The limits within which stock rows say what is pruned of this network.

    Args:
        network: A network that stock rows say as it is; see `portable`.
    """
    limits = Limits()
    for name, module in network.named_modules():
        if isinstance(module, PSA):
            limits.freeze.append(f"{name}.ffn.0")
        if isinstance(module, block.C2PSA):
            limits.tie.append([_inputs(f"{name}.cv1", module.cv1), f"{name}.cv2.conv"])
        if isinstance(module, block.C3k2):
            limits.freeze += [f"{name}.m.{i}.0.cv1" for i, m in enumerate(module.m) if isinstance(m, nn.Sequential)]
        if isinstance(module, block.SPPF) and getattr(module, "add", False):
            hidden = module.cv1.conv.out_channels
            halves = [_inputs(f"{name}.cv1", module.cv1, i * hidden, (i + 1) * hidden) for i in range(2)]
            limits.tie.append([f"{name}.cv1.conv", *halves])
    _limit_head(limits, f"model.{len(network.model) - 1}", network.model[-1])
    return limits


def _limit_head(limits: Limits, at: str, last: head.Detect) -> None:
    """Tie hidden widths to the head's first input where they follow it, and keep those that follow something else."""
    first = last.cv2[0][0]
    given = first.conv.in_channels
    floors = {"cv3": (min(last.nc, 100), 1), "cv2": (max(16, 4 * last.reg_max), 4)}
    if isinstance(last, head.Segment):
        floors["cv4"] = (last.nm, 4)
        limits.freeze.append(f"{at}.proto")
    elif isinstance(last, head.Pose):
        more = 2 if isinstance(last, head.Pose26) else 0
        floors["cv4"] = (last.kpt_shape[0] * (last.kpt_shape[1] + more), 4)
    elif isinstance(last, head.OBB):
        floors["cv4"] = (last.ne, 4)
    for kind, (floor, divisor) in floors.items():
        layers = [f"{at}.{name}" for name in _hidden(last, kind)]
        if given // divisor <= floor:  # and so whatever is pruned
            limits.freeze += layers
            continue
        width = given // divisor
        parts = [_inputs(f"{at}.cv2.0.0", first, i * width, (i + 1) * width) for i in range(divisor)]
        limits.tie.append([*layers, *parts])
        limits.least |= dict.fromkeys(layers, floor)


def _hidden(last: head.Detect, kind: str) -> Iterator[str]:
    """Names of the convolutions that make hidden channels of one kind, in both branches of an end-to-end head."""
    for name in (kind, f"one2one_{kind}"):
        for i, branch in enumerate(getattr(last, name, None) or ()):
            for j, layer in enumerate(branch):
                if isinstance(layer, nn.Sequential):  # depthwise and 1×1
                    yield f"{name}.{i}.{j}.1.conv"
                elif not isinstance(layer, nn.Conv2d):
                    yield f"{name}.{i}.{j}.conv"


def _inputs(name: str, module: nn.Module, start: int = 0, stop: int | None = None) -> Part:
    """Input channels of a Conv as a part of a tie."""
    return f"{name}.conv.weight", 1, start, module.conv.in_channels if stop is None else stop
