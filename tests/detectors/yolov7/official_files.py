"""Checkpoints as the official repositories write them, made without them: instances of classes of the old names."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tests.small_yolo import enliven
from yoloprune.detectors.yolov7 import build
from yoloprune.detectors.yolov7.network import Network

__all__ = ["fresh", "official", "opened", "scripts", "write"]


def fresh(name: str, form: str = "deploy", nc: int = 80, width: float = 1.0) -> Network:
    """A network whose outputs depend on its input, in evaluation mode; `width` below 1 makes it quicker."""
    from yoloprune.detectors.yolov7 import architecture

    torch.manual_seed(0)
    cfg = architecture(name, form, nc)
    network = (
        Network.from_yaml({**cfg, "width_multiple": cfg.get("width_multiple", 1.0) * width})
        if width < 1
        else (build(name, form, nc))
    )
    enliven(network)
    return network.eval()


@contextlib.contextmanager
def scripts() -> Iterator[dict[str, ModuleType]]:
    """Within the block, `models.common`, `models.yolo` and `models.experimental` can be imported and are empty."""
    names = ("models", "models.common", "models.yolo", "models.experimental")
    made = {name: ModuleType(name) for name in names}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(made)
    try:
        yield made
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def named(made: dict[str, ModuleType], name: str) -> type[nn.Module]:
    """A class of such a module, which is made when it is first asked for."""
    module, _, last = name.rpartition(".")
    if not hasattr(made[module], last):
        setattr(made[module], last, type(last, (nn.Module,), {"__module__": module}))
    return getattr(made[module], last)


def official(network: Network, made: dict[str, ModuleType], model: str = "models.yolo.Model") -> nn.Module:
    """The network as an instance of the old classes, with what the official constructors leave in it."""
    network = copy.deepcopy(network)
    head = network.head
    head.grid = [torch.zeros(1)] * head.nl
    if "anchor_grid" not in head._buffers:
        head.anchor_grid = [torch.zeros(1)] * head.nl
    for module in network.model.modules():
        if type(module).__module__.startswith("yoloprune."):
            place = "yolo" if module is head else "common"
            module.__class__ = named(made, f"models.{place}.{type(module).__name__}")
        if isinstance(module, nn.Upsample):
            del module.recompute_scale_factor  # saved before torch 1.11
    old = named(made, model)()
    old.model, old.save, old.stride = network.model, network.save, head.stride
    old.yaml = {**network.yaml, "ch": 3, "yaml_file": "x.yaml"}
    old.names, old.nc, old.hyp, old.gr, old.traced = list(network.names.values()), network.nc, {"box": 0.05}, 1.0, False
    old.class_weights = torch.ones(network.nc, dtype=torch.float64)
    return old


def write(
    network: Network,
    path: Path,
    *,
    zipped: bool = True,
    half: bool = True,
    model: str = "models.yolo.Model",
    change: Any = lambda old: None,
    **more: Any,
) -> Path:
    """Write a checkpoint of the official layout.

    Args:
        network: What it holds.
        path: Where.
        zipped: In the format of `torch.save` since PyTorch 1.6, or in the one before.
        half: In float16.
        model: Name of the model's class.
        change: Called with the model before it is written.
        more: Further entries, or other ones.
    """
    with scripts() as made:
        old = official(network, made, model)
        old = old.half() if half else old
        change(old)
        for module in old.modules():
            module.__dict__.pop("_non_persistent_buffers_set")  # saved before torch 1.6
        checkpoint = {
            "epoch": -1,
            "best_fitness": None,
            "training_results": None,
            "model": old,
            "ema": None,
            "optimizer": None,
            "wandb_id": None,
            **more,
        }
        torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    return path


def opened(path: Path) -> dict[str, Any]:
    """The checkpoint as Python's own unpickler gives it, with empty classes of the old names."""
    with scripts() as made:
        from yoloprune.detectors.ultralytics.unpickling import names_in

        for name in names_in(path):
            if name.startswith("models."):
                named(made, name)
        return torch.load(path, weights_only=False)
