"""What a validation and a look at some images know of a detector beyond its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["BINS", "CONFIDENCE", "Details", "History", "Look", "calibration_error", "found_again", "match", "resampled"]

CONFIDENCE = 0.25
"""Confidence from which a user sees a box, by Ultralytics' default."""

BINS = 20
"""Number of equal bins of the confidence in `Details.right` and `Details.wrong`."""

_SAME = 0.5  # IoU from which two boxes are of one thing
_WORK = 4e8  # products that the resamples of one validation may cost: a few seconds
_RESAMPLES = (20, 200)  # at least, at most


@dataclass(frozen=True)
class Details:
    """What is behind the figures of one validation; what a task does not have is empty.

    Attributes:
        confidence: Confidences, rising from 0 to 1.
        precision: Precision of boxes at IoU .50 at these, the mean over classes.
        recall: The same for recall.
        f1: The same for F1.
        classes: Class name to its AP at IoU .50:.95 (top-1 accuracy for classification) and number of objects.
        sizes: "small", "medium" and "large" by COCO's areas (32 and 96 px squared) to the same.
        right: Boxes per image that match an object at IoU .50, by confidence in `BINS` equal bins.
        wrong: The same for boxes that match none.
        boxes: Image name to its boxes of confidence .25 and more, the surest first: class, left, top, right, bottom in
            px of the original image. Turned boxes are not kept.
        samples: `map` and `f1` on resamples of the images with replacement, the same resamples for every network.
    """

    confidence: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    classes: dict[str, tuple[float, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[float, int]] = field(default_factory=dict)
    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    boxes: dict[str, list[list[float]]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)


class Look(NamedTuple):
    """What a detector finds in one image.

    Attributes:
        file: The image.
        image: Its pixels, (height, width, 3) uint8 in RGB order.
        boxes: (n, 4) left, top, right, bottom in px; empty for classification.
        scores: (n,) confidences; of the best class for classification.
        classes: (n,) class indices.
        corners: (n, 4, 2) corners in px of boxes that are turned; `boxes` lie around these.
        drawn: The image with masks or keypoints, where boxes do not show all that was found.
    """

    file: Path
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    corners: np.ndarray | None = None
    drawn: np.ndarray | None = None


class History(NamedTuple):
    """The course of a training, one entry per epoch.

    Attributes:
        epochs: Their numbers, from 1.
        losses: Name of a loss term to its values on training images.
        quality: mAP50-95 (top-1 for classification) of the validation after each epoch; empty without validation.
        rates: Learning rate of the weights.
    """

    epochs: list[int]
    losses: dict[str, list[float]]
    quality: list[float]
    rates: list[float]


def match(
    boxes: np.ndarray, classes: np.ndarray, others: np.ndarray, other_classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match the boxes that two networks find in one image by class and an IoU of .5, each box once.

    Args:
        boxes: (n, 4) left, top, right, bottom of one network, the surest first: these choose in this order.
        classes: (n,) their classes.
        others: (m, 4) those of the other network.
        other_classes: (m,) their classes.

    Returns:
        Whether each of the one and each of the other has found no partner, bool (n,) and (m,).
    """
    lost, new = np.ones(len(boxes), bool), np.ones(len(others), bool)
    overlap = _overlap(boxes, others)
    overlap[classes[:, None] != other_classes[None]] = 0
    for i in range(len(boxes)):
        free = np.where(new, overlap[i], 0) if len(new) else np.zeros(1)
        if free.max() >= _SAME:
            lost[i] = False
            new[free.argmax()] = False
    return lost, new


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each of (n, 4) with each of (m, 4) boxes."""
    a, b = a[:, None].astype(float), b[None].astype(float)
    inside = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    whole = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inside
    return inside / np.maximum(whole, 1e-9)


def found_again(reference: Details, other: Details) -> float | None:
    """The share of one network's boxes (confidence .25 and more) that another finds too; see `match`.

    Args:
        reference: Of the one network.
        other: Of the other, on the same images.

    Returns:
        0 … 1; None where the one network has found nothing.
    """
    lost = count = 0
    for image, found in reference.boxes.items():
        one, two = (np.asarray(rows, float).reshape(-1, 5) for rows in (found, other.boxes.get(image, [])))
        lost += int(match(one[:, 1:], one[:, 0], two[:, 1:], two[:, 0])[0].sum())
        count += len(one)
    return 1 - lost / count if count else None


def calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) in `BINS` equal bins of the confidence.

    Args:
        scores: (n,) confidences, one at least.
        right: (n,) whether each box matches an object.

    Returns:
        The mean over the boxes of |confidence - share that is right| of their bins, 0 … 1.
    """
    gaps = np.histogram(scores, BINS, (0, 1), weights=scores - right)[0]
    return float(np.abs(gaps).sum() / len(scores))


def resampled(
    right: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    images: np.ndarray,
    object_classes: np.ndarray,
    object_images: np.ndarray,
    *,
    number: int,
    confidence: float,
) -> dict[str, list[float]]:
    """Bootstrap of mAP and F1 over images: how much they owe to which images happen to be in a validation split.

    Args:
        right: (n, thresholds) whether each box matches an object at each IoU; the first is that of F1.
        scores: (n,) confidences.
        classes: (n,) class indices.
        images: (n,) index of each box's image.
        object_classes: (m,) class indices of the objects.
        object_images: (m,) index of each object's image.
        number: How many images there are; the resamples depend on it alone.
        confidence: Least confidence of the boxes that count for F1.

    Returns:
        `map` (area below the precision envelope) and `f1`, one value a resample.
    """
    times = int(np.clip(_WORK / max(right.size, 1) / 6, *_RESAMPLES))
    weights = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), times).astype(np.float32)
    aps, f1s = [], []
    for which in np.unique(object_classes):
        objects = weights[:, object_images[object_classes == which]].sum(1)
        mine = np.flatnonzero(classes == which)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        weight, hit = weights[:, images[mine]], right[mine]
        present = objects > 0
        count = np.maximum(objects, 1)
        ap = np.zeros(times)
        seen = np.maximum(weight.cumsum(1), 1e-9)
        for column in range(hit.shape[1]):
            good = weight * hit[:, column]
            precision = good.cumsum(1) / seen
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            ap += (envelope * good).sum(1) / count / hit.shape[1]
        sure = scores[mine] >= confidence
        found, said = (weight[:, sure] * hit[sure, 0]).sum(1), weight[:, sure].sum(1)
        aps.append(np.where(present, ap, np.nan))
        f1s.append(np.where(present, 2 * found / np.maximum(said + objects, 1), np.nan))
    if not aps:
        return {}
    return {"map": _means(aps), "f1": _means(f1s)}


def _means(rows: list[np.ndarray]) -> list[float]:
    """Mean over the classes that each resample has."""
    values, there = np.nan_to_num(np.stack(rows)).sum(0), np.isfinite(np.stack(rows)).sum(0)
    return (values / np.maximum(there, 1)).round(5).tolist()
