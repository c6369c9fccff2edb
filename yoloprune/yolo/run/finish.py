"""The end of a run: what its last network is validated for, exported to and reported in."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.report import Measure, draw_widths, paired_widths, write_html
from yoloprune.yolo import exporting
from yoloprune.yolo.formats import export_path
from yoloprune.yolo.latency import device_name, latencies
from yoloprune.yolo.model import YOLO

from .context import Context
from .network import rename, set_args, unsaved_name
from .smaller_image import compare_image_sizes
from .target import cost

__all__ = ["finish", "megabytes"]

_ALIKE = 0.01  # largest relative difference of an export from torch; right ones leave less than .001


def finish(run: Context, yolo: YOLO, plan: Plan, started: float) -> YOLO:
    """Write, validate and export the last network, and complete the record.

    Where the run writes a file, everything is measured on the network that the file holds.

    Returns:
        The model as it was measured.

    Raises:
        UserError: The file does not hold the network that the run ended with, or its outputs are no numbers.
    """
    options, record = run.options, run.record
    set_args(yolo, imgsz=options.imgsz)
    if options.val:  # otherwise they may be of other classes
        set_args(yolo, data=options.data)
    size = None
    if run.folder:
        plan.save(run.folder.plan)
        yolo = run.save(yolo, run.folder.weights)
        size = megabytes(run.folder.weights)
    rename(yolo, run.folder.weights if run.folder else unsaved_name(run.original))
    record.widths = paired_widths(run.original.model, yolo.model)
    after = Measure(*cost(yolo.model), size)
    if options.val:
        after.metrics = run.validate(yolo, "Validate the pruned")
        compare_image_sizes(run, after.gflops, after.metrics)
        _time(run, yolo, after)
    if options.export:
        record.export = _export(run, yolo)
    record.after = after
    record.seconds["total"] = round(record.seconds.get("total", 0.0) + time.perf_counter() - started, 2)
    if run.folder:
        draw_widths(record.widths, run.folder.picture)
        write_html(record, run.folder.picture, run.folder.report)
    run.remember()  # last: it says that the run is finished
    return yolo


def _time(run: Context, yolo: YOLO, after: Measure) -> None:
    """Measure the latency of the original and of the last network."""
    options, record = run.options, run.record
    with run.phase("Measure latency", "latency"):
        networks = (run.original.model, yolo.model)
        record.before.latency_ms, after.latency_ms = latencies(networks, imgsz=options.imgsz, device=options.device)
    record.latency_on = device_name(options.device)


def _export(run: Context, yolo: YOLO) -> dict[str, object] | None:
    """Export and compare; what goes wrong is noted, since all else that the run has done is worth keeping."""
    options, weights = run.options, run.folder.weights
    path, report = export_path(weights, options.export), None
    with run.phase(f"Export to {options.export}", "export"):
        try:
            exporting.export(yolo, path, format=options.export, imgsz=options.imgsz, verbose=run.progress.hears)
            report = {"file": path.name}
            if options.export == "onnx":
                report["difference"] = exporting.agreement(yolo, path)
                if not report["difference"] <= _ALIKE:
                    apart = f"{report['difference']:.1%} of the largest value"
                    run.note(f"{path.name} predicts other than {weights.name}, by up to {apart}.")
        except UserError as error:
            run.note(
                f"{error} All else is finished; to export again: "
                f"yoloprune export {shlex.quote(str(weights))} --format {options.export} --imgsz {options.imgsz}"
            )
    return report


def megabytes(path: Path) -> float:
    """Size of a file in MB (10^6 bytes)."""
    return round(path.stat().st_size / 1e6, 3)
