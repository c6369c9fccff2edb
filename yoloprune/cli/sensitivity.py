"""`yoloprune sensitivity`: what the predictions lose when one layer is pruned alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoloprune.errors import UserError

from .errors import reported
from .options import Data, Device, Download, Imgsz, Keep, Trust, Weights, WeightsToo, read_weights, read_whole

__all__ = ["NAME", "command"]

NAME = "sensitivity"


def command(
    word: Weights = None,
    weights: WeightsToo = None,
    data: Data = None,
    download: Download = False,
    imgsz: Imgsz = None,
    images: Annotated[
        str, typer.Option("--images", help="Training images to measure on, without labels.", metavar="<number>")
    ] = "32",
    ratios: Annotated[
        str,
        typer.Option(
            "--ratios",
            help="Shares of each layer's channels to remove, with commas between them.",
            metavar="<numbers>",
        ),
    ] = "0.25,0.5,0.75",
    prune_head: Annotated[
        bool, typer.Option("--prune-head", help="Measure the head's hidden layers too.", metavar="")
    ] = False,
    keep: Keep = None,
    criterion: Annotated[
        str,
        typer.Option("--criterion", help="Ranking of channels: the weakest of each layer go.", metavar="<name>"),
    ] = "output_error",
    save: Annotated[Path, typer.Option("--save", help="Write PREFIX.csv and PREFIX.png.", metavar="PREFIX")] = Path(
        "sensitivity"
    ),
    device: Device = None,
    seed: Annotated[str, typer.Option("--seed", help="Random seed.", metavar="<number>")] = "0",
    trust: Trust = False,
) -> None:
    """Prune each layer alone and show how far predictions move, per GFLOP saved; as a table, a CSV file and a picture.

    [bold]Examples[/]

      yoloprune sensitivity yolov8n.pt --data coco.yaml

      yoloprune sensitivity best.pt --data my.yaml --ratios 0.1,0.5 --prune-head

    After Ctrl-C or a kill the same command continues: PREFIX.unfinished.json holds what is measured until then.
    """
    with reported():
        path, pairs = read_weights([word], weights, NAME)
        if pairs:
            raise UserError(f"{word} is not understood; sensitivity takes a checkpoint and options.")
        size, count, seed_ = read_whole("--imgsz", imgsz), read_whole("--images", images), read_whole("--seed", seed)
        _sensitivity(path, data, download, size, count, ratios, prune_head, keep, criterion, save, trust, device, seed_)


def _sensitivity(
    weights: Path,
    data: str | None,
    download: bool,
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
    from yoloprune.paths import check_data_path
    from yoloprune.pipeline.options import check_measuring
    from yoloprune.pipeline.typed import parse_names

    from .screen import Screen

    shares = _shares(ratios)
    check_measuring(imgsz=imgsz, images=images, ratios=shares, criterion=criterion)
    check_data_path(data)
    table_file, picture, unfinished = _files(save)
    with Screen.open() as screen:
        with screen.waiting("Load and check"):
            from yoloprune import detectors
            from yoloprune.analysis.sensitivity import sensitivity
            from yoloprune.report.sensitivity import draw_sensitivity, save_sensitivity, sensitivity_table

            detector = detectors.load(weights, trust=trust)
            detector.place(device)
            if download and data:
                detector.fetch(data, trust=trust)
        try:
            with screen.phase("Prune each layer alone"):
                found = sensitivity(
                    detector,
                    data,
                    imgsz=imgsz,
                    images=images,
                    ratios=shares,
                    criterion=criterion,
                    prune_head=prune_head,
                    keep=parse_names(keep or ""),
                    device=device,
                    seed=seed,
                    unfinished=unfinished,
                )
        except KeyboardInterrupt:
            if unfinished.exists():
                raise KeyboardInterrupt("Interrupted; the same command continues from there.") from None
            raise
        table_file.parent.mkdir(parents=True, exist_ok=True)
        save_sensitivity(found, table_file)
        draw_sensitivity(found, picture)
        unfinished.unlink()
        screen.result(sensitivity_table(found))
        screen.line(f"Wrote {table_file} and {picture}", "bold")


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--ratios {text} is not understood; give numbers such as 0.25,0.5,0.75.") from None


def _files(prefix: Path) -> tuple[Path, Path, Path]:
    """Table, picture, and what is measured until both are. That they can be written is found out before the work."""
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
