"""`yoloprune export`: ONNX and Ultralytics' other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import reported
from .keywords import parse_pairs
from .options import Imgsz, Trust, Weights

__all__ = ["NAME", "command"]

NAME = "export"


def command(
    weights: Weights,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Any other keyword of Ultralytics' export(), such as opset=17 dynamic=True.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="Export format of Ultralytics.")] = "onnx",
    imgsz: Imgsz = None,
    trust: Trust = False,
) -> None:
    """Export a model, pruned or not, beside its weights; an ONNX file is also run and compared with torch.

    [bold]Examples[/]

      yoloprune export runs/prune/prune/pruned.pt

      yoloprune export pruned.pt --format openvino --imgsz 320
    """
    with reported():
        _export(weights, parse_pairs(pairs or ()), format, imgsz, trust)


def _export(weights: Path, keywords: dict, format: str, imgsz: int | None, trust: bool) -> None:
    from rich.console import Console

    from yoloprune.yolo import checkpoints, exporting
    from yoloprune.yolo.formats import check_can_export, check_format, export_path
    from yoloprune.yolo.run.imgsz import fitting_imgsz
    from yoloprune.yolo.run.keywords import COMMAND_DECIDES, check_keywords
    from yoloprune.yolo.run.options import check_imgsz

    elsewhere = dict.fromkeys(("save_dir", "project", "exist_ok"), "the export goes beside the weights")
    check_keywords(keywords, {"format": "format", "imgsz": "imgsz"}, COMMAND_DECIDES | elsewhere)
    format = check_format(format)
    check_can_export(format)
    check_imgsz(imgsz)
    console = Console()
    yolo = checkpoints.load(weights, trust=trust)
    imgsz, rounded = fitting_imgsz(yolo, imgsz)
    if rounded:
        console.print(rounded, highlight=False)
    with console.status(f"Export to {format} …"):
        path = exporting.export(yolo, export_path(weights, format), format=format, imgsz=imgsz, **keywords)
    console.print(f"Wrote [bold]{path}[/]", highlight=False)
    if format == "onnx" and "nms" in keywords:
        console.print("Not compared with torch: nms= changes what comes out.", highlight=False)
    elif format == "onnx":
        difference = exporting.agreement(yolo, path)
        console.print(f"Largest relative difference from torch: {difference:.1e}", highlight=False)
