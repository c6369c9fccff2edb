"""`yoloprune export`: ONNX, Ultralytics' other formats, and checkpoints that stock Ultralytics trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune.errors import UserError

from .errors import reported
from .options import Download, Imgsz, Trust, Verbose, Weights, WeightsToo, read_weights, read_whole

__all__ = ["NAME", "command"]

NAME = "export"


def command(
    word: Weights = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Any other keyword of Ultralytics' export(), such as opset=17 dynamic=True half=True.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsToo = None,
    format: Annotated[
        str, typer.Option("--format", help="Export format of Ultralytics, or stock.", metavar="<name>")
    ] = "onnx",
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Outputs of YOLOv7 and YOLOv5 as YOLOv8's (v8, the default) or as their own repositories' (official).",
            metavar="<name>",
        ),
    ] = None,
    imgsz: Imgsz = None,
    download: Download = False,
    verbose: Verbose = False,
    trust: Trust = False,
) -> None:
    """Export a model, pruned or not, beside its weights; an ONNX file is also run and compared with torch.

    The format stock is a checkpoint whose model.yaml says the pruned widths: Ultralytics trains it without yoloprune.

    [bold]Examples[/]

      yoloprune export runs/prune/prune/pruned.pt

      yoloprune export pruned.pt --format openvino --imgsz 320

      yoloprune export pruned.pt --format tensorrt half=True

      yoloprune export yolov7-tiny.pt --layout official

      yoloprune export pruned.pt --format stock
    """
    with reported():
        path, keywords = read_weights([word, *(words or ())], weights, NAME)
        _export(path, keywords, format, layout, read_whole("--imgsz", imgsz), download, verbose, trust)


def _export(
    weights: Path,
    keywords: dict[str, Any],
    format: str,
    layout: str | None,
    imgsz: int | None,
    download: bool,
    verbose: bool,
    trust: bool,
) -> None:
    from yoloprune.deploy.formats import STOCK, check_can_export, check_format, export_path
    from yoloprune.pipeline.keywords import COMMAND_DECIDES, check_keywords
    from yoloprune.pipeline.options import check_imgsz

    from .keywords import with_precision
    from .screen import Screen

    keywords = with_precision(keywords)
    elsewhere = dict.fromkeys(("save_dir", "project", "exist_ok"), "the export goes beside the weights")
    check_keywords(keywords, {"format": "format", "imgsz": "imgsz"}, COMMAND_DECIDES | elsewhere)
    format = check_format(format)
    check_imgsz(imgsz)
    check_can_export(format)
    with Screen.open(verbose=verbose) as screen:
        with screen.waiting("Load and check"):
            from yoloprune import detectors
            from yoloprune.pipeline.data import fitting_imgsz

            detector = detectors.load(weights, trust=trust)
            if download and keywords.get("data"):
                detector.fetch(keywords["data"], trust=trust)
            if layout and layout not in detector.layouts:
                known = ", ".join(detector.layouts) or "none can be chosen"
                raise UserError(f"--layout {layout} is no layout of a {detector.family} model's outputs ({known}).")
            imgsz, rounded = fitting_imgsz(detector, imgsz)
        if rounded:
            screen.line(rounded)
        chosen = {"layout": layout} if layout else {}
        with screen.phase(f"Export to {format}"):
            path = detector.export(
                export_path(weights, format), format=format, imgsz=imgsz, verbose=verbose, **chosen, **keywords
            )
        screen.line(f"Wrote {path}", "bold")
        if format == STOCK:
            screen.line(
                "Stock Ultralytics trains it without yoloprune, at these widths. For freeze=, rows_of_layer in its "
                "model.yaml has the rows that each layer has become."
            )
        if format == "onnx" and "nms" in keywords:
            screen.line("Not compared with torch: nms= changes what comes out.")
        elif format == "onnx":
            with screen.waiting("Compare with torch"):
                difference = detector.onnx_difference(path)
            screen.line(f"Largest relative difference from torch: {difference:.1e}")
