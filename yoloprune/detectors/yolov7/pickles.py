"""Read the checkpoints of the YOLOv7 and YOLOv5 repositories, and our own, without running anything.

Official checkpoints are pickles of `models.yolo.Model`, whose classes are those of scripts. A file gets empty instances
of classes that stand for them; what it holds is then described in plain values and checked (`description`), and a
network is built of these.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.utils import DEFAULT_CFG_DICT

from yoloprune.detectors.ultralytics.allowed import find_stock
from yoloprune.detectors.ultralytics.unpickling import (
    LEGACY_MAGIC,
    ForeignNameError,
    LegacyFile,
    TorchArchive,
    damaged,
    names_in,
    read,
)
from yoloprune.errors import UserError

from .description import FAMILY, HEADS, TORCH, Description, assemble, describe
from .network import Network

__all__ = ["FORMAT", "MODEL", "official_class", "read_network", "recognises"]

FORMAT = "yoloprune.detectors.yolov7"
"""What a file of our own says of itself."""

MODEL = "models.yolo.Model"
"""The class of a whole network in official pickles; release 6.2 of YOLOv5 called it DetectionModel."""

_MODELS = (MODEL, "models.yolo.DetectionModel")
_OURS = "yoloprune.detectors.yolov7."  # trainings write our own classes
_SCRIPTS = re.compile(rb"c(models\.(yolo|common|experimental)|yoloprune\.detectors\.yolov7\.\w+)\n")
_OTHER_TASKS = {
    "ClassificationModel": "a classifier",
    "Classify": "a classifier",
    "SegmentationModel": "a segmenter",
    "Segment": "a segmenter",
    "ISegment": "a segmenter",
    "MT": "a segmenter",
    "IKeypoint": "a pose estimator",
}
_OTHER_FAMILIES = {  # a class that the repository alone has
    **dict.fromkeys(("DDetect", "DualDDetect", "TripleDDetect", "DualDetect", "RepNCSPELAN4", "ELAN1"), "YOLOv9"),
    "BottleneckCSP2": "YOLOR or Scaled-YOLOv4",
    "BottleneckCSPF": "YOLOR or Scaled-YOLOv4",
    "EffiDeHead": "YOLOv6",
}


def recognises(path: Path) -> bool:
    """Whether a file is a checkpoint that names classes of these repositories, or one of our own; nothing runs."""
    try:
        with path.open("rb") as file:
            legacy = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
        with (LegacyFile if legacy else TorchArchive).open(path) as archive:
            content = archive.pickle()
    except (OSError, UserError):
        return False
    return bool(_SCRIPTS.search(content)) or FORMAT.encode() + b"q" in content[:400]


def read_network(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Read the network of a checkpoint, float32 and in evaluation mode.

    Args:
        path: A `.pt` file of the official repositories in either format of `torch.save`, of a training here, or of
            our own.

    Returns:
        The network, and what else the checkpoint holds; "train_args" are its training's options, as far as it has any.

    Raises:
        UserError: The file holds something else, is damaged, or names what is no part of such a network.
        OSError: It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        legacy = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    names = names_in(path, legacy=legacy)
    _refuse_others(path, names)
    try:
        checkpoint = read(path, _find, legacy=legacy)
    except ForeignNameError as error:
        raise UserError(
            f"'{path}' {error.what}, which is no part of a YOLOv7 or YOLOv5 detector and may run any code: refused."
        ) from None
    with damaged(path):
        if isinstance(checkpoint, dict) and checkpoint.get("format") == FORMAT:
            network = assemble(checkpoint["architecture"], checkpoint["tensors"])
        else:
            checkpoint = checkpoint if isinstance(checkpoint, dict) else {"model": checkpoint}
            network = _converted(path, checkpoint.get("ema") or checkpoint.get("model"))
        network.pt_path = str(path.absolute())
        args = _train_args(checkpoint)
        if network.stride.max() > 32:  # networks of four scales are trained and published at this size
            args = {"imgsz": 1280, **args}
        network.args = {**DEFAULT_CFG_DICT, **args}
        checkpoint = {key: value for key, value in checkpoint.items() if key not in ("tensors", "architecture")}
        return network, {**checkpoint, "model": network, "ema": None, "train_args": args}


def _refuse_others(path: Path, names: Iterable[str]) -> None:
    """Refuse pickles of the same layout that hold no detector of these families."""
    classes = [name.rpartition(".")[2] for name in names if name.startswith("models.")]
    for name in classes:
        if what := _OTHER_TASKS.get(name):
            raise UserError(
                f"'{path}' is {what} of the YOLOv5 or YOLOv7 repository; of these only detectors are pruned."
            )
        if family := _OTHER_FAMILIES.get(name):
            raise UserError(
                f"'{path}' is a checkpoint of the original {family} repository, which is not supported; of such files "
                "only YOLOv7's and YOLOv5's are."
            )


def _find(name: str) -> Any:
    """What a checkpoint may name; see `unpickling.Find`."""
    module, _, last = name.rpartition(".")
    if name in _MODELS or name == f"{_OURS}network.Network":
        return official_class(MODEL)
    if module in ("models.common", "models.yolo", f"{_OURS}layers", f"{_OURS}heads") and last in FAMILY:
        return official_class(f"models.{'yolo' if last in HEADS else 'common'}.{last}")
    if module.startswith("torch.nn.modules."):
        return find_stock(name) if last in TORCH else None
    return _CALLS.get(name) or (None if name.startswith("ultralytics.") else find_stock(name))


@functools.cache
def official_class(name: str) -> type[nn.Module]:
    """An empty class that stands for one of the official repositories, such as "models.common.Conv"."""
    module, _, last = name.rpartition(".")
    return type(last, (nn.Module,), {"__module__": module, "__doc__": f"Stands for {name}."})


def _converted(path: Path, model: Any) -> Network:
    """The network that an official model, or one of our classes, stands for."""
    if isinstance(model, Mapping):
        raise UserError(f"'{path}' holds tensors without a network; give the checkpoint with the whole model.")
    if not isinstance(model, official_class(MODEL)) or not isinstance(model._modules.get("model"), nn.Sequential):
        raise UserError(f"'{path}' holds no YOLOv7 or YOLOv5 detector; give the .pt that their training wrote.")
    rows = []
    for layer in model.model:
        if any(type(m).__name__ == "Conv" and "bn" not in m._modules for m in layer.modules()):
            raise UserError(f"'{path}' is fused (its batch norms are folded); give the checkpoint from before that.")
        rows.append({"f": layer.f, "modules": describe(layer)})
    tensors = {key: value for key, value in model.state_dict().items() if key.rpartition(".")[2] not in _COUNTED}
    names = getattr(model, "names", None) or []
    names = dict(names if isinstance(names, dict) else enumerate(names))
    head = model.model[-1]
    if len(names) != head.nc:
        names = {i: str(i) for i in range(head.nc)}
    tensors["stride"] = head.stride if isinstance(head.stride, Tensor) else torch.tensor(head.stride)
    description: Description = {"layers": rows, "yaml": _plain_yaml(getattr(model, "yaml", None)), "names": names}
    return assemble(description, tensors)


_COUNTED = {"total_ops", "total_params"}  # a profiler's, left behind


def _plain_yaml(rows: Any) -> dict[str, Any]:
    """The description that the model was built from; kept, and never built from."""
    if not isinstance(rows, dict):
        return {"backbone": [], "head": []}
    return {"channels": rows.get("ch", 3), **{key: value for key, value in rows.items() if isinstance(key, str)}}


def _train_args(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the training that wrote the checkpoint, by Ultralytics' names."""
    own = checkpoint.get("train_args")
    if isinstance(own, dict):
        return own
    given = checkpoint.get("opt")
    size = given.get("imgsz") if isinstance(given, dict) else None
    return {"imgsz": size} if isinstance(size, int) and size > 0 else {}


def _getattr(owner: Any, name: str) -> None:
    """A fused layer's `forward`, which is chosen anew."""
    if name not in ("forward", "forward_fuse", "fuseforward"):
        raise TypeError


def _reconstruct(cls: Any, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """An array without values, as NumPy pickles one."""
    if getattr(cls, "found", None) is not np.ndarray:
        raise TypeError
    return np.empty(0, np.uint8)


_CALLS: Mapping[str, Callable[..., Any] | type] = MappingProxyType(
    {
        "builtins.getattr": _getattr,
        "numpy.ndarray": np.ndarray,
        "numpy.core.multiarray._reconstruct": _reconstruct,
        "numpy._core.multiarray._reconstruct": _reconstruct,
    }
)
