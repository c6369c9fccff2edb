"""`yoloprune inspect`: what can be pruned, what cannot and why, and what each layer costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import reported
from .greeting import import_ultralytics
from .options import Keep, Trust, Weights

if TYPE_CHECKING:
    from rich.table import Table

    from yoloprune.yolo.inspection import GroupRow, Inspection

__all__ = ["NAME", "command"]

NAME = "inspect"


def command(
    weights: Weights,
    prune_head: Annotated[
        bool, typer.Option("--prune-head", help="As if the head's hidden layers might lose channels too.")
    ] = False,
    keep: Keep = None,
    round_to: Annotated[int, typer.Option("--round-to", help="Widths are multiples of this.", min=1)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    trust: Trust = False,
) -> None:
    """Show coupled channels, what stays and why, tied widths, and what each layer costs.

    [bold]Examples[/]

      yoloprune inspect yolov8n.pt

      yoloprune inspect runs/prune/prune/pruned.pt --prune-head --json
    """
    with reported():
        _inspect(weights, prune_head, keep, round_to, as_json, trust)


def _inspect(weights: Path, prune_head: bool, keep: str | None, round_to: int, as_json: bool, trust: bool) -> None:
    import json
    from dataclasses import asdict

    from rich.console import Console

    import_ultralytics(as_json)
    from yoloprune.yolo import checkpoints
    from yoloprune.yolo.inspection import inspect
    from yoloprune.yolo.run.typed import parse_names

    yolo = checkpoints.load(weights, trust=trust)
    found = inspect(yolo, prune_head=prune_head, keep=parse_names(keep or ""), round_to=round_to)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "reach": found.reach._asdict()}, indent=1))
        return
    console = Console()
    reach = found.reach
    console.print(
        f"[bold]{weights}[/]: YOLO{found.family} {found.task}\n"
        f"{reach.max_gflops:.2f} GFLOPs, can be pruned to {reach.min_gflops:.2f}; "
        f"{reach.max_params / 1e6:.3f}M parameters, can be pruned to {reach.min_params / 1e6:.3f}M "
        f"(widths in multiples of {round_to})",
        highlight=False,
    )
    console.print(_group_table(found))
    console.print("Tied groups lose equally many channels: the code cuts what they join into equally long parts.")
    console.print(_layer_table(found))
    for operator, count in found.unsupported.items():
        console.print(f"The operator {operator} ({count} times) is not understood; what it touches stays.")


def _group_table(found: Inspection) -> Table:
    from rich.table import Table

    table = Table(title="Coupled channels", title_justify="left", title_style="bold")
    for heading, justify in (("#", "right"), ("made by", "left"), ("width", "right"), ("layers", "right")):
        table.add_column(heading, justify=justify)
    table.add_column("tied with", justify="right")
    table.add_column("stays, because it")
    for row in found.groups:
        style = "dim" if row.frozen else ""
        table.add_row(
            str(row.number), row.name, str(row.width), str(len(row.layers)), _ties(row), row.reason, style=style
        )
    return table


def _ties(row: GroupRow) -> str:
    others = [f"#{number}" for number in row.tied if number != row.number]
    own = [f"itself, in {row.parts} parts"] if row.parts > 1 else []
    return ", ".join(own + others)


def _layer_table(found: Inspection) -> Table:
    from rich.table import Table

    table = Table(title="Layers", title_justify="left", title_style="bold")
    for heading, justify in (("layer", "left"), ("kind", "left"), ("weight", "left")):
        table.add_column(heading, justify=justify)
    table.add_column("parameters", justify="right")
    table.add_column("MACs", justify="right")
    for row in found.layers:
        shape = " x ".join(map(str, row.shape))
        table.add_row(row.name, row.kind, shape, f"{row.params:,}", f"{row.share:.1%}")
    return table
