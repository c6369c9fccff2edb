"""Milliseconds per image: whether the smaller network is the faster one."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from yoloprune.detectors.base import Detector
from yoloprune.devices import synchronise

from .backends import compiled, interleaved

__all__ = ["latencies", "module_latencies"]

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
    sizes = [imgsz] * len(detectors) if isinstance(imgsz, int) else imgsz
    calls = []
    for detector, n in zip(detectors, sizes, strict=True):
        image = np.zeros((1, detector.channels, n, n), np.float32)
        calls.append(partial(compiled(detector.fused(), device=place), image))
    return [statistics.median(times) for times in interleaved(calls, seconds=seconds)]


def module_latencies(
    detectors: Sequence[Detector],
    *,
    imgsz: int | Sequence[int],
    batch: int = 1,
    device: str | None = None,
    seconds: float = 4.0,
) -> list[dict[str, float]]:
    """Median milliseconds of square images by module, of networks as `latencies` runs them.

    Each module's own, without the modules inside it. One that stands in several places, such as an activation, counts
    with what calls it. To look at every module takes time too, so that the sum is above the network's latency.

    Args:
        detectors: Detectors; left as they are.
        imgsz: Image size in px, or one for each.
        batch: Images at a time.
        device: As Ultralytics takes it; the first of several.
        seconds: About how long to measure, but for a few rounds at least.
    """
    place = detectors[0].place(device)
    watched = [_Watched(detector.fused().to(place)) for detector in detectors]
    sizes = [imgsz] * len(watched) if isinstance(imgsz, int) else imgsz
    images = [torch.zeros(batch, of.channels, n, n, device=place) for of, n in zip(detectors, sizes, strict=True)]
    rounds: list[list[dict[str, float]]] = []
    started = time.perf_counter()
    with torch.inference_mode():
        while len(rounds) < _WARM_UP + _LEAST or time.perf_counter() - started < seconds:
            rounds.append([network(image) for network, image in zip(watched, images, strict=True)])
    runs = zip(*rounds[_WARM_UP:], strict=True)
    return [{name: statistics.median(own[name] for own in each) for name in each[0]} for each in runs]


class _Watched:
    """A network whose modules are timed: called on an image, it gives the milliseconds of each."""

    def __init__(self, network: nn.Module) -> None:
        self._network, self._running = network, [""]
        self._own: dict[str, float] = {}
        places = Counter(map(id, (module for _, module in network.named_modules(remove_duplicate=False))))
        for name, module in network.named_modules():
            if places[id(module)] == 1:
                module.register_forward_pre_hook(lambda *_, name=name: self._enter(name))
                module.register_forward_hook(lambda *_: self._leave())

    def __call__(self, image: torch.Tensor) -> dict[str, float]:
        self._device, self._own = image.device, {}
        synchronise(image.device)
        self._last = time.perf_counter()
        self._network(image)
        return self._own

    def _enter(self, name: str) -> None:
        self._lap()
        self._running.append(name)

    def _leave(self) -> None:
        self._lap()
        self._running.pop()

    def _lap(self) -> None:
        synchronise(self._device)
        name, now = self._running[-1], time.perf_counter()
        self._own[name] = self._own.get(name, 0.0) + 1000 * (now - self._last)
        self._last = time.perf_counter()
