"""Names under which validation results are shown and written."""

from __future__ import annotations

from yoloprune.detectors.base import Metrics

__all__ = ["named_metrics"]

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


def named_metrics(metrics: Metrics, task: str) -> dict[str, float]:
    """The figures of a validation that were measured, by the names users know."""
    names = _CLASSIFY if task == "classify" else _NAMES
    values = {name: getattr(metrics, field) for field, name in names.items()}
    return {name: round(float(value), 5) for name, value in values.items() if value is not None}
