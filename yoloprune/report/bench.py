"""What networks cost in their runtimes: a table for the terminal, a CSV file and a picture of accuracy over latency."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from yoloprune.files import atomic
from yoloprune.paths import told_apart

from .figure import new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yoloprune.deploy.bench import Bench, Row
    from yoloprune.deploy.layers import LayerTime

__all__ = ["bench_table", "draw_bench", "layers_table", "save_bench"]

_SHOWN = {"F1 (conf .25)": "F1\nat .25", "mAP50-95": "mAP\n50-95"}
_MOST = 20  # layers in the table


def bench_table(found: Bench) -> Table:
    """The table for the terminal; what all rows share is under it, and the fastest row for an image is bold."""
    settings = {
        "precision": [row.precision for row in found.rows],
        "px": [_size(row) for row in found.rows],
        "batch": [str(row.batch) for row in found.rows],
        "threads": [str(row.threads or "own") for row in found.rows],
    }
    differing = {name: values for name, values in settings.items() if len(set(values)) > 1}
    shared = [f"{name} {values[0]}" for name, values in settings.items() if name not in differing]
    versions = dict.fromkeys(f"{row.backend} {row.version}" for row in found.rows)
    table = Table(
        title=f"Latency on {found.processor}",
        title_justify="left",
        title_style="bold",
        caption=f"{', '.join((*shared, *versions))}; medians of a batch, ± half of what lies between the quartiles; "
        "CPU ms: processor time of all threads; peak MB: the most memory that a process which runs it alone has held",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("network", overflow="fold")
    table.add_column("backend", no_wrap=True)
    measure = next((name for row in found.rows for name in row.metrics), None)
    figures = [name for name in (measure, "F1 (conf .25)") if any(name in row.metrics for row in found.rows)]
    headings = ("ms", "±", "CPU\nms", "images\n/ s", "file\nMB", "peak\nMB")
    for heading in (*differing, *headings, *(_SHOWN.get(name, name) for name in figures)):
        table.add_column(heading, justify="right", no_wrap=True)  # a figure without its end is another figure
    labels = _labels(found)
    best = max(found.rows, key=lambda row: row.images_per_second)
    for number, row in enumerate(found.rows):
        cells = [values[number] for values in differing.values()]
        cells += [
            _digits(row.ms),
            _digits((row.ms_quartiles[1] - row.ms_quartiles[0]) / 2),
            _digits(row.cpu_ms),
            f"{row.images_per_second:.1f}",
            f"{row.megabytes:.1f}",
            f"{row.peak_mb:.0f}" if row.peak_mb else "",
        ]
        cells += [f"{row.metrics[name]:.3f}" if name in row.metrics else "" for name in figures]
        table.add_row(labels[row.network], row.backend, *cells, style="bold" if row is best else None)
    return table


def layers_table(layers: Sequence[LayerTime], title: str) -> Table:
    """The layers that take longest, with their share of the whole."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("layer", "kind"):
        table.add_column(heading, overflow="fold")
    for heading in ("ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)  # a figure without its end is another figure
    whole = sum(layer.ms for layer in layers)
    ranked = sorted(layers, key=lambda layer: -layer.ms)
    for layer in ranked[:_MOST]:
        table.add_row(layer.name, layer.kind, f"{layer.ms:.3f}", f"{layer.ms / whole:.1%}")
    if rest := ranked[_MOST:]:
        ms = sum(layer.ms for layer in rest)
        table.add_row(f"{len(rest)} more", "", f"{ms:.3f}", f"{ms / whole:.1%}")
    return table


def save_bench(found: Bench, path: Path) -> None:
    """Write one row per case as CSV."""
    metrics = list(dict.fromkeys(name for row in found.rows for name in row.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["network", "backend", "version", "precision", "imgsz", "batch", "threads", "ms", "ms_q1", "ms_q3", "cpu_ms"]
        + ["cpu_ms_q1", "cpu_ms_q3", "images_per_second", "rounds", "megabytes", "peak_mb", *metrics]
    )
    for row in found.rows:
        times = (row.ms, *row.ms_quartiles, row.cpu_ms, *row.cpu_ms_quartiles, row.images_per_second)
        writer.writerow(
            [row.network, row.backend, row.version, row.precision, _size(row), row.batch, row.threads]
            + [f"{value:.4f}" for value in times]
            + [row.rounds, row.megabytes, "" if row.peak_mb is None else row.peak_mb]
            + [row.metrics.get(name, "") for name in metrics]
        )
    with atomic(path) as tmp:
        tmp.write_text(text.getvalue(), encoding="utf-8")


def draw_bench(found: Bench, path: Path) -> None:
    """Draw accuracy over milliseconds of one image, a colour for each backend and precision.

    Args:
        found: What `yoloprune.deploy.bench.bench` returned, with accuracy.
        path: PNG file to write.
    """
    measure = next(name for row in found.rows for name in row.metrics)
    figure, labels = new_figure(7, 4.6), _labels(found)
    ax = figure.subplots()
    kinds = list(dict.fromkeys((row.backend, row.precision) for row in found.rows))
    for kind in kinds:
        rows = [row for row in found.rows if (row.backend, row.precision) == kind and measure in row.metrics]
        ms = [row.ms / row.batch for row in rows]
        spread = [[(row.ms - row.ms_quartiles[0]) / row.batch for row in rows]]
        spread.append([(row.ms_quartiles[1] - row.ms) / row.batch for row in rows])
        quality = [row.metrics[measure] for row in rows]
        ax.errorbar(ms, quality, xerr=spread, fmt="o", ms=5, capsize=2, label=" ".join(kind))
        for row, x, y in zip(rows, ms, quality, strict=True):
            text = f"{Path(labels[row.network]).with_suffix('')} {_size(row)}"
            ax.annotate(text, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=6)
    ax.set_xlabel("ms of one image (bars: quartiles)", fontsize=8)
    ax.set_ylabel(measure, fontsize=8)
    ax.grid(color="#eeeeee")
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=130)


def _labels(found: Bench) -> dict[str, str]:
    """What each network is called; `pruned.pt` of two runs with its folder."""
    networks = list(dict.fromkeys(row.network for row in found.rows))
    return dict(zip(networks, told_apart(networks), strict=True))


def _size(row: Row) -> str:
    height, width = row.imgsz
    return str(height) if height == width else f"{height}×{width}"


def _digits(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}"
