"""`yoloprune export`: ONNX, Ultralytics' other formats, and checkpoints that stock Ultralytics trains."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune.errors import UserError

from .errors import fail, reported
from .options import (
    Download,
    Imgsz,
    Trust,
    Verbose,
    Weights,
    WeightsToo,
    read_weights,
    read_whole,
    with_default,
)

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
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help=with_default(
                "Data YAML: images to compare on, to measure int8 ranges on and for --val.",
                "what the weights were trained on",
            ),
            metavar="<path>",
        ),
    ] = None,
    val: Annotated[
        bool, typer.Option("--val", help="Measure mAP of the export beside the network's.", metavar="")
    ] = False,
    imgsz: Imgsz = None,
    download: Download = False,
    verbose: Verbose = False,
    trust: Trust = False,
) -> None:
    """Export a model, pruned or not, beside its weights, and check that the export detects what the model does.

    It is run in its own runtime on 16 images or more and its boxes are compared by a stated tolerance. If it fails,
    the exit code is 1. For TensorRT without a GPU, the ONNX file is made and checked, and the trtexec line printed.

    The format stock is a checkpoint whose model.yaml says the pruned widths: Ultralytics trains it without yoloprune.

    [bold]Examples[/]

      yoloprune export runs/prune/prune/pruned.pt

      yoloprune export pruned.pt --format openvino --imgsz 320

      yoloprune export pruned.pt --format openvino --data my.yaml --val quantize=8

      yoloprune export pruned.pt --format tensorrt half=True

      yoloprune export yolov7-tiny.pt --layout official

      yoloprune export pruned.pt --format stock
    """
    with reported():
        path, keywords = read_weights([word, *(words or ())], weights, NAME)
        size = read_whole("--imgsz", imgsz)
        failed = _export(path, keywords, format, layout, data, val, size, download, verbose, trust)
        if failed:
            fail(failed)


def _export(
    weights: Path,
    keywords: dict[str, Any],
    format: str,
    layout: str | None,
    data: str | None,
    val: bool,
    imgsz: int | None,
    download: bool,
    verbose: bool,
    trust: bool,
) -> str | None:
    """Export and check; a sentence if the export is wrong."""
    from yoloprune.deploy.formats import STOCK, check_can_export, check_format, export_path, has_gpu
    from yoloprune.paths import check_data_path
    from yoloprune.pipeline.keywords import COMMAND_DECIDES, check_keywords
    from yoloprune.pipeline.options import check_imgsz

    from .keywords import with_precision
    from .screen import Screen

    keywords = with_precision(keywords)
    if data and "data" in keywords:
        raise UserError("--data and data= are the same; leave one of them out.")
    data = data or keywords.pop("data", None)
    elsewhere = dict.fromkeys(("save_dir", "project", "exist_ok"), "the export goes beside the weights")
    check_keywords(keywords, {"format": "format", "imgsz": "imgsz"}, COMMAND_DECIDES | elsewhere)
    format = check_format(format)
    check_imgsz(imgsz)
    if data is not None:
        check_data_path(str(data))
    quantize = keywords.get("quantize")
    only_onnx = format == "engine" and not has_gpu()
    if only_onnx and val:
        raise UserError("Without an NVIDIA GPU there is no engine to validate; leave --val out, or give --format onnx.")
    if only_onnx:
        format = "onnx"
        keywords = {name: value for name, value in keywords.items() if name not in ("quantize", "workspace", "device")}
    check_can_export(format)
    with Screen.open(verbose=verbose) as screen:
        with screen.waiting("Load and check"):
            from yoloprune import detectors
            from yoloprune.pipeline.data import choose_data, fitting_imgsz

            detector = detectors.load(weights, trust=trust)
            if download and data:
                detector.fetch(data, trust=trust)
            if layout and layout not in detector.layouts:
                known = ", ".join(detector.layouts) or "none can be chosen"
                raise UserError(f"--layout {layout} is no layout of a {detector.family} model's outputs ({known}).")
            imgsz, rounded = fitting_imgsz(detector, imgsz)
            if val:
                data = choose_data(data, detector)
            elif data:
                detector.check_data(data, labels=False)
        if rounded:
            screen.line(rounded)
        chosen = {"layout": layout} if layout else {}
        measured = {"data": data} if data and quantize in (8, "w8a16") and not only_onnx else {}
        with screen.phase(f"Export to {format}"):
            path = detector.export(
                export_path(weights, format),
                format=format,
                imgsz=imgsz,
                verbose=verbose,
                **chosen,
                **measured,
                **keywords,
            )
        screen.line(f"Wrote {path}", "bold")
        if format == STOCK:
            screen.line(
                "Stock Ultralytics trains it without yoloprune, at these widths. For freeze=, rows_of_layer in its "
                "model.yaml has the rows that each layer has become."
            )
            return None
        failed = _check(screen, detector, path, format, imgsz, data, keywords)
        if only_onnx:
            return failed or _for_tensorrt(screen, path, imgsz, quantize)
        if val:
            _validate(screen, detector, path, imgsz, data)
        elif measured:
            screen.line("--val says what int8 costs in mAP.")
        return failed


def _check(
    screen: Any, detector: Any, path: Path, format: str, imgsz: int, data: str | None, keywords: dict[str, Any]
) -> str | None:
    """Print the verdict on an export, and return a sentence if it is bad."""
    from yoloprune.deploy.backends import default_precision
    from yoloprune.deploy.formats import CHECKED
    from yoloprune.deploy.parity import parity
    from yoloprune.pipeline.data import choose_data

    if format not in CHECKED:
        screen.line(f"Not compared with torch: {format} runs on its own devices alone.")
        return None
    if keywords.get("nms") is False:
        screen.line("Not compared with torch: nms=False exports another head than the one that is compared.")
        return None
    if data is None:
        with suppress(UserError):  # the data of the training are not here
            data = choose_data(None, detector, images=True, labels=False, validates=False)
    with screen.phase("Compare with torch"):
        found, said = parity(detector, path, format=format, imgsz=imgsz, data=data, quantize=keywords.get("quantize"))
    if said:
        screen.line(said)
    if format == "openvino":
        own = default_precision(format)
        screen.line(
            f"OpenVINO computes in {own} on this processor"
            + (" unless it is told otherwise; INFERENCE_PRECISION_HINT=f32 is exact." if own != "f32" else ".")
        )
    screen.line(str(found))
    return None if found.passed else f"{path} does not detect what {detector.file} does; see the figures above."


def _validate(screen: Any, detector: Any, path: Path, imgsz: int, data: str) -> None:
    """Print the accuracy of the network and of its export, both on square images."""
    from yoloprune.pipeline.metrics import named_metrics

    figures = []
    with screen.phase("Validate the network"):
        figures.append(named_metrics(detector.validate(data, imgsz=imgsz, rect=False), detector.task))
    with screen.phase("Validate the export"):
        figures.append(named_metrics(detector.validate_export(path, data), detector.task))
    for name, before in figures[0].items():
        after = figures[1][name]
        screen.line(f"{name}: {before:.3f} → {after:.3f} ({after - before:+.3f})")


def _for_tensorrt(screen: Any, path: Path, imgsz: int, quantize: Any) -> str:
    """Check an ONNX file for TensorRT and print how an engine is made of it; a sentence, since none was made here."""
    from yoloprune.deploy.tensorrt import hindrances, trtexec

    for hindrance in hindrances(path):
        screen.line(f"TensorRT: {hindrance}")
    screen.line("On the machine that has the GPU:")
    screen.line(trtexec(path, imgsz, quantize))
    if quantize == 8:
        screen.line(
            "int8 takes ranges, which trtexec does not measure; export there with yoloprune and the same words."
        )
    return f"There is no NVIDIA GPU here, so that no engine was made; {path} is what one is made of."
