"""The end of a run: what its last network is validated for, exported to and reported in."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from yoloprune.deploy.formats import CHECKED, export_path
from yoloprune.deploy.latency import latencies
from yoloprune.deploy.parity import parity
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.report import Measure, paired_widths

from .context import Context
from .manifest import adopt
from .reporting import write_report
from .smaller_image import compare_image_sizes
from .targets import cost

__all__ = ["finish", "megabytes"]


def finish(run: Context, detector: Detector, plan: Plan, started: float) -> Detector:
    """Write, validate and export the last network, and complete the record.

    Where the run writes a file, everything is measured on the network that the file holds.

    Returns:
        The detector as it was measured.

    Raises:
        UserError: The file does not hold the network that the run ended with, or its outputs are no numbers.
    """
    options, record = run.options, run.record
    detector.settle(imgsz=options.imgsz, data=options.data if options.val else None)  # not validated, they may not fit
    size = None
    if run.folder:
        plan.save(run.folder.plan)
        detector = run.save(detector, run.folder.weights)
        size = megabytes(run.folder.weights)
    file = run.original.file
    detector.settle(file=run.folder.weights if run.folder else file.with_name(f"{file.stem}-pruned.pt"))
    record.widths = paired_widths(run.original.network, detector.network)
    after = Measure(*cost(detector), size)
    if options.val:
        after.metrics = run.validate(detector, "Validate the pruned", what="after")
        if run.device and run.device.here:
            _time_on_device(run, detector, after)
            compare_image_sizes(run, after.latency_ms / record.before.latency_ms, after.metrics)
        else:
            compare_image_sizes(run, after.gflops / record.before.gflops, after.metrics)
            _time(run, detector, after)
    if options.export:
        record.export = _export(run, detector)
    record.after = after
    record.seconds["total"] = round(record.seconds.get("total", 0.0) + time.perf_counter() - started, 2)
    if run.folder:
        with run.phase("Write the report", "report"):
            write_report(run, detector)
    run.remember()  # last: it says that the run is finished
    return detector


def _time(run: Context, detector: Detector, after: Measure) -> None:
    """Measure the latency of the original, also at the smaller image sizes, and of the last network."""
    options, record = run.options, run.record
    networks = [run.original, detector] + [run.original] * len(record.smaller_images)
    sizes = [options.imgsz] * 2 + [smaller.imgsz for smaller in record.smaller_images]
    with run.phase("Measure latency", "latency"):
        record.before.latency_ms, after.latency_ms, *rest = latencies(networks, imgsz=sizes, device=options.device)
    for smaller, latency_ms in zip(record.smaller_images, rest, strict=True):
        smaller.latency_ms = latency_ms
    record.latency_on = detector.device_name(options.device)


def _time_on_device(run: Context, detector: Detector, after: Measure) -> None:
    """Measure the last network on the backend that it is for."""
    with run.phase("Measure latency", "latency"):
        run.record.before.latency_ms, after.latency_ms = run.device.own_ms, run.device.times(detector)
    run.record.latency_on = str(run.device.device)


def _export(run: Context, detector: Detector) -> dict[str, object] | None:
    """Export and compare; what goes wrong is noted, since all else that the run has done is worth keeping."""
    options, weights = run.options, run.folder.weights
    path, report = export_path(weights, options.export), None
    with run.phase(f"Export to {options.export}", "export"):
        try:
            detector.export(path, format=options.export, imgsz=options.imgsz, verbose=run.progress.hears)
            adopt(path)
            report = {"file": path.name}
            if options.export == "onnx":
                report["difference"] = detector.onnx_difference(path)
            if options.export in CHECKED:
                found, _ = parity(detector, path, format=options.export, imgsz=options.imgsz, data=options.data)
                report["check"] = str(found)
                if not found.passed:
                    run.note(f"{path.name} does not detect what {weights.name} does: {found}.")
        except UserError as error:
            run.note(
                f"{error} All else is finished; to export again: "
                f"yoloprune export {shlex.quote(str(weights))} --format {options.export} --imgsz {options.imgsz}"
            )
    return report


def megabytes(path: Path) -> float:
    """Size of a file in MB (10^6 bytes)."""
    return round(path.stat().st_size / 1e6, 3)
