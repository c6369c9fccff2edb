"""A network as plain values: which module stands where and with which settings, beside its tensors by name.

Official pickles become this and this becomes a network, so that nothing in a file decides more than these tables let
it; files of our own hold it as it is. Widths are those of the tensors, so pruned networks need nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import heads, layers
from .network import Network, official_name

__all__ = ["FAMILY", "HEADS", "TORCH", "Description", "assemble", "assembled", "describe"]

Description = dict[str, Any]
"""`layers`: of each layer its `f` and its `modules`, rows of [name, kind, settings] in order; `names`; `yaml`."""

_TORCH: Mapping[str, tuple[str, ...]] = {
    "Sequential": (),
    "ModuleList": (),
    "Conv2d": ("kernel_size", "stride", "padding", "dilation", "groups"),
    "BatchNorm2d": ("eps", "momentum"),
    "MaxPool2d": ("kernel_size", "stride", "padding", "ceil_mode"),
    "Upsample": ("scale_factor", "mode"),
    "SiLU": (),
    "LeakyReLU": ("negative_slope",),
    "Hardswish": (),
    "ReLU": (),
    "ReLU6": (),
    "Identity": (),
}
"""torch's modules that these networks are made of, with what their constructors are given."""

_OWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("C3", "MP", "SP", "SPP", "SPPCSPC", "SPPF", "Conv", "DownC", "Focus", "ReOrg"), ()),
    "Bottleneck": ("add",),
    "Concat": ("d",),
    "Shortcut": ("d",),
    "RepConv": ("deploy", "groups", "in_channels", "out_channels"),
    "ImplicitA": ("channel", "mean", "std"),
    "ImplicitM": ("channel", "mean", "std"),
    **dict.fromkeys(("Detect", "IDetect", "IAuxDetect"), ("nc", "no", "nl", "na")),
}
"""Modules of the families, with the attributes that their code reads."""

TORCH = frozenset(_TORCH)
FAMILY = frozenset(_OWN)
HEADS = frozenset(heads.__all__) & FAMILY
_BUFFERS = {"running_mean", "running_var", "num_batches_tracked", "anchors", "anchor_grid"}
_LARGEST = 1 << 16  # of a setting: no width, kernel or stride comes near
_LARGEST_FACTOR = 8  # by which a feature map may grow
_DEEPEST = 12  # modules inside one another
_MOST_LAYERS, _MOST_MODULES = 1000, 10_000


def describe(layer: nn.Module) -> list[list[Any]]:
    """Rows [name, kind, settings] of a module of these networks and all in it, parents first.

    Raises:
        KeyError: A module is none of theirs.
    """
    rows: list[list[Any]] = []

    def add(name: str, module: nn.Module, depth: int) -> None:
        kind = type(module).__name__
        if kind not in FAMILY | TORCH:
            raise KeyError(kind)
        if depth > _DEEPEST or len(rows) > _MOST_MODULES:  # not named_modules(): in a file they may hold each other
            raise RecursionError
        rows.append(
            [name, kind, {key: _plain(getattr(module, key)) for key in (_OWN.get(kind) or _TORCH.get(kind, ()))}]
        )
        for last, child in module._modules.items():
            if child is not None:
                add(f"{name}.{last}" if name else last, child, depth + 1)

    add("", layer, 0)
    return rows


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


