"""Networks of YOLOv7 and the original YOLOv5 as Ultralytics' engine takes them, built from rows of a YAML."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER

from yoloprune.detectors.ultralytics.cost import gflops

from . import heads, layers
from .heads import Detect, IDetect
from .layers import C3, MP, SP, SPP, SPPCSPC, SPPF, Bottleneck, Concat, Conv, DownC, Focus, ReOrg, RepConv
from .loss import Criterion

__all__ = ["Network", "classes", "given", "kept_places", "official_name", "parse"]

_WIDTH = (Conv, RepConv, Focus, DownC, SPPCSPC, SPP, SPPF, Bottleneck, C3)
"""Layers whose first argument is their output width, which a model scales."""
_OF_V7 = (IDetect, MP, SP, SPPCSPC, RepConv, ReOrg, DownC)
"""Modules of which each YOLOv7 has one and no YOLOv5."""
_REPEATS = (DownC, SPPCSPC, C3)
"""Layers that take the row's number as an argument."""
_ACTIVATIONS = (nn.SiLU, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Identity)
_STRIDE_SIZE = 256  # px of the image on which strides are measured; the largest stride is 128


def classes() -> dict[str, type[nn.Module]]:
    """Name in a YAML -> class."""
    named = {name: getattr(module, name) for module in (layers, heads) for name in module.__all__}
    return {name: cls for name, cls in named.items() if isinstance(cls, type)} | {"nn.Upsample": nn.Upsample}


