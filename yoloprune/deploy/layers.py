"""Where a network's time goes: its layers in torch, and the nodes of an ONNX file in ONNX Runtime."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from yoloprune import detectors, execution
from yoloprune.detectors.base import Detector
from yoloprune.pipeline.data import fitting_imgsz

from .backends import onnx_session
from .latency import module_latencies

if TYPE_CHECKING:
    from .bench import Wanted

__all__ = ["LayerTime", "layers_of", "onnx_layers", "torch_layers"]

_WARM_UP = 3


class LayerTime(NamedTuple):
    """A layer: its name, its class or operator, and its median milliseconds."""

    name: str
    kind: str
    ms: float


def torch_layers(detector: Detector, *, imgsz: int, batch: int = 1, device: str | None = None) -> list[LayerTime]:
    """Median milliseconds of each module itself, in order of execution, as `module_latencies` measures them.

    Args:
        detector: The detector; left as it is.
        imgsz: Image size in px.
        batch: Images at a time.
        device: As Ultralytics takes it.
    """
    (times,) = module_latencies([detector], imgsz=imgsz, batch=batch, device=device)
    modules = dict(detector.fused().named_modules())
    return [LayerTime(name, type(modules[name]).__name__, ms) for name, ms in times.items()]


def onnx_layers(path: Path, image: np.ndarray, *, threads: int = 0, rounds: int = 20) -> list[LayerTime]:
    """Median milliseconds of each node, as ONNX Runtime's profiler tells them, in order of execution.

    Args:
        path: The ONNX file.
        image: float32 (images, channels, height, width).
        threads: Number of threads; 0: what ONNX Runtime chooses.
        rounds: How often it is run.
    """
    with tempfile.TemporaryDirectory(prefix="yoloprune-profile-") as folder:
        profile = {"enable_profiling": True, "profile_file_prefix": str(Path(folder) / "profile")}
        session, run = onnx_session(str(path), threads, **profile)
        for _ in range(_WARM_UP + rounds):
            run(image)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"] / 1000)
    return [LayerTime(name, kind, statistics.median(ms[_WARM_UP:])) for (name, kind), ms in times.items()]


def layers_of(path: Path, wanted: Wanted, label: str) -> dict[str, list[LayerTime]]:
    """The layers of a network in the first setting that is wanted: of a checkpoint in torch and ONNX Runtime.

    Args:
        path: A checkpoint or an export; only ONNX files among these have layers that can be timed.
        wanted: What `bench` is asked for.
        label: What the file is called.

    Returns:
        Layers by a title that says what they are of.

    Raises:
        UserError: The file cannot be used.
    """
    found, threads = {}, wanted.threads[0]
    if path.suffix == ".onnx":
        file = detectors.exported(path)
        found[f"{label} in ONNX Runtime"] = onnx_layers(
            path, np.zeros((file.batch, file.channels, *file.imgsz), np.float32), threads=threads
        )
    elif path.suffix == ".pt":
        detector = detectors.load(path, trust=wanted.trust)
        size, _ = fitting_imgsz(detector, wanted.sizes[0] if wanted.sizes else None)
        image = torch.zeros(wanted.batches[0], detector.channels, size, size)
        with execution.threads(threads):
            times = torch_layers(detector, imgsz=size, batch=len(image), device=wanted.device)
        found[f"{label} in torch, {size} px"] = times
        with tempfile.TemporaryDirectory(prefix="yoloprune-layers-") as folder:
            export = detector.export(Path(folder) / "layers.onnx", imgsz=size, batch=len(image))
            found[f"{label} in ONNX Runtime, {size} px"] = onnx_layers(export, image.numpy(), threads=threads)
    return found
