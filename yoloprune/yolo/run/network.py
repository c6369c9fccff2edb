"""A YOLO around another network: how a run hands a pruned network on without touching the model it came from."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn
from ultralytics.engine.model import Model

from yoloprune.yolo.model import YOLO

__all__ = ["rename", "set_args", "unsaved_name", "with_network"]


def with_network(yolo: Model, network: nn.Module) -> YOLO:
    """Return a `YOLO` like `yolo` that holds `network`; nothing that either of them changes later is shared.

    Args:
        yolo: Any Ultralytics model with a torch network (YOLO, RTDETR, YOLOWorld).
        network: The network to hold.
    """
    new = YOLO.__new__(YOLO)
    new.__dict__ = dict(yolo.__dict__)
    new._modules = {**yolo._modules}
    new.model = network
    new.overrides = dict(yolo.overrides)
    new.callbacks = {event: list(functions) for event, functions in yolo.callbacks.items()}
    bulky = ("model", "ema", "optimizer", "scaler")
    new.ckpt = {**{k: v for k, v in (yolo.ckpt or {}).items() if k not in bulky}, "model": network}
    if isinstance(getattr(network, "args", None), dict):
        network.args = copy.copy(network.args)
    new.predictor = new.trainer = new.metrics = None
    return new


def unsaved_name(original: Model) -> Path:
    """The file name for what was pruned from `original` and is not saved: `best-pruned.pt` beside its `best.pt`."""
    file = Path(getattr(original.model, "pt_path", None) or Path(original.model.yaml["yaml_file"]).name)
    return file.with_name(f"{file.stem}-pruned.pt")


def rename(yolo: YOLO, weights: Path) -> None:
    """Have Ultralytics take a model for that of the file `weights`, by which it names exports and finds checkpoints."""
    yolo.model.pt_path = yolo.ckpt_path = yolo.model_name = yolo.overrides["model"] = str(weights)


def set_args(yolo: YOLO, **args: str | int) -> None:
    """Give a model these arguments as its own, which count where it is used without others: data and image size."""
    yolo.overrides |= args
    yolo.model.args = {**yolo.model.args, **args}
    if (yolo.ckpt or {}).get("train_args"):
        yolo.ckpt = {**yolo.ckpt, "train_args": {**yolo.ckpt["train_args"], **args}}
