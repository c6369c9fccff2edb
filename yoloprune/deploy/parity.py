"""Whether an export detects what the network does that it was made of, by a stated tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError

from .backends import default_precision

__all__ = ["IMAGES", "TOLERANCES", "Parity", "Tolerance", "compare", "parity", "parity_images", "precision_of"]

IMAGES = 16
"""How many images an export is compared on."""


class Tolerance(NamedTuple):
    """What counts as alike.

    Attributes:
        iou: Least overlap of two boxes of one class.
        score: Largest difference of their scores.
        share: Least share of boxes that are so; as many may be more or fewer.
    """

    iou: float
    score: float
    share: float


TOLERANCES = MappingProxyType(
    {
        "f32": Tolerance(0.99, 0.01, 0.99),
        "f16": Tolerance(0.9, 0.05, 0.95),
        "bf16": Tolerance(0.9, 0.05, 0.95),
        "int8": Tolerance(0.75, 0.15, 0.8),
    }
)
"""By precision. Right float32 exports leave IoU .999 and scores within .001; see `benchmarks/deploy.md`."""

_SURE = 0.25  # Ultralytics' confidence in use: below it nothing is shown
_FEW = 10  # boxes at that confidence, below which the best ones are compared
_BEST = 32  # how many, then
_SAME = 0.5  # IoU above which two boxes are taken for the same


@dataclass(frozen=True)
class Parity:
    """The verdict on an export.

    Attributes:
        precision: What it runs in: "f32", "f16", "bf16" or "int8".
        images: How many images it was compared on.
        confidence: Scores from which boxes count: .25, or less for a network that finds hardly anything.
        ours: Boxes that the network in torch finds.
        theirs: Boxes that the export finds.
        alike: Share of boxes that are alike by the tolerance.
        iou: Mean overlap of boxes that are the same.
        worst_iou: The least.
        score: Largest difference of their scores.
        passed: The verdict.
    """

    precision: str
    images: int
    confidence: float
    ours: int
    theirs: int
    alike: float
    iou: float
    worst_iou: float
    score: float
    passed: bool

    def __str__(self) -> str:
        t = TOLERANCES[self.precision]
        return (
            f"{'Pass' if self.passed else 'FAIL'} ({self.precision}): {self.theirs} boxes for {self.ours} in "
            f"{self.images} images at confidence {self.confidence:.2g}, {self.alike:.1%} alike (at least {t.share:.0%} "
            f"must be: same class, IoU ≥ {t.iou}, scores within {t.score}); mean IoU {self.iou:.4f}, lowest "
            f"{self.worst_iou:.3f}, scores within {self.score:.4f}"
        )


def parity(
    detector: Detector, path: Path, *, format: str, imgsz: int, data: str | None = None, quantize: Any = None
) -> tuple[Parity, str | None]:
    """Run an export in its own runtime on real images and compare what it detects with the network in torch.

    Args:
        detector: The detector that was exported.
        path: What `Detector.export` wrote.
        format: Its format.
        imgsz: Image size in px.
        data: Data whose training images are looked at; None: pictures that are at hand.
        quantize: Ultralytics' keyword with which it was exported.

    Returns:
        The verdict, and a sentence on where the images come from if they are not the data's.

    Raises:
        UserError: It cannot be run or compared here.
    """
    images, said = parity_images(detector, imgsz, data)
    precision = "int8" if detector.quantised else precision_of(format, quantize)
    found = compare(detector.detections(images), detector.detections(images, path), precision)
    return found, said


def parity_images(detector: Detector, imgsz: int, data: str | None) -> tuple[Tensor, str | None]:
    """At least `IMAGES` images (images, channels, imgsz, imgsz), and a sentence if they are not all of the data."""
    images = torch.empty(0, detector.channels, imgsz, imgsz)
    if data:
        try:
            place = torch.device("cpu")
            batches = detector.calibration_batches(data, images=IMAGES, imgsz=imgsz, batch=IMAGES, device=place)
            images = torch.cat([batch["img"] for batch in batches])
        except UserError:  # a set for validation alone
            pass
    if len(images) >= IMAGES:
        return images, None
    more = detector.photographs(imgsz)
    of_data = f"{len(images)} images of the data and " if len(images) else ""
    return torch.cat((images, more)), f"Compared on {of_data}two pictures, cropped and mirrored; give data for more."


def precision_of(format: str, quantize: Any = None) -> str:
    """What an export runs in on this machine, given Ultralytics' `quantize`."""
    if quantize in (8, "w8a16", "w8a32"):
        return "int8"
    return "f16" if quantize == 16 else default_precision(format)


