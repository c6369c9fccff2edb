"""Tables for the terminal."""

from __future__ import annotations

import io

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .record import Record

__all__ = ["as_text", "closing_table", "step_metrics"]


def closing_table(record: Record) -> Group:
    """The table that a run ends with: the network before and after, and one row per step if there were several."""
    table = Table(title="Before and after", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for row in record.comparison():
        table.add_row(*row)
    steps = [_step_table(record)] if len(record.steps) > 1 or record.trainings else []
    return Group(table, *steps)


def as_text(record: Record) -> str:
    """The closing table and what the run had to say, as plain text."""
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(closing_table(record), *map(Text, record.notes), sep="\n")
    return console.file.getvalue().rstrip()


def step_metrics(record: Record) -> list[str]:
    """The metrics of which a table of trainings and steps has room: the first two."""
    return list(dict.fromkeys(name for row in (*record.trainings, *record.steps) for name in row.metrics))[:2]


def _step_table(record: Record) -> Table:
    metrics = step_metrics(record)
    table = Table(title="Steps", title_justify="left", title_style="bold")
    for heading in ("step", "GFLOPs", "Parameters (M)", "epochs", *metrics, "seconds"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    before = record.before
    rows = [
        (row.name + ("" if row.kept else " (not kept)"), before.gflops, before.params, row, row.seconds)
        for row in record.trainings
    ]
    rows += [
        (str(row.step), row.gflops, row.params, row, row.prune_seconds + row.train_seconds) for row in record.steps
    ]
    for name, gflops, params, row, seconds in rows:
        figures = (f"{row.metrics[m]:.3f}" if m in row.metrics else "" for m in metrics)
        table.add_row(name, f"{gflops:.2f}", f"{params / 1e6:.3f}", str(row.epochs), *figures, f"{seconds:.0f}")
    return table
