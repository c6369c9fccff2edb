"""What `--dry-run` shows: the plan, what it costs and saves, and what would be done."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from yoloprune.pipeline.dry_run import Rehearsal

    from .screen import Screen

__all__ = ["show_dry_run"]


def show_dry_run(screen: Screen, found: Rehearsal, *, as_json: bool) -> None:
    """Show what a run would do, as tables or as JSON."""
    if as_json:
        screen.json(
            {
                "dry_run": True,
                "weights": found.record.weights,
                "before": asdict(found.record.before),
                "after": asdict(found.after),
                "widths": found.widths,
                "todo": found.todo,
                "notes": found.record.notes,
                "save_dir": str(found.folder),
            }
        )
        return
    from yoloprune.report import closing_table

    screen.result(_blocks(found.widths), closing_table(replace(found.record, after=found.after)))
    screen.line(f"A run would {', '.join(found.todo)}, and write to {found.folder}")
    screen.line("This was a dry run: nothing is written. Leave --dry-run out to do it.")


def _blocks(widths: dict[str, tuple[int, int]]) -> Table:
    """One row for each block of the network that loses channels."""
    blocks: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for layer, (before, after) in widths.items():
        block, _, inside = layer.removeprefix("model.").partition(".")
        blocks[block].append((inside.removesuffix(".conv"), before, after))
    table = Table(title="What the layers keep of their output channels", title_justify="left", title_style="bold")
    table.add_column("block", justify="right")
    table.add_column("keeps", justify="right")
    table.add_column("layers that lose channels")
    for block, layers in blocks.items():
        losers = [f"{name or 'itself'} {before} → {after}" for name, before, after in layers if after < before]
        if losers:
            kept, all_ = (sum(layer[i] for layer in layers) for i in (2, 1))
            table.add_row(block, f"{kept / all_:.0%}", ", ".join(losers))
    return table