def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], precision: str) -> Parity:
    """Match the boxes of two networks, image by image, and judge.

    A box without a counterpart counts unless its score is within the tolerance of the confidence, since a counterpart
    may then lie just below.

    Args:
        ours: For each image (boxes, 6): x1, y1, x2, y2, score, class.
        theirs: The same of the export.
        precision: Key of `TOLERANCES`.
    """
    tolerance = TOLERANCES[precision]
    scores = torch.cat([boxes[:, 4] for boxes in ours]).sort(descending=True).values
    confidence = _SURE
    if len(scores) and int((scores >= _SURE).sum()) < _FEW:
        confidence = min(_SURE, float(scores[min(_BEST, len(scores)) - 1]))
    allowed = tolerance.score * confidence / _SURE
    ious, apart, unmatched = [], [], 0
    for a, b in zip(ours, theirs, strict=True):
        a, b = (boxes[boxes[:, 4] >= confidence - allowed] for boxes in (a, b))
        pairs = _pairs(a, b)
        for i, j, iou in pairs:
            if max(a[i, 4], b[j, 4]) >= confidence:
                ious.append(iou)
                apart.append(float((a[i, 4] - b[j, 4]).abs()))
        for boxes, matched in ((a, {i for i, _, _ in pairs}), (b, {j for _, j, _ in pairs})):
            alone = [k for k in range(len(boxes)) if k not in matched]
            unmatched += int((boxes[alone, 4] >= confidence + allowed).sum())
    alike = sum(iou >= tolerance.iou and d <= allowed for iou, d in zip(ious, apart, strict=True))
    counted = len(ious) + unmatched
    share = alike / counted if counted else 1.0
    counts = [sum(int((boxes[:, 4] >= confidence).sum()) for boxes in side) for side in (ours, theirs)]
    near = abs(counts[0] - counts[1]) <= max((1 - tolerance.share) * counts[0], 1)
    return Parity(
        precision=precision,
        images=len(ours),
        confidence=confidence,
        ours=counts[0],
        theirs=counts[1],
        alike=share,
        iou=sum(ious) / len(ious) if ious else 0.0,
        worst_iou=min(ious, default=0.0),
        score=max(apart, default=0.0),
        passed=bool(share >= tolerance.share and near),
    )


def _pairs(a: Tensor, b: Tensor) -> list[tuple[int, int, float]]:
    """Boxes that are the same, those that overlap most first, each once: their numbers and their IoU."""
    if not len(a) or not len(b):
        return []
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:4], b[None, :, 2:4])
    common = (high - low).clamp_min(0).prod(2)
    areas = [(boxes[:, 2:4] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    iou = common / (areas[0][:, None] + areas[1][None] - common).clamp_min(1e-12)
    iou = iou * (a[:, None, 5] == b[None, :, 5])
    found, used = [], (set(), set())
    for place in iou.flatten().argsort(descending=True).tolist():
        i, j = divmod(place, len(b))
        if iou[i, j] < _SAME:
            break
        if i not in used[0] and j not in used[1]:
            found.append((i, j, float(iou[i, j])))
            used[0].add(i)
            used[1].add(j)
    return found
