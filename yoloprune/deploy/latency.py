"""Milliseconds per image: whether the smaller network is the faster one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np

from yoloprune.detectors.base import Detector

from .backends import compiled, interleaved

__all__ = ["latencies"]


def latencies(
    detectors: Sequence[Detector], *, imgsz: int | Sequence[int], device: str | None = None, seconds: float = 4.0
) -> list[float]:
    """Median milliseconds of one square image, in float32 and with batch norms fused, as Ultralytics predicts.

    They take turns, so that what else the machine does affects all equally.

    Args:
        detectors: Detectors; left as they are.
        imgsz: Image size in px, or one for each.
        device: As Ultralytics takes it; the first of several.
        seconds: About how long to measure, but for a few rounds at least.
    """
    place = detectors[0].place(device)
    sizes = [imgsz] * len(detectors) if isinstance(imgsz, int) else imgsz
    calls = []
    for detector, n in zip(detectors, sizes, strict=True):
        image = np.zeros((1, detector.channels, n, n), np.float32)
        calls.append(partial(compiled(detector.fused(), device=place), image))
    return [statistics.median(times) for times in interleaved(calls, seconds=seconds)]
