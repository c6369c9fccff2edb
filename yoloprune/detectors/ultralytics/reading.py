"""Read the checkpoint of an Ultralytics model without running, downloading or installing anything."""

from __future__ import annotations

import ast
import importlib
import math
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import TASKS
from ultralytics.nn import tasks
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT

from yoloprune.errors import UserError
from yoloprune.paths import check_path

from .allowed import current_name, find_stock
from .internals import check_activation, guess_task
from .unpickling import LEGACY_MAGIC, ForeignNameError, TorchArchive, damaged, names_in, read

__all__ = ["read_checkpoint", "read_network"]

TRUST = "pass --trust to load it all the same, and only if you know where the file comes from."
NO_MODEL = (
    "'{}' holds no Ultralytics model (a state_dict alone is not enough); give the .pt that Ultralytics' training wrote."
)
ORIGINAL = (
    "'{}' is a checkpoint of the original {} repository; open it with yoloprune.load(weights), which gives a YOLO of "
    "its own kind."
)

_ZIP_MAGIC = b"PK\x03\x04"
_YOLOV7 = {"IDetect", "IAuxDetect", "IBin", "IKeypoint", "MP", "SP", "SPPCSPC", "ReOrg", "RepConv", "DownC"}
_MOST_MODULES = 2000  # that a model.yaml may ask for
_MOST_CHANNELS = 1000  # of an image
_LARGEST_NUMBER = 1e6  # in a model.yaml


def read_network(path: str | Path, *, trust: bool = False) -> tuple[BaseModel, dict[str, Any]]:
    """Read the network of a checkpoint, float32 and in eval mode, as `ultralytics.nn.tasks.load_checkpoint` returns it.

    Args:
        path: A `.pt` file.
        trust: Unpickle without limits. Whatever code the file names then runs.

    Returns:
        The network and the checkpoint that it is in; of one that was trained for INT8, the plain layers.

    Raises:
        UserError: There is no such file, it is no checkpoint of an Ultralytics model, truncated or damaged, or it names
            what is no part of a model and `trust` is off.
    """
    path = Path(path)
    checkpoint = _unlimited(path) if trust else read_checkpoint(path)
    if not isinstance(checkpoint, dict):  # a whole YOLO, as torch.save(yolo) writes it
        checkpoint = {"model": getattr(checkpoint, "model", None)}
    network = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(network, BaseModel):
        raise UserError(NO_MODEL.format(path))
    if not trust:
        _check_rows(path, network)
    with damaged(path):
        return _as_ultralytics_loads(network, checkpoint, path), checkpoint


def read_checkpoint(path: str | Path) -> Any:
    """Read any file of Ultralytics' `torch.save`: a checkpoint, or tensors such as cached text embeddings.

    Raises:
        UserError: There is no such file, it is none of `torch.save`, truncated or damaged, or it names what is no part
            of a model.
    """
    path = Path(path)
    if _check_file(path) == LEGACY_MAGIC:
        raise UserError(
            f"'{path}' has the format from before PyTorch 1.6, which cannot be read without running it: {TRUST}"
        )
    try:
        return read(path, find_stock)
    except ForeignNameError as error:
        _name_original(path)
        raise UserError(
            f"'{path}' {error.what}, which is no part of a model and may run any code: refused; {TRUST}"
        ) from None


def _unlimited(path: Path) -> Any:
    """Unpickle as pickles are meant to be."""
    head = _check_file(path)
    if head != LEGACY_MAGIC:
        with TorchArchive.open(path) as archive, damaged(path):
            archive.check_sums()
        _name_original(path)
    loader = SimpleNamespace(
        __name__="pickle", Unpickler=_Unlimited, load=lambda file, **given: _Unlimited(file, **given).load()
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # layers whose source is another today
            return torch.load(path, map_location="cpu", pickle_module=loader, weights_only=False)
    except ModuleNotFoundError as error:
        raise UserError(f"'{path}' needs the Python module '{error.name}', which is not installed.") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"'{path}' is truncated or damaged; copy or download it again.") from error
    except Exception as error:  # the code that it names may raise anything
        raise UserError(
            f"'{path}' cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}."
        ) from error


class _Unlimited(pickle.Unpickler):
    """Python's own, which also knows where Ultralytics has moved its classes."""

    def find_class(self, module: str, name: str) -> Any:
        module, _, name = current_name(f"{module}.{name}").rpartition(".") if "." not in name else (module, "", name)
        return super().find_class(module, name)


