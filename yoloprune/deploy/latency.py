"""Milliseconds per image: whether the smaller network is the faster one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from yoloprune.detectors.base import Detector
from yoloprune.devices import synchronise

__all__ = ["latencies"]

_WARM_UP = 3
_LEAST = 5  # rounds


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
    fused = [detector.fused().to(place) for detector in detectors]
    sizes = [imgsz] * len(fused) if isinstance(imgsz, int) else imgsz
    images = [torch.zeros(1, of.channels, n, n, device=place) for of, n in zip(detectors, sizes, strict=True)]
    rounds: list[list[float]] = []
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            for network, image in zip(fused, images, strict=True):
                network(image)
        started = time.perf_counter()
        while len(rounds) < _LEAST or time.perf_counter() - started < seconds:
            rounds.append([_milliseconds(*each) for each in zip(fused, images, strict=True)])
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    synchronise(image.device)
    started = time.perf_counter()
    network(image)
    synchronise(image.device)
    return 1000 * (time.perf_counter() - started)
