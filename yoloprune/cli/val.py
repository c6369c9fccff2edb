"""`yoloprune val`: mAP of any checkpoint, by Ultralytics' validator and by pycocotools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import reported
from .greeting import import_ultralytics
from .keywords import parse_pairs
from .options import Imgsz, Trust, Weights

__all__ = ["NAME", "command"]

NAME = "val"


def command(
    weights: Weights,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Any other keyword of Ultralytics' val().", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data YAML.", show_default="what the weights were trained on")
    ] = None,
    imgsz: Imgsz = None,
    batch: Annotated[int, typer.Option("--batch", help="Images per batch.", min=1)] = 16,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, 0, mps …", show_default="Ultralytics chooses")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    trust: Trust = False,
) -> None:
    """Validate a model, pruned or not: mAP by Ultralytics, and by pycocotools where COCO annotations are known.

    [bold]Examples[/]

      yoloprune val runs/prune/prune/pruned.pt

      yoloprune val yolov8n.pt --data coco.yaml --batch 32 iou=0.65 --json
    """
    with reported():
        _val(weights, parse_pairs(pairs or ()), data, imgsz, batch, device, as_json, trust)


def _val(
    weights: Path,
    keywords: dict,
    data: str | None,
    imgsz: int | None,
    batch: int,
    device: str | None,
    as_json: bool,
    trust: bool,
) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    import_ultralytics(as_json)
    from yoloprune.yolo import checkpoints
    from yoloprune.yolo.run.data import choose_data
    from yoloprune.yolo.run.device import check_device
    from yoloprune.yolo.run.imgsz import fitting_imgsz
    from yoloprune.yolo.run.keywords import COMMAND_DECIDES, check_keywords
    from yoloprune.yolo.run.metrics import named_metrics
    from yoloprune.yolo.run.options import check_imgsz
    from yoloprune.yolo.run.target import cost
    from yoloprune.yolo.validation import validate

    unwritten = dict.fromkeys(("save_dir", "project", "name", "exist_ok"), "nothing is written")
    check_keywords(keywords, {name: name for name in ("data", "imgsz", "batch", "device")}, COMMAND_DECIDES | unwritten)
    check_imgsz(imgsz)
    check_device(device)
    yolo = checkpoints.load(weights, trust=trust)
    data = choose_data(data, yolo)
    imgsz, _ = fitting_imgsz(yolo, imgsz)
    measured = cost(yolo.model)
    metrics = validate(yolo, data, imgsz=imgsz, batch=batch, device=device, verbose=not as_json, **keywords)
    figures = {
        "GFLOPs": round(measured.gflops, 3),
        "parameters": measured.params,
        "images": metrics.images,
        "imgsz": imgsz,
        **named_metrics(metrics, yolo.task),
        "seconds": round(metrics.seconds, 1),
    }
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
        return
    table = Table(title=f"{weights} on {data}", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
    Console().print(table)
