"""Several checkpoints, pruned or not, side by side on the same data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yoloprune.deploy.latency import latencies, module_latencies
from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.paths import told_apart
from yoloprune.pipeline.data import choose_data, fitting_imgsz
from yoloprune.pipeline.metrics import named_metrics
from yoloprune.pipeline.reporting import environment, layers, looks, noise, usage
from yoloprune.pipeline.targets import cost
from yoloprune.progress import Progress
from yoloprune.report import Measure
from yoloprune.report.page import Network, Page, Point
from yoloprune.report.verdict import comparison_words

__all__ = ["Comparison", "compare"]


@dataclass
class Comparison:
    """What `compare` found.

    Attributes:
        page: It as a page.
        sizes: Image size of each network, in px.
        data: What they were validated on.
    """

    page: Page
    sizes: list[int]
    data: str


def compare(
    detectors: Mapping[str, Detector],
    data: str | None,
    *,
    imgsz: int | None = None,
    batch: int = 16,
    device: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Validate networks on the same data and look at the same images with each.

    Args:
        detectors: Path of a checkpoint -> its detector; the others are measured by the first.
        data: What `Detector.check_data` takes; None: what the first was trained on.
        imgsz: Image size in px; None: each at the size that it was trained at.
        batch: Images per batch.
        device: As `Detector.place` takes it.
        progress: Where to report to.

    Raises:
        UserError: The networks have different tasks, or the data cannot be used with one of them.
    """
    progress, all_of = progress or Progress(), list(detectors.values())
    if len({detector.task for detector in all_of}) > 1:
        tasks = ", ".join(f"{Path(path).name} is for {of.task}" for path, of in detectors.items())
        raise UserError(f"Only networks of one task can be compared, and {tasks}.")
    data = choose_data(data, all_of[0])
    for detector in all_of:
        detector.place(device)
        detector.check_data(data, same_classes=True)
    sizes = [fitting_imgsz(detector, imgsz)[0] for detector in all_of]
    labels = told_apart(list(detectors))
    alike = len({*sizes}) == 1  # or a smaller image makes a network cheaper
    shares = [1.0 if alike else (size / GFLOPS_IMGSZ) ** 2 for size in sizes]
    networks = []
    for label, size, share, detector in zip(labels, sizes, shares, all_of, strict=True):
        with progress.phase(f"Validate {label}"):
            found = detector.validate(data, imgsz=size, batch=batch, device=device, details=True)
        measure = Measure(*cost(detector), metrics=named_metrics(found, detector.task))
        measure.gflops *= share
        networks.append(Network(label, measure, found.details))
    with progress.phase("Measure latency"):
        for network, ms in zip(networks, latencies(all_of, imgsz=sizes, device=device), strict=True):
            network.measure.latency_ms = ms
        times = module_latencies(all_of, imgsz=sizes, device=device)
    for network, share, detector, own in zip(networks, shares, all_of, times, strict=True):
        network.layers = [layer._replace(gflops=layer.gflops * share) for layer in layers(detector, own)]
    with progress.phase("Look at images"):
        shown, looked_at = looks(all_of, data, sizes, device)
    at = " and ".join(f"{size} px" for size in dict.fromkeys(sizes))
    counted = "those of model.info(), at 640 px" if alike else "of one image of each network's size"
    page = Page(
        title=" against ".join(labels),
        subtitle=f"{all_of[0].task.capitalize()}, on {Path(data).name}, images of {at}. GFLOPs are {counted}; "
        f"milliseconds are those of torch on {all_of[0].device_name(device)}, float32.",
        words=comparison_words(networks, list(detectors), sizes, [usage(detector) for detector in all_of]),
        networks=networks,
        path=[_point(network) for network in networks],
        looks=shown,
        looked_at=looked_at,
        command=_command(list(detectors), data, imgsz, device),
        environment=environment(all_of[0], device),
    )
    return Comparison(page, sizes, data)


def _point(network: Network) -> Point:
    measure = network.measure
    return Point(
        network.label,
        "other",
        measure.gflops,
        measure.metrics,
        noise(network.details, measure.metrics),
        measure.latency_ms,
    )


def _command(paths: list[str], data: str, imgsz: int | None, device: str | None) -> str:
    words = ["yoloprune", "compare", *paths, "--data", data]
    words += ["--imgsz", str(imgsz)] if imgsz else []
    return shlex.join(words + (["--device", device] if device else []))
