"""The application: one subcommand per file.

Nothing here, nor at the top of a subcommand's file, imports torch or Ultralytics, so that `--help` is immediate.
"""

from __future__ import annotations

from typing import Annotated

import typer

from yoloprune import __version__

from . import bench, compare, export, frontier, inspect, profile, prune, sensitivity, v5, v7, v8, val
from .errors import Command, Group

__all__ = ["app"]

app = typer.Typer(
    name="yoloprune",
    cls=Group,
    help="Physically smaller YOLO detectors at the GFLOPs you ask for, still stock Ultralytics models.",
    epilog="Start with: yoloprune v8   (prunes the embedded detector in a few minutes)",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


for module in (v8, v7, v5, prune, frontier, compare, inspect, sensitivity, profile, bench, val, export):
    app.command(module.NAME, cls=Command)(module.command)
