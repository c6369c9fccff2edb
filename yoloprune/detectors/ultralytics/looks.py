"""What an Ultralytics network finds in some images, by Ultralytics' own predictor."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import ultralytics
from ultralytics.engine.results import Results

from yoloprune.detectors.details import Look
from yoloprune.errors import UserError

from .datasets import check_data, images_of_split
from .guard import offline, quiet
from .model import with_network

__all__ = ["look", "sample"]

_BATCH = 8


def sample(yolo: ultralytics.YOLO, data: str, number: int) -> list[Path]:
    """Images of the validation split, or of the training split where there is none, evenly spaced in sorted order."""
    for split in ("val", "train"):
        with suppress(UserError):
            checked = check_data(data, yolo.task, split=split, labels=False, network=yolo.model)
            if files := images_of_split(checked, split):
                places = np.unique(np.linspace(0, len(files) - 1, min(number, len(files))).round().astype(int))
                return [Path(files[place]) for place in places]
    return []


def look(
    yolo: ultralytics.YOLO, images: Sequence[Path], *, imgsz: int, device: str | None, confidence: float
) -> Iterator[Look]:
    """What the network finds in each image; `yolo` is not changed."""
    own = with_network(yolo, copy.deepcopy(yolo.model))  # which the predictor fuses
    files = [str(path) for path in images]
    with quiet(), offline():
        for start in range(0, len(files), _BATCH):
            found = own.predict(
                files[start : start + _BATCH], imgsz=imgsz, device=device, conf=confidence, verbose=False, save=False
            )
            for path, result in zip(images[start : start + _BATCH], found, strict=True):
                yield _look(path, result)


def _look(path: Path, result: Results) -> Look:
    image = _rgb(result.orig_img)
    if result.probs is not None:
        best, score = int(result.probs.top1), float(result.probs.top1conf)
        return Look(path, image, np.zeros((0, 4)), np.array([score]), np.array([best]))
    boxes = result.obb if result.obb is not None else result.boxes
    more = result.masks is not None or result.keypoints is not None
    return Look(
        path,
        image,
        boxes.xyxy.cpu().numpy(),
        boxes.conf.cpu().numpy(),
        boxes.cls.cpu().numpy().astype(int),
        None if result.obb is None else boxes.xyxyxyxy.cpu().numpy(),
        _rgb(result.plot(boxes=False)) if more else None,
    )


def _rgb(picture: np.ndarray) -> np.ndarray:
    """(height, width, 3) in RGB order of a picture as Ultralytics has it: BGR, or grey levels."""
    picture = np.atleast_3d(picture)
    if picture.shape[2] != 3:
        picture = np.repeat(picture[..., :1], 3, axis=2)
    return np.ascontiguousarray(picture[..., ::-1].astype(np.uint8))
