"""What stands behind the figures of Ultralytics' validators: curves, classes, sizes, scores and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ultralytics.utils.metrics import ap_per_class, box_iou
from ultralytics.utils.ops import scale_boxes

from yoloprune.detectors.details import BINS, CONFIDENCE, Details, resampled

__all__ = ["Detailed", "classification_details", "detection_details"]

_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}  # px squared, COCO's
_HITS = {"segment": "tp_m", "pose": "tp_p"}  # what a task's mAP is of; boxes otherwise
_POINTS = 101  # of the curves over confidence


class Detailed:
    """A mixin before a detection validator of any task: keeps what each image has led to until `detection_details`.

    Attributes:
        found: Image by image, by name: Ultralytics' statistics, `file`, and the `areas` of boxes and `object_areas` in
            px of the original image (a box counts as the object that it matches), and the `boxes` that a user sees.
    """

    found: dict[str, list[Any]]

    def init_metrics(self, model: Any) -> None:
        """Begin anew."""
        super().init_metrics(model)
        self.found = {"file": [], "areas": [], "object_areas": [], "boxes": []}

    def _process_batch(self, preds: dict[str, Any], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        self.found["file"].append(str(batch["im_file"]))
        if preds["bboxes"].shape[-1] == 4:
            areas, objects = _areas(preds, batch)
            self.found["areas"].append(areas)
            self.found["object_areas"].append(objects)
            self.found["boxes"].append(self._seen(preds, batch))
        return super()._process_batch(preds, batch)

    def _seen(self, preds: dict[str, Any], batch: dict[str, Any]) -> list[list[float]]:
        """Class and corners in px of the original image of the boxes that a user sees, the surest first."""
        sure = (preds["conf"] >= CONFIDENCE).nonzero().ravel()
        sure = sure[preds["conf"][sure].argsort(descending=True)]
        boxes = scale_boxes(
            batch["imgsz"], preds["bboxes"][sure].float(), batch["ori_shape"], ratio_pad=batch["ratio_pad"]
        )
        rows = torch.cat([preds["cls"][sure, None].float(), boxes], 1)
        return [[round(value, 1) for value in row] for row in rows.tolist()]

    def get_stats(self) -> dict[str, Any]:
        """Ultralytics' own, which clears the statistics."""
        self.found |= {name: list(values) for name, values in self.metrics.stats.items()}
        return super().get_stats()


def _areas(preds: dict[str, Any], batch: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Areas of the boxes and of the objects in px of the original image."""
    gain = batch["ratio_pad"][0]
    scale = float(gain[0]) * float(gain[-1])
    boxes, objects = preds["bboxes"].float(), batch["bboxes"].float()
    own, real = _area(boxes), _area(objects)
    if len(boxes) and len(objects):
        same = batch["cls"][:, None] == preds["cls"][None]
        best, which = (box_iou(objects, boxes) * same).max(0)
        own = torch.where(best >= 0.5, real[which], own)
    return (own / scale).cpu().numpy(), (real / scale).cpu().numpy()


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def detection_details(validator: Any, task: str) -> Details:
    """The details of a validation by a `Detailed` validator.

    Args:
        validator: The validator, after its validation.
        task: Ultralytics' task.
    """
    found, box = validator.found, validator.metrics.box
    images = len(found["file"])
    if not images or not len(box.px):
        return Details()
    order = np.argsort(np.argsort(found["file"], kind="stable"))  # the same whatever order a data loader takes
    scores, classes, objects = (np.concatenate(found[name]) for name in ("conf", "pred_cls", "target_cls"))
    right = np.concatenate(found[_HITS.get(task, "tp")]).astype(bool)
    matched = np.concatenate(found["tp"]).astype(bool)[:, 0] if len(scores) else np.zeros(0, bool)
    of_box = np.repeat(order, [len(each) for each in found["conf"]])
    of_object = np.repeat(order, [len(each) for each in found["target_cls"]])
    main = getattr(validator.metrics, {"segment": "seg", "pose": "pose"}.get(task, "box"))
    counts = {int(which): int((objects == which).sum()) for which in np.unique(objects)}
    right = right.reshape(len(scores), -1 if len(scores) else right.shape[-1])
    return Details(
        **_curves(box),
        classes={
            str(validator.names[int(which)]): (round(float(main.maps[int(which)]), 5), counts.get(int(which), 0))
            for which in main.ap_class_index
        },
        sizes=_sizes(right, scores, classes, objects, found),
        right=_histogram(scores[matched], images),
        wrong=_histogram(scores[~matched], images),
        boxes=dict(zip(found["file"], found["boxes"], strict=True)) if found["boxes"] else {},
        samples=resampled(right, scores, classes, of_box, objects, of_object, number=images, confidence=CONFIDENCE),
    )


def _curves(box: Any) -> dict[str, list[float]]:
    at = np.linspace(0, len(box.px) - 1, _POINTS).round().astype(int)
    curves = {"precision": box.p_curve, "recall": box.r_curve, "f1": box.f1_curve}
    means = {name: np.asarray(curve) for name, curve in curves.items()}
    return {
        "confidence": np.asarray(box.px)[at].round(4).tolist(),
        **{name: (m.mean(0)[at] if m.size else np.zeros(_POINTS)).round(5).tolist() for name, m in means.items()},
    }


def _sizes(
    right: np.ndarray, scores: np.ndarray, classes: np.ndarray, objects: np.ndarray, found: dict[str, list[Any]]
) -> dict[str, tuple[float, int]]:
    """AP of objects of each size among boxes of that size."""
    if not found["areas"]:
        return {}
    areas, object_areas = np.concatenate(found["areas"]), np.concatenate(found["object_areas"])
    sizes = {}
    for name, (low, high) in _SIZES.items():
        mine, real = (areas >= low) & (areas < high), (object_areas >= low) & (object_areas < high)
        if real.any():
            ap = ap_per_class(right[mine], scores[mine], classes[mine], objects[real])[5]
            sizes[name] = round(float(ap.mean()), 5), int(real.sum())
    return sizes


def _histogram(scores: np.ndarray, images: int) -> list[float]:
    return (np.histogram(scores, BINS, (0, 1))[0] / images).round(4).tolist()


def classification_details(validator: Any) -> Details:
    """Top-1 accuracy by class and its noise, from a classification validator after its validation."""
    said = torch.cat(validator.pred)[:, 0].numpy()
    real = torch.cat(validator.targets).numpy()
    right = said == real
    counts = np.random.default_rng(0).multinomial(len(real), np.full(len(real), 1 / len(real)), 200)
    return Details(
        classes={
            str(validator.names[int(c)]): (round(float(right[real == c].mean()), 5), int((real == c).sum()))
            for c in np.unique(real)
        },
        samples={"map": ((counts * right).sum(1) / len(real)).round(5).tolist()},
    )
