"""`yoloprune profile`: what a network's convolutions cost on this device, to be pruned for it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.errors import UserError

from .errors import reported
from .options import Device, Imgsz, Trust, Weights, WeightsToo, read_weights, read_whole

__all__ = ["NAME", "command"]

NAME = "profile"


def command(
    word: Weights = None,
    weights: WeightsToo = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The table, JSON.")] = Path("latency.json"),
    backend: Annotated[
        str, typer.Option("--backend", help="onnxruntime, openvino, ncnn or torch.", metavar="<name>")
    ] = "onnxruntime",
    threads: Annotated[str | None, typer.Option("--threads", help="Threads to run on.", metavar="<number>")] = None,
    imgsz: Imgsz = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Measure what the convolutions of a network, and of narrower ones, cost on this device.

    For a device on which there is no room to prune: run this there, bring the table home, and prune with
    --latency-table. On the machine that prunes nothing is needed: a target in milliseconds measures what it lacks.

    [bold]Examples[/]

      yoloprune profile yolov8n.pt --backend ncnn --threads 4 --imgsz 320 -o raspberry.json

      yoloprune v8 yolov8n.pt --target-speedup 2 --latency-table raspberry.json --data my.yaml
    """
    with reported():
        path, pairs = read_weights([word], weights, NAME)
        if pairs:
            raise UserError(f"{word} is not understood; profile takes a checkpoint and options.")
        _profile(path, out, backend, read_whole("--threads", threads), read_whole("--imgsz", imgsz), device, trust)


def _profile(
    weights: Path, out: Path, backend: str, threads: int | None, imgsz: int | None, device: str | None, trust: bool
) -> None:
    from yoloprune.files import check_folder
    from yoloprune.pipeline.options import Options

    from .screen import Screen

    options = Options(target_speedup=2.0, backend=backend, threads=threads, imgsz=imgsz, device=device)
    try:
        check_folder(out.absolute().parent)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another with --out.") from error
    with Screen.open() as screen:
        with screen.waiting("Load and check"):
            from dataclasses import replace

            from yoloprune import detectors
            from yoloprune.pipeline.data import fitting_imgsz
            from yoloprune.pipeline.on_device import OnDevice

            detector = detectors.load(weights, trust=trust)
            size, rounded = fitting_imgsz(detector, imgsz)
        if rounded:
            screen.line(rounded)
        with screen.phase(f"Measure on {options.backend}"):
            here = OnDevice(detector, replace(options, imgsz=size))
            table = here.completed(detector)
        out.parent.mkdir(parents=True, exist_ok=True)
        table.save(out)
        screen.line(f"{weights.name} takes {here.own_ms:.2f} ms at {size} px: {here.device}")
        screen.line(f"Wrote {out}; prune by it with: --target-speedup 2 --latency-table {out}", "bold")
