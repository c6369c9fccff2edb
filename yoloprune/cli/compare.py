"""`yoloprune compare`: any checkpoints side by side, as a page with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yoloprune.errors import UserError

from .errors import reported
from .options import Data, Device, Download, Imgsz, Json, Trust, read_whole, with_default

if TYPE_CHECKING:
    from yoloprune.analysis.comparison import Comparison

__all__ = ["NAME", "command"]

NAME = "compare"
_FOLDER = Path("runs/compare/compare")


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WEIGHTS…", help="Checkpoints (.pt), two at least.", show_default=False),
    ] = None,
    data: Data = None,
    download: Download = False,
    imgsz: Imgsz = None,
    batch: Annotated[str, typer.Option("--batch", help="Images per batch.", metavar="<number>")] = "16",
    device: Device = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=with_default("Folder of the page; a number is added where it exists.", str(_FOLDER)),
            metavar="<folder>",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compare checkpoints, pruned or not: accuracy, cost, confidences, classes, and the same images with the boxes of
    each, as a table and as report.html.

    [bold]Examples[/]

      yoloprune compare yolov8n.pt runs/prune/prune/pruned.pt --data my.yaml

      yoloprune compare a.pt b.pt c.pt --data coco.yaml -o compared
    """
    with reported():
        weights = [Path(word) for word in words or []]
        if len(weights) < 2:
            raise UserError("Two checkpoints at least are compared: yoloprune compare yolov8n.pt pruned.pt.")
        size, images = read_whole("--imgsz", imgsz), read_whole("--batch", batch, least=1)
        _compare(weights, data, download, size, images, device, output or _FOLDER, as_json, trust)


def _compare(
    weights: list[Path],
    data: str | None,
    download: bool,
    imgsz: int | None,
    batch: int,
    device: str | None,
    wanted: Path,
    as_json: bool,
    trust: bool,
) -> None:
    from yoloprune.files import check_folder
    from yoloprune.paths import check_data_path, check_path
    from yoloprune.pipeline.options import check_imgsz

    from .screen import Screen

    for path in weights:
        check_path(path)
    check_imgsz(imgsz)
    check_data_path(data)
    wanted = wanted.expanduser().absolute()
    try:
        check_folder(wanted)
    except OSError as error:
        raise UserError(f"The folder {wanted} cannot be written ({error.strerror}); choose another with -o.") from error
    with Screen.open(as_json=as_json) as screen:
        with screen.waiting("Load and check"):
            from yoloprune import detectors
            from yoloprune.analysis.comparison import compare
            from yoloprune.pipeline.folder import free_folder
            from yoloprune.report.page import draw_page, write_page

            networks = {str(path): detectors.load(path, trust=trust) for path in weights}
            if download and data:
                next(iter(networks.values())).fetch(data, trust=trust)
        if len(networks) < len(weights):
            raise UserError("A checkpoint is named twice; give different ones.")
        found = compare(networks, data, imgsz=imgsz, batch=batch, device=device, progress=screen)
        with screen.phase("Write the page"):
            folder = free_folder(wanted)
            folder.mkdir(parents=True)
            svgs = draw_page(found.page, folder / "report")
            content = _content(found)
            _write_json(content, folder / "comparison.json")
            write_page(found.page, svgs, folder / "report.html")
        if as_json:
            screen.json({**content, "report": str(folder / "report.html")})
            return
        screen.result(_table(found))
        for line in (f"{found.page.words.headline}.", *found.page.words.lines):
            screen.line(line)
        screen.line(f"Report in {folder / 'report.html'}", "bold")


def _content(found: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    networks = [
        {"weights": network.label, "imgsz": size, **asdict(network.measure), "details": asdict(network.details)}
        if network.details
        else {"weights": network.label, "imgsz": size, **asdict(network.measure)}
        for network, size in zip(found.page.networks, found.sizes, strict=True)
    ]
    words = found.page.words
    return {"data": found.data, "verdict": [words.headline, *words.lines], "networks": networks}


def _write_json(content: dict[str, Any], path: Path) -> None:
    import json

    from yoloprune.files import atomic

    with atomic(path) as tmp:
        tmp.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _table(found: Comparison) -> Any:
    from rich.table import Table

    differ = len({*found.sizes}) > 1
    table = Table(
        title=f"On {found.data}", title_justify="left", title_style="bold", caption_justify="left",
        caption="GFLOPs are of one image of each network's size" if differ else None,
    )  # fmt: skip
    table.add_column("network", overflow="fold")
    measures = found.page.measures
    for heading in ("px", "GFLOPs", "ms", *measures):
        table.add_column(heading, justify="right")
    for network, size in zip(found.page.networks, found.sizes, strict=True):
        own = network.measure
        figures = [f"{own.metrics[name]:.3f}" for name in measures]
        table.add_row(network.label, str(size), f"{own.gflops:.2f}", f"{own.latency_ms:.2f}", *figures)
    return table
