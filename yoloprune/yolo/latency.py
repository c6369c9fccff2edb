"""Milliseconds per image: whether the smaller network is the faster one."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.utils.torch_utils import get_cpu_info, select_device

from yoloprune.devices import synchronise

__all__ = ["device_name", "latencies"]

_WARM_UP = 3
_LEAST = 5  # rounds


def latencies(
    networks: Sequence[nn.Module], *, imgsz: int, device: str | None = None, seconds: float = 4.0
) -> list[float]:
    """Median milliseconds of one square image, in float32 and with batch norms fused, as Ultralytics predicts.

    The networks take turns, so that what else the machine does meets all alike.

    Args:
        networks: Networks of Ultralytics; left as they are.
        imgsz: Image size in px.
        device: As Ultralytics takes it; the first of several.
        seconds: About how long to measure, but for a few rounds at least.
    """
    place = select_device(device, verbose=False)
    fused = [copy.deepcopy(network).float().fuse(verbose=False).to(place).eval() for network in networks]
    image = torch.zeros(1, fused[0].yaml.get("channels", 3), imgsz, imgsz, device=place)
    rounds: list[list[float]] = []
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            for network in fused:
                network(image)
        started = time.perf_counter()
        while len(rounds) < _LEAST or time.perf_counter() - started < seconds:
            rounds.append([_milliseconds(network, image) for network in fused])
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def device_name(device: str | None) -> str:
    """What latencies were measured on."""
    place = select_device(device, verbose=False)
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    threads = torch.get_num_threads()
    return f"{get_cpu_info()}, {threads} thread{'s' * (threads > 1)}" if place.type == "cpu" else str(place)


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    synchronise(image.device)
    started = time.perf_counter()
    network(image)
    synchronise(image.device)
    return 1000 * (time.perf_counter() - started)
