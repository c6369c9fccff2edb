"""Write checkpoints that the official repositories open unmodified, and the same network in plain values."""

from __future__ import annotations

import copy
import datetime
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.files import atomic
from yoloprune.finite import unfit_for_float16

from .description import HEADS, Description, assembled, describe
from .network import Network, parse
from .pickles import FORMAT, MODEL, official_class

__all__ = ["official_model", "plain_path", "save"]

_SAID_BY_CLASS = {"export": False, "end2end": False, "concat": False, "include_nms": False}
_SAID_BY_CLASS |= {"dynamic": False, "onnx_dynamic": False, "inplace": True}
"""Switches of official heads, most of which are attributes of the class there."""

_MOST_ROWS, _MOST_REPEATS = 1000, 100  # of a YAML, which comes from the file
_SENTENCE = (
    "this network was pruned by yoloprune, and official training would rebuild it at its full width: "
    "train it with yoloprune (v7 --weights FILE --train-epochs N)"
)


def plain_path(path: Path) -> Path:
    """Where the plain file of a checkpoint lies: beside it."""
    return path.with_name(f"{path.stem}-plain.pt")


def save(network: Network, path: Path, train_args: Mapping[str, Any], *, float32: bool = False) -> str | None:
    """Write a checkpoint of the official layout, and beside it one of tensors and plain values.

    The first is a pickle of `models.yolo.Model` with `models.common` and torch modules, as `attempt_load` of both
    repositories expects it; the second opens with `torch.load(weights_only=True)`. Both hold the same weights: float16
    where they fit.

    Args:
        network: The network, which is not changed.
        path: The file to write; an existing one is replaced at once.
        train_args: Options that the weights were trained with, by Ultralytics' names.
        float32: Store float32 in any case.

    Returns:
        Which weights do not fit float16, if any.

    Raises:
        OSError: A file cannot be written.
    """
    network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)
    unfit = unfit_for_float16(network)
    network = (network.float() if unfit or float32 else network.half()).requires_grad_(False)
    stride = network.stride.detach().cpu().float()
    shared = {
        "epoch": -1,
        "best_fitness": None,
        "training_results": None,
        "optimizer": None,
        "ema": None,
        "updates": None,
        "wandb_id": None,
        "date": datetime.datetime.now().astimezone().isoformat(),
        "train_args": {key: value for key, value in train_args.items() if key in ("imgsz", "data")},
    }
    architecture: Description = {
        "layers": [{"f": layer.f, "modules": describe(layer)} for layer in network.model],
        "yaml": network.yaml,
        "names": network.names,
    }
    tensors = {**network.state_dict(), "stride": stride}
    plain = {"format": FORMAT, **shared, "architecture": architecture, "tensors": dict(tensors)}
    _write(plain, plain_path(path), pickle)
    _write({**shared, "model": official_model(network, stride)}, path, _OFFICIAL)
    return unfit


def official_model(network: Network, stride: Tensor) -> nn.Module:
    """The network as the official code has it: an instance of the class that stands for `models.yolo.Model`.

    Its attributes are those that the code of both repositories reads when it opens, fuses, runs, traces or exports a
    model.

    Args:
        network: The network.
        stride: Of its head, (scales,), in px.
    """
    layers = nn.Sequential()
    for layer in network.model:
        new = assembled(describe(layer), layer.state_dict(keep_vars=True), _class)
        new.i, new.f, new.type, new.np = layer.i, layer.f, layer.type, sum(p.numel() for p in layer.parameters())
        for module in new.modules():
            if type(module).__name__ == "RepConv" and not hasattr(module, "rbr_reparam"):
                module.rbr_identity = getattr(module, "rbr_identity", None)
        layers.append(new)
    head = layers[-1]
    for name, value in _SAID_BY_CLASS.items():
        setattr(head, name, value)
    head.stride, head.grid = stride, [torch.zeros(1) for _ in range(head.nl)]
    if "anchor_grid" not in head._buffers:  # YOLOv5 since release 6 makes it when it runs
        head.anchor_grid = [torch.zeros(1) for _ in range(head.nl)]
    model = official_class(MODEL)()
    model.model, model.save, model.stride = layers, list(network.save), stride
    model.yaml = {"ch": network.yaml.get("channels", 3), **network.yaml, "nc": network.nc}
    if not _is_rebuilt(network):  # official training builds anew what the rows name, and takes over what fits
        first, *others = network.yaml["backbone"]
        model.yaml["backbone"] = [[*first[:2], _SENTENCE, *first[3:]], *others]
    model.names = [network.names[i] for i in range(network.nc)]  # a list, over which the official test enumerates
    model.nc, model.inplace, model.traced, model.hyp, model.gr = network.nc, True, False, {}, 1.0
    return model.requires_grad_(False).eval()


def _is_rebuilt(network: Network) -> bool:
    """Whether official training would build this network from its YAML; not if its rows cannot be built here."""
    rows = [*network.yaml.get("backbone", []), *network.yaml.get("head", [])]
    if not rows:
        return True
    try:
        if len(rows) > _MOST_ROWS or any(row[1] > _MOST_REPEATS for row in rows):
            return False
        with torch.device("meta"):
            layers, _ = parse({**network.yaml, "nc": network.nc})
    except Exception:  # somebody's own rows can raise anything
        return False
    shapes = {name: tensor.shape for name, tensor in layers.state_dict().items()}
    return all(shapes.get(name, x.shape) == x.shape for name, x in network.model.state_dict().items())


def _class(kind: str) -> type[nn.Module]:
    return official_class(f"models.{'yolo' if kind in HEADS else 'common'}.{kind}")


class _Pickler(pickle._Pickler):  # that of C refuses to name a class that cannot be imported
    """Names classes that stand for official ones as these are called."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and obj.__module__.startswith("models."):
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


_OFFICIAL = SimpleNamespace(__name__="pickle", Pickler=_Pickler)


def _write(checkpoint: dict[str, Any], path: Path, module: Any) -> None:
    content = io.BytesIO()  # since torch does not say why it cannot write a file
    torch.save(checkpoint, content, pickle_module=module)
    with atomic(path) as tmp:
        tmp.write_bytes(content.getbuffer())
