"""`yoloprune inspect`: what can be pruned, what cannot and why, and what each layer costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yoloprune.detectors import family_title
from yoloprune.errors import UserError

from .errors import reported
from .options import Json, Keep, Trust, Weights, WeightsToo, read_weights, read_whole

if TYPE_CHECKING:
    from rich.table import Table

    from yoloprune.analysis.inspection import GroupRow, Inspection

    from .screen import Screen

__all__ = ["NAME", "command"]

NAME = "inspect"


def command(
    word: Weights = None,
    weights: WeightsToo = None,
    prune_head: Annotated[
        bool, typer.Option("--prune-head", help="As if the head's hidden layers might lose channels too.", metavar="")
    ] = False,
    keep: Keep = None,
    round_to: Annotated[
        str, typer.Option("--round-to", help="Widths are multiples of this.", metavar="<number>")
    ] = "8",
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Show coupled channels, what stays and why, tied widths, and what each layer costs.

    [bold]Examples[/]

      yoloprune inspect yolov8n.pt

      yoloprune inspect runs/prune/prune/pruned.pt --prune-head --json
    """
    with reported():
        path, pairs = read_weights([word], weights, NAME)
        if pairs:
            raise UserError(f"{word} is not understood; inspect takes a checkpoint and options.")
        _inspect(path, prune_head, keep, read_whole("--round-to", round_to, least=1), as_json, trust)


def _inspect(weights: Path, prune_head: bool, keep: str | None, round_to: int, as_json: bool, trust: bool) -> None:
    from dataclasses import asdict

    from .screen import Screen

    with Screen.open(as_json=as_json) as screen:
        with screen.waiting("Load and trace"):
            from yoloprune import detectors
            from yoloprune.analysis.inspection import inspect
            from yoloprune.pipeline.typed import parse_names

            detector = detectors.load(weights, trust=trust)
            found = inspect(detector, prune_head=prune_head, keep=parse_names(keep or ""), round_to=round_to)
        if as_json:
            screen.json({**asdict(found), "reach": found.reach._asdict()})
        else:
            _show(screen, weights, found, round_to)


def _show(screen: Screen, weights: Path, found: Inspection, round_to: int) -> None:
    screen.line(f"{weights}: {family_title(found.family)} {found.task}", "bold")
    for table in (_layer_table(found), _group_table(found), _staying_table(found), _part_table(found, round_to)):
        screen.result(table, "")
    for operator, count in found.unsupported.items():
        screen.line(f"The operator {operator} ({count} times) is not understood; what it touches stays.")
    if found.uncalled:
        screen.line(f"Never run when the model predicts, and not pruned along: {_some(found.uncalled)}.")
    reach = found.reach
    screen.line(
        f"{reach.max_gflops:.2f} GFLOPs can be pruned to {reach.min_gflops:.2f}, and "
        f"{reach.max_params / 1e6:.3f}M parameters to {reach.min_params / 1e6:.3f}M.",
        "bold",
    )


def _table(title: str, *headings: str, caption: str | None = None) -> Table:
    """A table whose headings that start with ">" are those of columns of figures."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left", box=box.SIMPLE
    )
    for heading in headings:
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
            no_wrap=heading in ("layer", "weight"),  # names are copied from here
        )
    return table


def _layer_table(found: Inspection) -> Table:
    table = _table("Layers and what they cost", "layer", "kind", "weight", ">parameters", ">share of GFLOPs")
    for row, after in zip(found.layers, [*found.layers[1:], None], strict=True):
        shape = " x ".join(map(str, row.shape))
        table.add_row(row.name, row.kind, shape, f"{row.params:,}", f"{row.share:.1%}")
        if after is not None and after.part != row.part:
            table.add_section()
    return table


def _group_table(found: Inspection) -> Table:
    table = _table(
        "Channels that may go",
        *(">group", "made by", ">channels", ">layers", "loses as many as"),
        caption="Each goes with its slices of all layers of its group. Groups lose equally many where the code cuts "
        "what they join into equally long parts.",
    )
    for row in found.groups:
        if not row.frozen:
            layers = len({name for name, _ in row.layers})
            table.add_row(f"#{row.number}", row.name, str(row.width), str(layers), _ties(row))
    return table


def _ties(row: GroupRow) -> str:
    others = [f"#{number}" for number in row.tied if number != row.number]
    own = [f"itself, in {row.parts} parts"] if row.parts > 1 else []
    return ", ".join(own + others)


def _staying_table(found: Inspection) -> Table:
    table = _table("Channels that stay, and why", "why", ">channels", "of")
    reasons: dict[str, list[GroupRow]] = {}
    for row in found.groups:
        if row.frozen:
            reasons.setdefault(row.why, []).append(row)
    for why, rows in reasons.items():
        names = list(dict.fromkeys(row.name for row in rows))
        table.add_row(why, str(sum(row.width for row in rows)), _some(names))
    return table


def _some(names: list[str]) -> str:
    """The first and the last of some layers, and how many there are."""
    return " and ".join(names) if len(names) < 3 else f"{names[0]} to {names[-1]} ({len(names)} layers)"


def _part_table(found: Inspection, round_to: int) -> Table:
    """What each part costs and how much of that can go, and all of them together."""
    table = _table(
        f"Backbone, neck and head, and how much of each can go at multiples of {round_to}",
        *("part", "modules", ">GFLOPs", ">share", ">can go", ">parameters", ">share", ">can go"),
    )
    reach = found.reach
    for row in found.parts:
        costs = (row.gflops, row.min_gflops, reach.max_gflops), (row.params, row.min_params, reach.max_params)
        table.add_row(
            row.name, row.modules, *_cost(*costs[0], f"{row.gflops:.2f}"), *_cost(*costs[1], f"{row.params:,}")
        )
    table.add_section()
    costs = (
        (reach.max_gflops, reach.min_gflops, reach.max_gflops),
        (reach.max_params, reach.min_params, reach.max_params),
    )
    table.add_row(
        "all",
        "",
        *_cost(*costs[0], f"{reach.max_gflops:.2f}"),
        *_cost(*costs[1], f"{reach.max_params:,}"),
        style="bold",
    )
    return table


def _cost(own: float, least: float, of: float, shown: str) -> tuple[str, str, str]:
    return shown, f"{own / of:.0%}", f"{1 - least / own:.0%}" if own else ""
