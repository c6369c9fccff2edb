"""`yoloprune val`: mAP of any checkpoint, by Ultralytics' validator and by pycocotools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import reported
from .options import Data, Device, Download, Imgsz, Json, Trust, Verbose, Weights, WeightsToo, read_weights, read_whole

__all__ = ["NAME", "command"]

NAME = "val"


def command(
    word: Weights = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Any other keyword of Ultralytics' val(), such as iou=0.65.", show_default=False
        ),
    ] = None,
    weights: WeightsToo = None,
    data: Data = None,
    download: Download = False,
    imgsz: Imgsz = None,
    batch: Annotated[str, typer.Option("--batch", help="Images per batch.", metavar="<number>")] = "16",
    device: Device = None,
    as_json: Json = False,
    verbose: Verbose = False,
    trust: Trust = False,
) -> None:
    """Validate a model, pruned or not: mAP by Ultralytics, and by pycocotools where COCO annotations are known.

    [bold]Examples[/]

      yoloprune val runs/prune/prune/pruned.pt

      yoloprune val yolov8n.pt --data coco.yaml --batch 32 iou=0.65 --json
    """
    with reported():
        path, keywords = read_weights([word, *(words or ())], weights, NAME)
        size, images = read_whole("--imgsz", imgsz), read_whole("--batch", batch, least=1)
        _val(path, keywords, data, download, size, images, device, as_json, verbose, trust)


def _val(
    weights: Path,
    keywords: dict[str, Any],
    data: str | None,
    download: bool,
    imgsz: int | None,
    batch: int,
    device: str | None,
    as_json: bool,
    verbose: bool,
    trust: bool,
) -> None:
    from yoloprune.paths import check_data_path
    from yoloprune.pipeline.keywords import COMMAND_DECIDES, check_keywords
    from yoloprune.pipeline.options import check_imgsz

    from .keywords import with_precision
    from .screen import Screen

    keywords = with_precision(keywords)
    unwritten = dict.fromkeys(("save_dir", "project", "name", "exist_ok"), "nothing is written")
    check_keywords(keywords, {name: name for name in ("data", "imgsz", "batch", "device")}, COMMAND_DECIDES | unwritten)
    check_imgsz(imgsz)
    check_data_path(data)
    with Screen.open(verbose=verbose, as_json=as_json) as screen:
        with screen.waiting("Load and check"):
            from yoloprune import detectors
            from yoloprune.pipeline.data import choose_data, fitting_imgsz
            from yoloprune.pipeline.metrics import named_metrics
            from yoloprune.pipeline.targets import cost

            detector = detectors.load(weights, trust=trust)
            detector.place(device)
            if download and data:
                detector.fetch(data, trust=trust)
            data = choose_data(data, detector)
            imgsz, _ = fitting_imgsz(detector, imgsz)
            measured = cost(detector)
        with screen.phase("Validate"):
            metrics = detector.validate(data, imgsz=imgsz, batch=batch, device=device, verbose=verbose, **keywords)
        figures = {
            "GFLOPs": round(measured.gflops, 3),
            "parameters": measured.params,
            "images": metrics.images,
            "imgsz": imgsz,
            **named_metrics(metrics, detector.task),
            "seconds": round(metrics.seconds, 1),
        }
        if as_json:
            screen.json(figures)
        else:
            screen.line(f"{weights} on {data}", "bold")
            screen.result(_table(figures))


def _table(figures: dict[str, float]) -> Any:
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
    return table
