"""Tables for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from .record import Record

__all__ = ["closing_table"]


def closing_table(record: Record) -> Group:
    """The table that a run ends with: the network before and after, and one row per step if there were several."""
    after = record.after or record.before
    table = Table(title="Before and after", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    table.add_row("GFLOPs (640 px)", *_numbers(record.before.gflops, after.gflops, "{:.2f}"))
    table.add_row("Parameters (M)", *_numbers(record.before.params / 1e6, after.params / 1e6, "{:.3f}"))
    if record.before.size_mb is not None and after.size_mb is not None:
        table.add_row("File (MB, float16)", *_numbers(record.before.size_mb, after.size_mb, "{:.2f}"))
    for name, value in record.before.metrics.items():
        if name in after.metrics:
            change = after.metrics[name] - value
            table.add_row(name, f"{value:.3f}", f"{after.metrics[name]:.3f}", f"{change:+.3f}")
    parts = [table]
    if len(record.steps) > 1:
        parts.append(_step_table(record))
    return Group(*parts)


def _numbers(before: float, after: float, form: str) -> tuple[str, str, str]:
    return form.format(before), form.format(after), f"{after / before - 1:+.1%}"


def _step_table(record: Record) -> Table:
    metrics = list(dict.fromkeys(name for row in record.steps for name in row.metrics))
    table = Table(title="Steps", title_justify="left", title_style="bold")
    for heading in ("step", "GFLOPs", "Parameters (M)", "epochs", *metrics, "seconds"):
        table.add_column(heading, justify="right")
    for row in record.steps:
        table.add_row(
            str(row.step),
            f"{row.gflops:.2f}",
            f"{row.params / 1e6:.3f}",
            str(row.epochs),
            *(f"{row.metrics[m]:.3f}" if m in row.metrics else "" for m in metrics),
            f"{row.prune_seconds + row.train_seconds:.0f}",
        )
    return table
