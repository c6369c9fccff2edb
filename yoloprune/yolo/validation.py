"""Measure a model on a data set."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ultralytics

from yoloprune.errors import UserError
from yoloprune.yolo.classes import class_count
from yoloprune.yolo.coco import coco_map, find_annotations
from yoloprune.yolo.dataset import check_data
from yoloprune.yolo.guard import check_options, offline, plain, quiet

__all__ = ["Metrics", "validate"]


@dataclass(frozen=True)
class Metrics:
    """Accuracy on a validation split, each figure in 0 … 1.

    Attributes:
        map: mAP at IoU .50:.95 by Ultralytics' validator: of boxes for detection and OBB, of masks for segmentation,
            of keypoints for pose; top-1 accuracy for classification.
        map50: mAP at IoU .50, of the same; top-5 accuracy for classification.
        coco_map: Box mAP at IoU .50:.95 by pycocotools; None without COCO-format annotations.
        coco_map50: Box mAP at IoU .50 by pycocotools, or None.
        images: How many images were evaluated.
        seconds: Wall time of the whole validation.
    """

    map: float
    map50: float
    coco_map: float | None
    coco_map50: float | None
    images: int
    seconds: float


def validate(
    yolo: ultralytics.YOLO,
    data: str | Path,
    *,
    imgsz: int = 640,
    batch: int = 16,
    device: str | int | None = None,
    verbose: bool = False,
    **options: Any,
) -> Metrics:
    """Measure a model with Ultralytics' validator, and detectors also with pycocotools where annotations are known.

    Nothing is written into the working directory. `yolo` is not changed.

    Args:
        yolo: The model.
        data: A data YAML, or a folder for classification; see `check_data`.
        imgsz: Image size in pixels.
        batch: Images per batch.
        device: Ultralytics' device, e.g. "cpu" or 0; None chooses.
        verbose: Show Ultralytics' log and progress bar.
        options: Any other option of Ultralytics' `val`, e.g. `split`, `conf`, `iou`, `workers`.

    Raises:
        UserError: The data or an option cannot be used.
    """
    check_options(options)
    split = options.get("split") or "val"
    checked = check_data(data, yolo.task, split=split, nc=class_count(yolo.model), network=yolo.model)
    annotations = find_annotations(checked, split) if yolo.task == "detect" else None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="yoloprune-val-") as folder, quiet(verbose), offline():
        args = {
            **yolo.overrides,
            "rect": True,
            "plots": False,
            **options,
            "data": checked.get("yaml_file", str(data)),
            "imgsz": imgsz,
            "batch": batch,
            "device": device,
            "verbose": verbose,
            "mode": "val",
        }
        validator_class = yolo.task_map[yolo.task]["validator"]
        if annotations:
            validator_class = type(f"Coco{validator_class.__name__}", (_KeepDetections, validator_class), {})
        validator = validator_class(save_dir=Path(folder), args=args, _callbacks=yolo.callbacks)
        try:
            validator(model=yolo.model)
        except ValueError as error:
            if "Please supply" not in str(error):
                raise
            raise UserError(f"The split {split} of '{data}' cannot be used: {plain(error)}") from error
    own = _figures(validator.metrics, yolo.task)
    coco = (None, None)
    if annotations:
        coco = coco_map(annotations, validator.detections, validator.dataloader.dataset.im_files, checked["names"])
    return Metrics(*own, *coco, images=len(validator.dataloader.dataset), seconds=time.perf_counter() - start)


class _KeepDetections:
    """A mixin before a detection validator: keeps every detection, with the class index as `category_id`.

    Ultralytics' own COCO evaluation wants a package of its own and a fixed folder layout, so it is kept out: it starts
    only from a non-empty `jdict`.
    """

    def init_metrics(self, model: Any) -> None:
        super().init_metrics(model)
        self.args.save_json = True  # after Ultralytics has decided that it has no COCO evaluation of its own to do
        self.class_map = list(range(len(model.names)))

    def finalize_metrics(self) -> None:
        super().finalize_metrics()
        self.detections, self.jdict = self.jdict, []


def _figures(metrics: Any, task: str) -> tuple[float, float]:
    """The two figures of a task, as `Metrics` describes them."""
    if task == "classify":
        return float(metrics.top1), float(metrics.top5)
    main = {"segment": "seg", "pose": "pose"}.get(task, "box")
    return float(getattr(metrics, main).map), float(getattr(metrics, main).map50)
