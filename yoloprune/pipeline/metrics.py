"""Names under which validation results are shown and written."""

from __future__ import annotations

from yoloprune.detectors.base import Metrics

__all__ = ["FOUND_AGAIN", "SEEN", "gained", "named_metrics"]

SEEN = "F1 (conf .25)"
"""The figure of how much a user sees at the default confidence."""

FOUND_AGAIN = "found again (conf .25)"
"""The figure of how many boxes of the unpruned network, on its own image size, another finds too."""

_NAMES = {
    "map": "mAP50-95",
    "map50": "mAP50",
    "coco_map": "COCO mAP50-95",
    "coco_map50": "COCO mAP50",
    "precision": "precision (conf .25)",
    "recall": "recall (conf .25)",
    "f1": "F1 (conf .25)",
    "detections": "detections per image",
    "ece": "calibration error (conf .25)",
}
_CLASSIFY = {"map": "top-1", "map50": "top-5"}


def named_metrics(metrics: Metrics, task: str) -> dict[str, float]:
    """The figures of a validation that were measured, by the names users know."""
    names = _CLASSIFY if task == "classify" else _NAMES
    values = {name: getattr(metrics, field) for field, name in names.items()}
    if metrics.details:
        sizes = metrics.details.sizes.items()
        values |= {f"mAP50-95 of {size} objects": average for size, (average, objects) in sizes if objects}
    return {name: round(float(value), 5) for name, value in values.items() if value is not None}


def gained(before: dict[str, float], after: dict[str, float]) -> bool:
    """Whether a training made a network better, by its named figures before and after.

    Both mAP, which hides how sure a detector is, and F1 at the confidence that users see are looked at.
    """
    measure = next(iter(before))
    gain = after[measure] - before[measure]
    return gain > 0 and gain + after.get(SEEN, 0.0) - before.get(SEEN, 0.0) > 0
