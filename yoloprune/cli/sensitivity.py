"""`yoloprune sensitivity`: what the predictions lose when one layer is pruned alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import reported
from .options import Imgsz, Keep, Trust, Weights

__all__ = ["NAME", "command"]

NAME = "sensitivity"


def command(
    weights: Weights,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Data YAML; its training images are used, not their labels.",
            show_default="what the weights were trained on",
        ),
    ] = None,
    imgsz: Imgsz = None,
    images: Annotated[int, typer.Option("--images", help="Training images to measure on.")] = 32,
    ratios: Annotated[
        str, typer.Option("--ratios", help="Shares of each layer's channels to remove, with commas between them.")
    ] = "0.25,0.5,0.75",
    prune_head: Annotated[bool, typer.Option("--prune-head", help="Measure the head's hidden layers too.")] = False,
    keep: Keep = None,
    criterion: Annotated[
        str, typer.Option("--criterion", help="Ranking of channels: the weakest of each layer go.")
    ] = "output_error",
    save: Annotated[Path, typer.Option("--save", help="Write PREFIX.csv and PREFIX.png.", metavar="PREFIX")] = Path(
        "sensitivity"
    ),
    trust: Trust = False,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, 0, mps …", show_default="Ultralytics chooses")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 0,
) -> None:
    """Prune each layer alone and show how far predictions move, per GFLOP saved; as a table, a CSV file and a picture.

    [bold]Examples[/]

      yoloprune sensitivity yolov8n.pt --data coco.yaml

      yoloprune sensitivity yolov8n.pt --data coco.yaml --ratios 0.1,0.5 --prune-head --save out/v8n

    After Ctrl-C or a kill the same command goes on: PREFIX.unfinished.json holds what is measured until then.
    """
    with reported():
        _sensitivity(weights, data, imgsz, images, ratios, prune_head, keep, criterion, save, trust, device, seed)


def _sensitivity(
    weights: Path,
    data: str | None,
    imgsz: int | None,
    images: int,
    ratios: str,
    prune_head: bool,
    keep: str | None,
    criterion: str,
    save: Path,
    trust: bool,
    device: str | None,
    seed: int,
) -> None:
    from functools import partial

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from yoloprune.report.sensitivity import draw_sensitivity, save_sensitivity, sensitivity_table
    from yoloprune.yolo import checkpoints
    from yoloprune.yolo.run.device import check_device
    from yoloprune.yolo.run.typed import parse_names
    from yoloprune.yolo.sensitivity import check_options, sensitivity

    shares = _shares(ratios)
    check_options(imgsz=imgsz, images=images, ratios=shares, criterion=criterion)
    check_device(device)
    yolo = checkpoints.load(weights, trust=trust)
    table_file, picture, unfinished = _files(save)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        try:
            found = sensitivity(
                yolo,
                data,
                imgsz=imgsz,
                images=images,
                ratios=shares,
                criterion=criterion,
                prune_head=prune_head,
                keep=parse_names(keep or ""),
                device=device,
                seed=seed,
                progress=partial(bar.track, description="Prune each layer alone"),
                unfinished=unfinished,
            )
        except KeyboardInterrupt:
            if unfinished.exists():
                raise KeyboardInterrupt("Interrupted; the same command goes on where it was.") from None
            raise
    table_file.parent.mkdir(parents=True, exist_ok=True)
    save_sensitivity(found, table_file)
    draw_sensitivity(found, picture)
    unfinished.unlink()
    console.print(sensitivity_table(found))
    console.print(f"Wrote [bold]{table_file}[/] and [bold]{picture}[/]", highlight=False, soft_wrap=True)


def _shares(text: str) -> tuple[float, ...]:
    from yoloprune.errors import UserError

    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--ratios {text} is not understood; give numbers such as 0.25,0.5,0.75.") from None


def _files(prefix: Path) -> tuple[Path, Path, Path]:
    """Table, picture, and what is measured until both are. That they can be written is found out before the work."""
    from yoloprune.errors import UserError
    from yoloprune.files import check_folder

    if prefix.is_dir():
        prefix = prefix / NAME
    try:
        check_folder(prefix.absolute().parent)
    except OSError as error:
        raise UserError(
            f"The folder {prefix.parent} cannot be written ({error.strerror}); choose another with --save."
        ) from error
    table, picture, unfinished = (prefix.with_name(prefix.name + end) for end in (".csv", ".png", ".unfinished.json"))
    return table, picture, unfinished
