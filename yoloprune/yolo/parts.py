"""Backbone, neck and head of an Ultralytics network, and what each of their layers costs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yoloprune.exclusive import exclusive
from yoloprune.yolo.mark import is_marked
from yoloprune.yolo.run.options import GFLOPS_IMGSZ

__all__ = ["Part", "head_share", "layer_flops", "part_of", "part_shares", "parts"]


class Part(NamedTuple):
    """Consecutive modules of `model.model`, from `start` to before `stop`."""

    name: str
    start: int
    stop: int

    @property
    def modules(self) -> str:
        """Names of its modules, as `named_modules` has them."""
        last = f" to model.{self.stop - 1}" if self.stop - self.start > 1 else ""
        return f"model.{self.start}{last}"


def parts(model: nn.Module) -> list[Part]:
    """The parts that an Ultralytics task model has: its backbone and its neck, if its YAML tells, and its head.

    The YAML's "backbone" rows are the backbone, the last module is the head, the rest is the neck.
    """
    last = len(model.model) - 1
    rows = (getattr(model, "yaml", None) or {}).get("backbone")
    if rows is None:
        found = [Part("backbone and neck", 0, last)]
    else:
        middle = min(len(rows) - is_marked(model), last)  # the mark is a row in front of the backbone's own
        found = [Part("backbone", 0, middle), Part("neck", middle, last)]
    return [part for part in (*found, Part("head", last, last + 1)) if part.start < part.stop]


def part_of(found: list[Part], layer: str) -> str:
    """Name of the part that a module belongs to; "" for what is in none."""
    number = layer.split(".")[1] if layer.startswith("model.") else ""
    return next((part.name for part in found if number.isdigit() and part.start <= int(number) < part.stop), "")


@exclusive  # the counter hangs hooks into all modules of the process
def layer_flops(model: nn.Module, imgsz: int = GFLOPS_IMGSZ) -> dict[str, int]:
    """FLOPs (2 x MACs) of convolutions and matrix products for one square image, by module, in the order of execution.

    They are counted in an execution at that size, since what attention and a decoder's queries cost is not in
    proportion to the image. Each module's own, without the modules inside it.
    """
    network = copy.deepcopy(model).eval()
    weight = next(network.parameters())
    channels = (getattr(model, "yaml", None) or {}).get("channels", 3)
    image = torch.zeros(1, channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
    own: dict[str, int] = {}
    running: list[str] = []
    counted = 0

    def lap() -> None:
        nonlocal counted
        now = counter.get_total_flops()
        if running and now > counted:
            own[running[-1]] = own.get(running[-1], 0) + now - counted
        counted = now

    def enter(name: str) -> None:
        lap()
        running.append(name)

    def leave() -> None:
        lap()
        running.pop()

    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: enter(name))
        module.register_forward_hook(lambda *_: leave())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return own


def part_shares(found: list[Part], flops: Mapping[str, int]) -> dict[str, float]:
    """Share of the FLOPs that each part holds, 0 … 1, by its name."""
    shares = dict.fromkeys([part.name for part in found], 0.0)
    for layer, value in flops.items():
        if name := part_of(found, layer):
            shares[name] += value / sum(flops.values())
    return shares


def head_share(model: nn.Module) -> float:
    """Share of an Ultralytics task model's GFLOPs at 640 px that its head holds, 0 … 1; takes one execution."""
    return part_shares(parts(model), layer_flops(model))["head"]
