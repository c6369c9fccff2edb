"""What the checkpoint of an Ultralytics model may name: modules of torch and Ultralytics, and plain values.

The list is that of Ultralytics' own `weights_only` loading, by what its checkpoints have held since version 8.0, and
the layers of other families here, whose networks Ultralytics' engine trains too. No function of a library is on it: the
few that pickles call stand here and check what they are given.
"""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import IterableSimpleNamespace, loss, tal

__all__ = ["current_name", "find_stock"]

_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.")
_TRANSFORMS = ("Compose", "Normalize", "Resize", "CenterCrop", "ToTensor")  # of classifiers
_MOVED = {  # as `ultralytics.nn.tasks.torch_safe_load` has it
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",  # YOLOv9
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
    **{f"pathlib.{kind}": f"pathlib.{type(pathlib.Path()).__name__}" for kind in ("PosixPath", "WindowsPath")},
}
_MOVED_MODULES = {
    "ultralytics.yolo.utils": "ultralytics.utils",
    "ultralytics.yolo.v8": "ultralytics.models.yolo",
    "ultralytics.yolo.data": "ultralytics.data",
}


def current_name(name: str) -> str:
    """Where Ultralytics has today what it had under a dotted name when a checkpoint was written."""
    for old, new in _MOVED_MODULES.items():
        if name.startswith(f"{old}."):
            name = new + name.removeprefix(old)
    return _MOVED.get(name, name)


def find_stock(name: str) -> Any:
    """What a checkpoint means by a dotted name, for `unpickling.read`; None if it has no business in one.

    Args:
        name: Dotted name, as the pickle has it.

    Returns:
        A class, or a function that checks its arguments.
    """
    name = current_name(name)
    if name in _CALLS:
        return _CALLS[name]
    if name.startswith("torchvision.transforms."):
        return _torchvision().get(name)
    return _classes().get(name) or _own_layer(name)


def _own_layer(name: str) -> type | None:
    """A layer or a network of another family of this package."""
    owner, _, kind = name.rpartition(".")
    if not re.fullmatch(r"yoloprune\.detectors\.\w+\.\w+", owner) or importlib.util.find_spec(owner) is None:
        return None
    importlib.import_module(owner)
    found = _defined(owner).get(kind)
    return found if found is not None and issubclass(found, nn.Module) else None


@functools.cache
def _classes() -> Mapping[str, type]:
    """Modules by dotted name, and the classes of losses, which unfinished trainings keep."""
    found = {f"{IterableSimpleNamespace.__module__}.{IterableSimpleNamespace.__name__}": IterableSimpleNamespace}
    for owner in (name for name in list(sys.modules) if name.startswith(_MODULES)):
        found |= {f"{owner}.{k}": v for k, v in _defined(owner).items() if issubclass(v, nn.Module)}
    for owner in (tasks, loss, tal):
        found |= {f"{owner.__name__}.{k}": v for k, v in _defined(owner.__name__).items()}
    # before 8.0.137 all modules were in one file
    found |= {f"ultralytics.nn.modules.{v.__name__}": v for k, v in found.items() if k.startswith(_MODULES[1])}
    return MappingProxyType(found)


@functools.cache
def _torchvision() -> Mapping[str, type]:
    """The transforms of a classifier's images."""
    transforms = importlib.import_module("torchvision.transforms.transforms")
    functional = importlib.import_module("torchvision.transforms.functional")
    found = [*(getattr(transforms, name) for name in _TRANSFORMS), functional.InterpolationMode]
    return MappingProxyType({f"{kind.__module__}.{kind.__name__}": kind for kind in found})


def _defined(owner: str) -> dict[str, type]:
    """The classes that a module defines itself."""
    return {k: v for k, v in vars(sys.modules[owner]).items() if isinstance(v, type) and v.__module__ == owner}


def _attribute(owner: Any, name: str) -> Any:
    """The only uses of `getattr` in checkpoints: the `forward` of a fused module, and a way of interpolating."""
    owner = getattr(owner, "found", owner)  # a class, as the file has named it
    if isinstance(owner, enum.EnumMeta):
        return owner[name]
    if isinstance(owner, nn.Module) and name in ("forward", "forward_fuse", "forward_split"):
        return getattr(type(owner), name).__get__(owner)
    raise TypeError


def _dtype(code: str, *flags: Any) -> np.dtype:
    if not re.fullmatch(r"[biufc]\d{1,2}", code):
        raise TypeError
    return np.dtype(code)


def _scalar(dtype: np.dtype, content: bytes) -> np.generic:
    if not isinstance(dtype, np.dtype) or len(content) != dtype.itemsize:
        raise TypeError
    return np.frombuffer(content, dtype)[0]


def _path(*parts: str) -> pathlib.Path:
    if not all(isinstance(part, str) for part in parts):
        raise TypeError
    return pathlib.Path(*parts)


_CALLS: Mapping[str, Any] = MappingProxyType(
    {
        "builtins.getattr": _attribute,
        "numpy.dtype": _dtype,
        "numpy.core.multiarray.scalar": _scalar,
        "numpy._core.multiarray.scalar": _scalar,
        **{f"{m}.{kind}": _path for m in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")},
    }
)
