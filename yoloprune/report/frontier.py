"""What accuracy costs: a table for the terminal, a CSV file and a picture with the Pareto front."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from yoloprune.files import atomic

from .figure import new_figure

if TYPE_CHECKING:
    from yoloprune.analysis.frontier import Frontier

__all__ = ["draw_frontier", "frontier_table", "save_frontier"]

_SHOWN = {"F1 (conf .25)": "F1\nat .25", "recall (conf .25)": "recall\nat .25"}


def frontier_table(found: Frontier) -> Table:
    """The table for the terminal, the cheapest first; points of the front are marked."""
    table = Table(
        title="What accuracy costs",
        title_justify="left",
        title_style="bold",
        caption="* no cheaper network here is as good; GFLOPs and ms are of one image of that size, ms on "
        f"{found.runtime}",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("network", overflow="fold")
    figures = [name for name in _SHOWN if name in found.points[0].metrics]
    trained = ["before\ntraining"] if any(p.untrained for p in found.points) else []
    for heading in ("px", "GFLOPs", "ms", *trained, found.measure, *(_SHOWN[name] for name in figures)):
        table.add_column(heading, justify="right")
    front = found.front()
    for point in found.points:
        name = f"{point.name} {'unpruned' if point.share == 1 else f'at {point.share:.0%}'}"
        cells = [point.imgsz, f"{point.gflops:.2f}", f"{point.latency_ms:.2f}"]
        cells += [f"{point.untrained[found.measure]:.3f}" if point.untrained else ""] * len(trained)
        cells += [f"{point.quality:.3f}"]
        cells += [f"{point.metrics[name]:.3f}" for name in figures]
        style = "bold" if point == found.best else None
        table.add_row("*" if point in front else "", name, *map(str, cells), style=style)
    return table


def save_frontier(found: Frontier, path: Path) -> None:
    """Write one row per point as CSV, the cheapest first."""
    names = list(found.points[0].metrics)
    before = f"{found.measure} before training"
    text, front = io.StringIO(), found.front()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["weights", "imgsz", "share", "gflops", "latency_ms", "params", "epochs", "on_front", *names, before]
    )
    for p in found.points:
        figures = [p.metrics.get(name, "") for name in names] + [(p.untrained or {}).get(found.measure, "")]
        writer.writerow([p.weights, p.imgsz, p.share, p.gflops, p.latency_ms, p.params, p.epochs, p in front, *figures])
    with atomic(path) as tmp:
        tmp.write_text(text.getvalue(), encoding="utf-8")


def draw_frontier(found: Frontier, path: Path) -> None:
    """Draw accuracy over GFLOPs and over milliseconds, the unpruned networks joined over their image sizes.

    Args:
        found: What `yoloprune.analysis.frontier.frontier` returned.
        path: PNG file to write.
    """
    figure = new_figure(10, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, unit, cost in (
        (axes[0], "GFLOPs of one image", lambda p: p.gflops),
        (axes[1], f"ms of one image, {found.runtime}", lambda p: p.latency_ms),
    ):
        for name in dict.fromkeys(p.name for p in found.points):
            whole = sorted((p for p in found.points if p.name == name and p.share == 1), key=cost)
            label = f"{name} unpruned, smaller images"
            ax.plot([cost(p) for p in whole], [p.quality for p in whole], "o-", color="#888888", label=label)
        shares = sorted({p.share for p in found.points if p.share < 1}, reverse=True)
        if len(shares) > 4:  # each size has one of its own
            _scatter(ax, [p for p in found.points if p.share < 1], cost, "pruned", 0)
        else:
            for number, share in enumerate(shares):
                some = [p for p in found.points if p.share == share]
                _scatter(ax, some, cost, f"pruned to {share:.0%}", number)
        front = found.front(cost)
        ax.step([cost(p) for p in front], [p.quality for p in front], where="post", color="#2a6fb0", lw=0.8, ls="--")
        for p in found.points:
            ax.annotate(str(p.imgsz), (cost(p), p.quality), xytext=(3, 4), textcoords="offset points", fontsize=6)
        if found.best:
            ax.plot(cost(found.best), found.best.quality, "o", ms=13, mfc="none", color="#c0392b", label="best")
        ax.set_xlabel(unit, fontsize=8)
        ax.grid(color="#eeeeee")
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(found.measure, fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("numbers: image size in px; dashed: the front", fontsize=7, color="#555555")
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=130)


def _scatter(ax, points, cost, name: str, number: int) -> None:
    color = ("#2a6fb0", "#e08b27", "#3a9a5b", "#8e5ea2")[number % 4]
    ax.plot([cost(p) for p in points], [p.quality for p in points], "s", color=color, label=name)