def assembled(
    rows: Sequence[Sequence[Any]],
    tensors: Mapping[str, Tensor],
    own: Callable[[str], type[nn.Module]],
) -> nn.Module:
    """The module that rows describe.

    Args:
        rows: As `describe` gives them, of any origin.
        tensors: Its tensors by name; they are used as they are.
        own: From the name of a family's module to the class to make an empty instance of.

    Raises:
        ValueError: The rows or tensors are not those of such a module.
    """
    belonging: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        path, _, name = key.rpartition(".")
        belonging.setdefault(path, {})[name] = tensor
    made: dict[str, nn.Module] = {}
    for name, kind, settings in rows:
        if name in made or name.count(".") > _DEEPEST or not all(map(_bounded, settings.values())):
            raise ValueError(name)
        mine = belonging.pop(name, {})
        made[name] = module = _torch(kind, settings, mine) if kind in _TORCH else _instance(kind, settings, own)
        for key, tensor in mine.items():
            if key in _BUFFERS:
                module.register_buffer(key, tensor)
            else:
                module.register_parameter(key, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        if name:
            parent, _, last = name.rpartition(".")
            made[parent].add_module(last, module)
    if belonging:
        raise ValueError(f"tensors of no module: {next(iter(belonging))}")
    return made[""]


def _instance(kind: str, settings: Mapping[str, Any], own: Callable[[str], type[nn.Module]]) -> nn.Module:
    cls = own(kind)
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    if set(settings) != set(_OWN[kind]):
        raise ValueError(kind)
    for key, value in settings.items():
        setattr(module, key, value)
    return module


def _torch(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module of torch without its tensors, of the widths that they have."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    if set(given) != set(_TORCH[kind]):
        raise ValueError(kind)
    if kind == "Conv2d":
        out, into, *size = tensors["weight"].shape
        if tuple(size) != given["kernel_size"]:
            raise ValueError(kind)
        given |= {"in_channels": into * given["groups"], "out_channels": out, "bias": "bias" in tensors}
    elif kind == "BatchNorm2d":
        given["num_features"] = len(tensors["weight"])
    elif kind == "Upsample" and not 0 < given["scale_factor"] <= _LARGEST_FACTOR:
        raise ValueError(kind)
    with torch.device("meta"):
        module = getattr(nn, kind)(**given)
    for name, held in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if name not in tensors or tensors[name].shape != held.shape:
            raise ValueError(f"{kind}.{name}")
    return module


def _bounded(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 4 and all(isinstance(v, int) and _bounded(v) for v in value)
    return value is None or isinstance(value, str) or (isinstance(value, (int, float)) and abs(value) <= _LARGEST)


def _own_class(kind: str) -> type[nn.Module]:
    return getattr(heads if hasattr(heads, kind) else layers, kind)


def assemble(description: Description, tensors: Mapping[str, Tensor]) -> Network:
    """The network of a description, in evaluation mode.

    Args:
        description: Of any origin.
        tensors: Its `state_dict()`, and `stride`.

    Raises:
        ValueError: They are not those of a network of these families.
    """
    tensors = dict(tensors)
    stride = tensors.pop("stride")
    grouped: list[dict[str, Tensor]] = [{} for _ in description["layers"]]
    for key, tensor in tensors.items():
        prefix, number, name = key.split(".", 2)
        if prefix != "model":
            raise ValueError(key)
        grouped[int(number)][name] = tensor
    built = nn.Sequential()
    save: set[int] = set()
    if not 1 < len(description["layers"]) <= _MOST_LAYERS:
        raise ValueError("layers")
    for i, (row, own) in enumerate(zip(description["layers"], grouped, strict=True)):
        layer, f = assembled(row["modules"], own, _own_class), row["f"]
        sources = f if isinstance(f, list) else [f]
        if not sources or not all(isinstance(j, int) and (j == -1 or -i <= j < i) for j in sources):
            raise ValueError(f"layer {i} takes its input from {f}")
        save.update(j % i for j in sources if j != -1)
        layer.i, layer.f, layer.type = i, f, official_name(type(layer))
        layer.np = sum(p.numel() for p in layer.parameters())
        built.append(layer)
    head = built[-1]
    if not isinstance(head, heads.Detect):
        raise ValueError("the last layer is no head")
    nc, na, nl = (int(getattr(head, name)) for name in ("nc", "na", "nl"))
    if head.no != nc + 5 or head.anchors.shape != (nl, na, 2) or stride.shape != (nl,) or not (stride >= 1).all():
        raise ValueError("the head's sizes do not agree")
    if not (stride <= 512).all() or any(conv.out_channels != na * (nc + 5) for conv in head.m) or len(head.m) != nl:
        raise ValueError("the head's sizes do not agree")
    head.stride = stride.float()
    for module in built.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
        elif isinstance(module, layers.RepConv) and not hasattr(module, "rbr_reparam"):
            module.rbr_identity = getattr(module, "rbr_identity", None)  # where the width changes there is none
    return Network(built, sorted(save), description["yaml"], description["names"]).float().eval()
