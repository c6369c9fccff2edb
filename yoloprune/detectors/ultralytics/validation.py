"""Measure a model on a data set."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ultralytics

from yoloprune.detectors.base import Metrics
from yoloprune.detectors.details import CONFIDENCE, calibration_error
from yoloprune.execution import own_settings
from yoloprune.progress import current

from .coco import coco_map, find_annotations
from .datasets import check_data
from .details import Detailed, classification_details, detection_details
from .guard import check_options, offline, quiet
from .heads import class_count
from .own_data import own_validator

__all__ = ["validate"]


def validate(
    yolo: ultralytics.YOLO,
    data: str | Path,
    *,
    imgsz: int = 640,
    batch: int = 16,
    device: str | int | None = None,
    verbose: bool = False,
    details: bool = False,
    classes: int | None = None,
    **options: Any,
) -> Metrics:
    """Measure a model with Ultralytics' validator, and detectors also with pycocotools where annotations are known.

    Nothing is written into the working directory. `yolo` is not changed.

    Args:
        yolo: The model, or an exported one.
        data: A data YAML, or a folder for classification; see `check_data`.
        imgsz: Image size in pixels.
        batch: Images per batch.
        device: Ultralytics' device, e.g. "cpu" or 0; None chooses.
        verbose: Show Ultralytics' log and progress bar.
        details: Also find `Metrics.details`.
        classes: How many classes an exported model has.
        options: Any other option of Ultralytics' `val`, e.g. `split`, `conf`, `iou`, `workers`.

    Raises:
        UserError: The data or an option cannot be used.
    """
    check_options(options)
    split = options.get("split") or "val"
    exported = classes is not None
    nc, network = (classes, None) if exported else (class_count(yolo.model), yolo.model)
    checked = check_data(data, yolo.task, split=split, nc=nc, network=network)
    annotations = find_annotations(checked, split) if yolo.task == "detect" else None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="yoloprune-val-") as folder, quiet(verbose), offline(), own_settings():
        args = {
            **yolo.overrides,
            "rect": True,
            "plots": False,
            **options,
            "data": str(checked.get("yaml_file") or Path(data).absolute()),
            "imgsz": imgsz,
            "batch": batch,
            "device": device,
            "verbose": verbose,
            "mode": "val",
        }
        validator_class = own_validator(yolo.task_map[yolo.task]["validator"])
        boxes = yolo.task != "classify"
        wanted = {_Shown: boxes, _KeepDetections: annotations is not None, Detailed: boxes and details}
        mixins = [mixin for mixin, is_wanted in wanted.items() if is_wanted]
        validator_class = type(f"Watched{validator_class.__name__}", (*mixins, validator_class), {})
        after_batch = [*yolo.callbacks.get("on_val_batch_end", ()), _tell]
        callbacks = {**yolo.callbacks, "on_val_batch_end": after_batch}
        validator = validator_class(save_dir=Path(folder), args=args, _callbacks=callbacks)
        validator.checked = checked
        validator(model=yolo.model)
    own = _figures(validator.metrics, yolo.task)
    coco = (None, None)
    if annotations:
        coco = coco_map(annotations, validator.detections, validator.dataloader.dataset.im_files, checked["names"])
    shown = _shown(validator) if boxes else (None,) * 5
    behind = None
    if details:
        behind = detection_details(validator, yolo.task) if boxes else classification_details(validator)
    images, seconds = len(validator.dataloader.dataset), time.perf_counter() - start
    return Metrics(*own, *coco, *shown, images=images, seconds=seconds, details=behind)


class _Shown:
    """A mixin before a detection validator: counts the boxes that a user sees, those of confidence .25 and more, and
    finds the calibration error of their confidences at IoU .50."""

    sure = 0
    ece: float | None = None

    def update_metrics(self, preds: Any, batch: Any) -> None:
        super().update_metrics(preds, batch)
        self.sure += sum(int((pred["conf"] >= CONFIDENCE).sum()) for pred in preds)

    def get_stats(self) -> dict[str, Any]:
        """Ultralytics' own, which clears the statistics."""
        scores, right = (np.concatenate(self.metrics.stats[name] or [np.zeros(0)]) for name in ("conf", "tp"))
        if (seen := scores >= CONFIDENCE).any():
            self.ece = calibration_error(scores[seen], right[seen, 0])
        return super().get_stats()


def _tell(validator: Any) -> None:
    """Report how far a validation is to the phase that it belongs to."""
    images = len(validator.dataloader.dataset)
    current().part("validation image", min((validator.batch_i + 1) * validator.dataloader.batch_size, images), images)


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


def _shown(validator: Any) -> tuple[float | None, ...]:
    """Precision, recall, F1, boxes per image and calibration error at the confidence that users see."""
    if (validator.args.conf or 0) > CONFIDENCE:  # what it is asked about is not there any more
        return (None,) * 5
    box = validator.metrics.box
    at = round(CONFIDENCE * (len(box.px) - 1)) if len(box.px) else 0
    curves = (np.asarray(curve) for curve in (box.p_curve, box.r_curve, box.f1_curve))
    figures = [float(curve[:, at].mean()) if curve.size else 0.0 for curve in curves]
    return *figures, validator.sure / max(len(validator.dataloader.dataset), 1), validator.ece


def _figures(metrics: Any, task: str) -> tuple[float, float]:
    """The two figures of a task, as `Metrics` describes them."""
    if task == "classify":
        return float(metrics.top1), float(metrics.top5)
    main = {"segment": "seg", "pose": "pose"}.get(task, "box")
    return float(getattr(metrics, main).map), float(getattr(metrics, main).map50)
