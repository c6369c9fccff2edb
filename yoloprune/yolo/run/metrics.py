"""Names under which validation results are shown and written."""

from __future__ import annotations

from collections.abc import Mapping

from yoloprune.yolo.validation import Metrics

__all__ = ["named_metrics", "named_training_metrics"]

_NAMES = {
    "map": "mAP50-95",
    "map50": "mAP50",
    "coco_map": "COCO mAP50-95",
    "coco_map50": "COCO mAP50",
    "precision": "precision (conf .25)",
    "recall": "recall (conf .25)",
    "f1": "F1 (conf .25)",
    "detections": "detections per image",
}
_CLASSIFY = {"map": "top-1", "map50": "top-5"}
_SUFFIXES = {"segment": "(M)", "pose": "(P)"}  # masks, keypoints; boxes otherwise


def named_metrics(metrics: Metrics, task: str) -> dict[str, float]:
    """The figures of a validation that were measured, by the names users know."""
    names = _CLASSIFY if task == "classify" else _NAMES
    values = {name: getattr(metrics, field) for field, name in names.items()}
    return {name: round(float(value), 5) for name, value in values.items() if value is not None}


def named_training_metrics(metrics: Mapping[str, float], task: str) -> dict[str, float]:
    """The figures of Ultralytics' trainer that stand for the same as those of `named_metrics`."""
    suffix = _SUFFIXES.get(task, "(B)")
    keys = {f"metrics/{name}{suffix}": name for name in ("mAP50-95", "mAP50")}
    if task == "classify":
        keys = {"metrics/accuracy_top1": "top-1", "metrics/accuracy_top5": "top-5"}
    return {name: round(float(metrics[key]), 5) for key, name in keys.items() if key in metrics}
