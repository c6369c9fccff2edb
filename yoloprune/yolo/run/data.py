"""The data of a run: which data YAML, and calibration batches from its training images."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.data.utils import get_split_fraction

from yoloprune.criteria import CRITERIA
from yoloprune.errors import UserError
from yoloprune.yolo import dataset, digits
from yoloprune.yolo.classes import class_count
from yoloprune.yolo.dataset import check_data, find_data, is_yaml
from yoloprune.yolo.guard import quiet
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.own_data import own_validator
from yoloprune.yolo.trainers.distill import can_distill

from .folder import DIGITS, RunFolder
from .options import Options
from .progress import counter, current

__all__ = [
    "DIGITS",
    "calibration_batches",
    "choose_data",
    "has_labels",
    "settle_validation",
    "split_sizes",
    "training_loss",
    "with_data",
    "write_digits",
]


def choose_data(
    data: str | None,
    yolo: YOLO,
    *,
    images: bool = False,
    labels: bool = True,
    ranks: bool = False,
    validates: bool = True,
) -> str:
    """Return the data to use: what was asked for, else what the checkpoint was trained on, checked.

    Args:
        data: What was asked for.
        yolo: The model.
        images: Whether the training split must have images.
        labels: Whether those must have labels.
        ranks: Whether the model as it is looks at those, so that its classes must be those of the data.
        validates: Whether the model is validated as it is, so that its classes must be those of the data.

    Raises:
        UserError: The data is missing or broken, or nothing was asked for and the checkpoint's data is not here.
    """
    if data == DIGITS:
        return data
    own = ((yolo.ckpt or {}).get("train_args") or {}).get("data")
    chosen = data or own
    if not chosen:
        raise UserError("The weights do not say which data they were trained on; give it with --data.")
    try:
        if validates or not images:
            check_data(chosen, yolo.task, nc=class_count(yolo.model) if validates else None, network=yolo.model)
        if images:
            nc = class_count(yolo.model) if ranks else None
            check_data(chosen, yolo.task, split="train", nc=nc, labels=labels, network=yolo.model)
    except UserError as error:
        if data is None:
            raise UserError(f"The weights were trained on {own}, which cannot be used here; give --data.") from error
        raise
    if Path(chosen).is_dir():
        return os.path.abspath(chosen)  # a link stays one, since labels are looked for beside its images
    return str(Path(chosen).resolve()) if Path(chosen).exists() else str(chosen)


def with_data(options: Options, yolo: YOLO) -> Options:
    """Settle on the data of a run, and on criterion and recovery where they were left open.

    Returns:
        The options, with data None if nothing in the run looks at data.

    Raises:
        UserError: The run needs data and there are none.
    """
    distill = _distils(options, yolo)
    labels, asked = _needs(options, distill)
    ranks = bool(options.criterion and CRITERIA[options.criterion].needs_loss)
    if options.criterion is None or options.recover is None or asked:
        try:
            data = choose_data(options.data, yolo, images=True, labels=labels, ranks=ranks, validates=options.val)
        except UserError as error:
            if options.data is not None or labels or options.epochs:
                raise
            own = ((yolo.ckpt or {}).get("train_args") or {}).get("data")
            where = f"the data that the weights were trained on, {own}, are not here" if own else "there are none"
            raise UserError(
                f"A pruned network sees nothing until it is recovered by images, and {where}; give a data YAML or a "
                "folder of images, without labels if need be (--data, data=), or have it pruned by weights alone "
                "(--criterion l2 --no-recover)."
            ) from error
    else:
        data = choose_data(options.data, yolo, validates=True) if options.val else None
    criterion = options.criterion or "output_error"
    recover = True if options.recover is None else options.recover
    return replace(options, data=data, criterion=criterion, recover=recover, distill=distill)


def settle_validation(options: Options, yolo: YOLO) -> tuple[Options, str | None]:
    """Leave the validation of a run's trainings out where the run has none and the data are not fit for it.

    Args:
        options: The options of the run, as `with_data` has settled them.
        yolo: The model.

    Returns:
        The options, and a sentence if validation is left out.
    """
    trains = options.train_epochs or options.sparse_epochs or options.epochs
    if options.val or not trains or options.data == DIGITS or "val" in options.train:
        return options, None
    try:
        check_data(options.data, yolo.task, split=options.train.get("split") or "val", network=yolo.model)
    except UserError as error:
        alone = yolo.task != "classify" and not is_yaml(find_data(options.data))
        why = f"'{options.data}' holds images alone." if alone else str(error)
        said = f"There is nothing to validate on, so the network of a training's last epoch is taken: {why}"
        return replace(options, train={**options.train, "val": False}), said
    return options, None


def _needs(options: Options, distill: bool) -> tuple[bool, bool]:
    """Whether the run needs labels of training images, and whether it needs training images at all."""
    entry = CRITERIA.get(options.criterion or "")
    trains = options.train_epochs or options.sparse_epochs or (options.epochs and not distill)
    labels = bool(trains or (entry and entry.needs_loss))
    return labels, bool(labels or options.epochs or options.recover or (entry and entry.needs_batches))


def _distils(options: Options, yolo: YOLO) -> bool:
    if not options.distill and (options.distill is False or not options.epochs or "distill_model" in options.train):
        return False
    able = can_distill(yolo.model)
    if options.distill and not able:
        raise UserError(
            f"{type(yolo.model.model[-1]).__name__} heads cannot be distilled; leave --distill out, or give "
            "Ultralytics' own distill_model=."
        )
    return able


def has_labels(yolo: YOLO, data: str) -> bool:
    """Whether any training image of the data has a label."""
    checked = check_data(data, yolo.task, split="train", labels=False, network=yolo.model)
    return dataset.has_labels(checked, "train", yolo.task)


def write_digits(folder: RunFolder) -> str:
    """Write the embedded digits set into the run's folder and return its data YAML."""
    return str(digits.write(folder.digits))


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
    batch = int(batch) if batch >= 1 else 16
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
        files = dataset.images_of_split(checked, "train")
        places = np.unique(np.linspace(0, len(files) - 1, min(images, len(files))).round().astype(int))
        chosen = tuple(files[place] for place in places)
    with quiet(current().hears):
        return validator, validator.build_dataset(chosen)


def split_sizes(yolo: YOLO, data: str, *, fraction: float | list[float] = 1.0) -> tuple[int, int]:
    """Number of images that a training with Ultralytics' `fraction` looks at, and of validation images, if any."""
    checked = check_data(data, yolo.task, split="train", labels=False, network=yolo.model)
    train, val = (len(dataset.images_of_split(checked, split)) for split in ("train", "val"))
    share = get_split_fraction(fraction, "train")
    return min(share if isinstance(share, int) else max(round(share * train), 1), train), val


def training_loss(yolo: YOLO, keywords: dict[str, Any]) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
    """Return Ultralytics' training loss as a function of (model, batch), with the gains of `keywords`."""
    from ultralytics.cfg import get_cfg

    hyperparameters: SimpleNamespace = get_cfg(overrides={"task": yolo.task, **keywords})

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        own, criterion = getattr(model, "args", None), getattr(model, "criterion", None)
        model.args, model.criterion = hyperparameters, None
        try:
            return model.loss(copy.copy(batch))[0].sum()
        finally:
            model.args, model.criterion = own, criterion

    return loss