class Network(BaseModel):
    """A detector as Ultralytics' engine takes it: what it predicts, trains, validates and exports.

    Args:
        model: The layers, each with `i` (its place), `f` (where its input comes from), `type` (its name in the official
            code) and `np` (its number of parameters); the last is the head, whose anchors and strides are set.
        save: Places of the layers whose output a later layer than the next reads.
        yaml: What it was built from: `nc`, `anchors`, rows of `backbone` and `head`.
        names: Class index -> name; numbers by default.

    Attributes:
        nc: Classes.
        stride: (scales,), in px.
        task: "detect".
        args: Options of a training, as Ultralytics' trainer and exporter read them.
    """

    task = "detect"

    def __init__(
        self,
        model: nn.Sequential,
        save: Sequence[int],
        yaml: Mapping[str, Any],
        names: Mapping[int, str] | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.save = model, sorted(save)
        self.yaml = {"channels": 3, **yaml}
        self.nc = self.head.nc
        self.names = dict(enumerate(names) if isinstance(names, (list, tuple)) else (names or {}))
        self.names = self.names or {i: str(i) for i in range(self.nc)}
        self.inplace = True
        self.args = dict(DEFAULT_CFG_DICT)
        self.pt_path = None

    @property
    def head(self) -> Detect:
        """The last layer."""
        return self.model[-1]

    @property
    def stride(self) -> Tensor:
        """(scales,), in px."""
        return self.head.stride

    @property
    def family(self) -> str:
        """YOLOv7's, "v7", if it has one of its modules, else that of the original YOLOv5, "v5"."""
        return "v7" if any(isinstance(module, _OF_V7) for module in self.modules()) else "v5"

    def init_criterion(self) -> Criterion:
        """The loss that Ultralytics' trainer asks for."""
        return Criterion(self)

    def set_head_attr(self, **attributes: Any) -> None:
        """Take none: the trainer sets here how many boxes a head without non-maximum suppression returns."""

    @classmethod
    def from_yaml(cls, cfg: Mapping[str, Any], names: Mapping[int, str] | Sequence[str] | None = None) -> Network:
        """Build a network with fresh weights, in training mode, as the official code starts a training.

        Args:
            cfg: `nc`, `anchors`, `depth_multiple`, `width_multiple`, rows of `backbone` and `head`, and if it is not 3
                the number of `channels`.
            names: Class index -> name; numbers by default.
        """
        cfg = copy.deepcopy(dict(cfg))
        network = cls(*parse(cfg), cfg, names)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03
            elif isinstance(module, (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)):
                module.inplace = True
        head = network.head
        weight = next(network.parameters())
        image = torch.zeros(1, cfg.get("channels", 3), _STRIDE_SIZE, _STRIDE_SIZE, device=weight.device)
        with torch.no_grad():
            _, raw = network.eval()(image)
        head.set_stride(torch.tensor([_STRIDE_SIZE / x.shape[2] for x in raw], device="cpu"))
        head.initialise_biases()
        return network.train()

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> Network:
        """Fold batch norms, branches and implicit knowledge into convolutions, in place; outputs of evaluation stay."""
        training = self.training
        for module in self.modules():
            if isinstance(module, (Conv, RepConv, Detect)):
                module.fuse()
        self.train(training)
        self.info(verbose=verbose, imgsz=imgsz)
        return self

    def info(
        self, detailed: bool = False, verbose: bool = True, imgsz: int = 640
    ) -> tuple[int, int, int, float] | None:
        """Print and return the numbers of layers, parameters and gradients, and GFLOPs; None unless `verbose`."""
        found = super().info(detailed, verbose, imgsz)
        if found is None or found[3]:
            return found
        counted = gflops(self, imgsz)  # Ultralytics does not count networks that begin with ReOrg
        LOGGER.info(f"{counted:.1f} GFLOPs")
        return (*found[:3], counted)

    def is_fused(self) -> bool:
        """Whether no batch norm is left."""
        return not any(isinstance(module, nn.BatchNorm2d) for module in self.modules())


def parse(cfg: Mapping[str, Any]) -> tuple[nn.Sequential, list[int]]:
    """Layers of a YAML's rows [from, number, module, arguments], and the places of those whose output is kept.

    Raises:
        ValueError: A row names a layer that is not one of these families', or a row's arguments fit none.
    """
    known = classes()
    depth, width = cfg.get("depth_multiple", 1.0), cfg.get("width_multiple", 1.0)
    variables = {"nc": cfg["nc"], "anchors": cfg["anchors"]}
    ch: list[int] = []
    built: list[nn.Module] = []
    save: set[int] = set()
    for i, (f, number, name, arguments) in enumerate([*cfg["backbone"], *cfg["head"]]):
        if name not in known:
            raise ValueError(f"layer {i} is a {name!r}, which is no layer of YOLOv7 or YOLOv5")
        layer = known[name]
        args = [_value(argument, variables) for argument in arguments]
        inputs = [ch[j] if ch else cfg.get("channels", 3) for j in given(f)]
        repeats = max(round(number * depth), 1) if number > 1 else number
        if issubclass(layer, _WIDTH):
            out = -(-args[0] * width // 8) * 8
            args = [inputs[0], int(out), *args[1:]]
            if issubclass(layer, _REPEATS):
                args.insert(2, repeats)
                repeats = 1
            out = args[1]
        elif issubclass(layer, Detect):
            args += [inputs, cfg.get("anchor_grid", True)]
            out = 0
        else:
            out = sum(inputs) if layer is Concat else inputs[0] * (4 if layer is ReOrg else 1)
        module: nn.Module = layer(*args) if repeats == 1 else nn.Sequential(*(layer(*args) for _ in range(repeats)))
        module.i, module.f = i, f  # type: ignore[assignment]
        module.type = official_name(layer)  # type: ignore[assignment]
        module.np = sum(p.numel() for p in module.parameters())  # type: ignore[assignment]
        save.update(kept_places(module))
        built.append(module)
        ch.append(out)
    return nn.Sequential(*built), sorted(save)


def given(f: int | Sequence[int]) -> list[int]:
    """Where a layer's inputs come from; below 0 counts back from the layer."""
    return [f] if isinstance(f, int) else list(f)


def kept_places(layer: nn.Module) -> list[int]:
    """Places of the layers whose output is kept for this one."""
    return [j % layer.i for j in given(layer.f) if j != -1]


def official_name(layer: type[nn.Module]) -> str:
    """Dotted name of a layer's class in the official code."""
    if layer.__module__.startswith("torch."):
        return f"{layer.__module__}.{layer.__name__}"
    return f"models.{'yolo' if issubclass(layer, Detect) else 'common'}.{layer.__name__}"


def _value(argument: Any, variables: Mapping[str, Any]) -> Any:
    """An argument of a row: a value, a variable's name, or an activation such as "nn.LeakyReLU(0.1)"."""
    if not isinstance(argument, str):
        return argument
    if argument in variables:
        return variables[argument]
    if argument == "None":
        return None
    for activation in _ACTIVATIONS:
        if argument.startswith(f"nn.{activation.__name__}(") and argument.endswith(")"):
            inside = argument.partition("(")[2][:-1]
            return activation(*ast.literal_eval(f"({inside},)" if inside else "()"))
    return argument
