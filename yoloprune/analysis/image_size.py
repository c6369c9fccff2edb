"""How much of a saving to take from the image and how much from the network, tried without training."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.pipeline.data import fitting_imgsz
from yoloprune.pipeline.on_device import OnDevice
from yoloprune.pipeline.options import Options
from yoloprune.progress import Progress

from .frontier import Wanted, frontier

__all__ = ["choose_imgsz"]


def choose_imgsz(
    detector: Detector, options: Options, *, weights: str, progress: Progress | None = None
) -> tuple[Options, str]:
    """Spend a part of what a run is to save on a smaller image, where that keeps more: tried without training.

    Args:
        detector: The detector to prune; left as it is.
        options: The options of the run; its target is a cost at its image size, in GFLOPs or milliseconds.
        weights: What to call the detector.
        progress: Where to report to.

    Returns:
        The options with the image size and the target at that size, and a sentence.

    Raises:
        UserError: The run does not validate, so that sizes cannot be compared, or none can be pruned to the target.
    """
    if not options.val:
        raise UserError("Image sizes are compared on validation images; leave --no-val out, or give --imgsz.")
    if options.target_params is not None:
        raise UserError("A smaller image has no fewer parameters; give --target-gflops or --target-ratio.")
    options, wanted, asked = _asked(detector, options)
    settings = replace(options, epochs=0, budget=None)
    with tempfile.TemporaryDirectory(prefix="yoloprune-frontier-") as folder:
        found = frontier({weights: detector}, settings, Path(folder), wanted=wanted, progress=progress)
    pruned = [point for point in found.points if point.share < 1]
    if not pruned:
        raise UserError(f"At {asked} no image size needs pruning, or none can be pruned to it; give another target.")
    best = max(pruned, key=lambda point: point.quality)
    tried = ", ".join(f"{point.quality:.3f} {point.label.partition(' ')[2]}" for point in reversed(pruned))
    whole = max((point for point in found.points if point.share == 1), key=lambda point: point.imgsz)
    said = f"{found.measure} without training at {asked}: {tried}; {best.imgsz} px are taken (unpruned "
    said += f"{whole.quality:.3f} at {whole.imgsz} px)."
    if found.best.share == 1:
        said += f" The unpruned network at {found.best.imgsz} px has {found.best.quality:.3f}."
    target = {} if options.timed else {"target_gflops": None, "target_ratio": best.share}
    return replace(options, imgsz=best.imgsz, choose_imgsz=False, **target), said


def _asked(detector: Detector, options: Options) -> tuple[Options, Wanted, str]:
    """The options with a time in milliseconds, if they ask for one, what may be spent in GFLOPs, and both in words."""
    if not options.timed:
        ratio = options.target_ratio or options.target_gflops / detector.gflops()
        options = replace(options, target_gflops=None, target_ratio=ratio)
        return options, Wanted(ratio=ratio), f"{ratio:.0%} of the cost"
    if options.target_speedup:
        imgsz, _ = fitting_imgsz(detector, options.imgsz)
        ms = OnDevice(detector, replace(options, imgsz=imgsz)).own_ms / options.target_speedup
        options = replace(options, target_speedup=None, target_ms=ms)
    return options, Wanted(), f"{options.target_ms:.2f} ms"