def _check_file(path: Path) -> bytes:
    """Refuse what can be told from the path and the first bytes, and return those."""
    check_path(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_MAGIC))
            if head == LEGACY_MAGIC and b"cmodels.yolo\n" in file.read(1 << 16):
                raise UserError(ORIGINAL.format(path, "YOLOv5"))
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.") from None
    if not head:
        raise UserError(f"'{path}' is empty.")
    if head == LEGACY_MAGIC:
        return head
    if not head.startswith(_ZIP_MAGIC):
        raise UserError(f"'{path}' is not a PyTorch checkpoint.")
    return head


def _name_original(path: Path) -> None:
    """Refuse the pickles of YOLOv5's and YOLOv7's own repositories, whose classes are those of scripts."""
    names = [name.split(".") for name in names_in(path)]
    if any(parts[:2] in (["models", "yolo"], ["models", "common"]) for parts in names):
        raise UserError(ORIGINAL.format(path, "YOLOv7" if any(parts[-1] in _YOLOV7 for parts in names) else "YOLOv5"))


def _as_ultralytics_loads(network: BaseModel, checkpoint: dict[str, Any], path: Path) -> BaseModel:
    """What `ultralytics.nn.tasks.load_checkpoint` does to a network that it has read."""
    network = network.float().eval()
    network.args = {**DEFAULT_CFG_DICT, **(checkpoint.get("train_args") or {})}
    network.pt_path = str(path.absolute())
    if getattr(network, "task", None) not in TASKS:
        network.task = guess_task(network)
    if not hasattr(network, "stride"):
        network.stride = torch.tensor([32.0])
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
        elif isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # saved before torch 1.11
    return network


def _check_rows(path: Path, network: BaseModel) -> None:
    """Refuse a `model.yaml` by which a later training would run code: Ultralytics evals it and calls what it names."""
    rows = getattr(network, "yaml", None)
    labels = getattr(network, "names", {})
    if not (isinstance(rows, dict) and isinstance(labels, (dict, list)) and isinstance(network.model, nn.Sequential)):
        raise UserError(NO_MODEL.format(path))
    try:
        if rows.get("activation"):
            check_activation(rows["activation"])
    except TypeError:
        raise UserError(
            f"'{path}' has the activation '{rows['activation']}', which is no torch.nn call: refused; {TRUST}"
        ) from None
    with damaged(path):
        layers = [*rows["backbone"], *rows["head"]]
        names = [row[2] for row in layers]
        depths = [rows.get("depth_multiple") or 1, *(scale[0] for scale in (rows.get("scales") or {}).values())]
        fits = sum(row[1] for row in layers) * max(1, *depths) <= _MOST_MODULES
        stride = getattr(network, "stride", torch.tensor([32.0]))
        fits &= isinstance(stride, torch.Tensor) and 0 < stride.numel() <= 16 and bool((stride <= 512).all())
        fits &= 0 < rows.get("channels", 3) <= _MOST_CHANNELS
        fits &= all(-_LARGEST_NUMBER <= number <= _LARGEST_NUMBER for number in _numbers(rows, 0))
    for name in names:
        layer = _layer(name)
        if layer is not None and not (isinstance(layer, type) and issubclass(layer, nn.Module)):
            raise UserError(f"'{path}' has '{name}' among its layers, which is none: refused; {TRUST}")
        if name == "TorchVision":
            raise UserError(f"'{path}' has a TorchVision layer, which downloads weights: refused; {TRUST}")
    if not fits:
        raise UserError(f"'{path}' describes a network larger than any detector: refused; {TRUST}")
    if "/" in str(rows.get("yaml_file", "")):  # a file of this machine, or even an address, that training would read
        rows["yaml_file"] = Path(rows["yaml_file"]).name


def _layer(name: str) -> Any:
    """What `ultralytics.nn.tasks.parse_model` takes a row's module to be; None if nothing."""
    for prefix, owner in (("nn.", nn), ("torchvision.ops.", None)):
        if name.startswith(prefix):
            return getattr(owner or importlib.import_module("torchvision.ops"), name.removeprefix(prefix), None)
    return getattr(tasks, name, None)


def _numbers(value: Any, depth: int) -> Iterator[float]:
    """All numbers in a `model.yaml`, those that are written as text too, as `parse_model` reads it."""
    if isinstance(value, str) and len(value) < 1000 and value.count("(") + value.count("[") + value.count("{") < 20:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return
    if isinstance(value, (dict, list, tuple)):
        if depth > 10:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item, depth + 1)
    elif isinstance(value, (int, float)):
        yield math.inf if math.isnan(value) else value
