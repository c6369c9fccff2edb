"""Batches of training images, how many there are, and Ultralytics' loss on them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import get_split_fraction

from yoloprune.errors import UserError
from yoloprune.execution import own_settings
from yoloprune.progress import counter, current

from .datasets import check_data, images_of_split
from .guard import quiet
from .model import YOLO
from .own_data import own_validator

__all__ = ["calibration_batches", "split_sizes", "training_loss"]


def calibration_batches(
    yolo: YOLO, data: str, *, images: int, imgsz: int, batch: int | float, device: torch.device
) -> list[dict[str, Any]]:
    """Training images without augmentation, evenly spaced over the split in its sorted order, always the same.

    Args:
        yolo: The network, whose task decides on the dataset class.
        data: What `check_data` takes; labels are not needed.
        images: How many images; all, if the split has fewer.
        imgsz: Image size in px.
        batch: Images per batch; 16 where Ultralytics would choose (below 1).
        device: Where the batches shall lie.

    Returns:
        Batches as `model.loss` takes them: `img` is float32 (B, C, imgsz, imgsz) in [0, 1], the labels beside it.

    Raises:
        UserError: The training split is empty.
    """
    with own_settings():  # Ultralytics draws from Python's random state
        return _batches(yolo, data, images, imgsz, int(batch) if batch >= 1 else 16, device)


def _batches(yolo: YOLO, data: str, images: int, imgsz: int, batch: int, device: torch.device) -> list[dict[str, Any]]:
    validator, dataset = _training_images(yolo, data, images, imgsz)
    if len(dataset) == 0:
        raise UserError(f"None of the training images of '{data}' can be used; add some of the model's classes.")
    validator.device = device
    collate = getattr(dataset, "collate_fn", None) or torch.utils.data.default_collate
    batches, tell = [], counter("calibration image")
    for start in range(0, len(dataset), batch):
        part = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        batches.append(validator.preprocess(collate(part)))
        tell(start + len(part), len(dataset))
    return batches


def _training_images(yolo: YOLO, data: str, images: int, imgsz: int) -> tuple[Any, Any]:
    """Ultralytics' validator and its dataset of some training images, without augmentation."""
    checked = check_data(data, yolo.task, split="train", labels=False, network=yolo.model)
    with tempfile.TemporaryDirectory() as scratch:
        own = {"data": data, "imgsz": imgsz, "task": yolo.task, "mode": "val", "rect": False, "split": "train"}
        if yolo.task == "classify":
            own["fraction"] = images if images > 1 else 1e-9  # 1 would be all of them; one is the least
        validator = own_validator(yolo.task_map[yolo.task]["validator"])(args=own, save_dir=Path(scratch))
    validator.data = checked
    validator.stride = max(int(yolo.model.stride.max()), 32)
    validator.names = yolo.model.names
    if yolo.task == "classify":
        chosen = str(checked["train"])
    else:
        files = images_of_split(checked, "train")
        places = np.unique(np.linspace(0, len(files) - 1, min(images, len(files))).round().astype(int))
        chosen = tuple(files[place] for place in places)
    with quiet(current().hears):
        return validator, validator.build_dataset(chosen)


def split_sizes(yolo: YOLO, data: str, *, fraction: float | list[float] = 1.0) -> tuple[int, int]:
    """Number of images that a training with Ultralytics' `fraction` looks at, and of validation images, if any."""
    checked = check_data(data, yolo.task, split="train", labels=False, network=yolo.model)
    train, val = (len(images_of_split(checked, split)) for split in ("train", "val"))
    share = get_split_fraction(fraction, "train")
    return min(share if isinstance(share, int) else max(round(share * train), 1), train), val


def training_loss(yolo: YOLO, keywords: Mapping[str, Any]) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
    """Return Ultralytics' training loss as a function of (model, batch), with the gains of `keywords`."""
    hyperparameters: SimpleNamespace = get_cfg(overrides={"task": yolo.task, **keywords})

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        own, criterion = getattr(model, "args", None), getattr(model, "criterion", None)
        model.args, model.criterion = hyperparameters, None
        try:
            return model.loss(copy.copy(batch))[0].sum()
        finally:
            model.args, model.criterion = own, criterion

    return loss
