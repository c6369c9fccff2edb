"""Which layers the predictions depend on: a table for the terminal, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from yoloprune.files import atomic

from .figure import new_figure

if TYPE_CHECKING:
    from yoloprune.analysis.sensitivity import Sensitivity

__all__ = ["draw_sensitivity", "save_sensitivity", "sensitivity_table"]


def sensitivity_table(table: Sensitivity) -> Table:
    """The table for the terminal, the most sensitive layers first."""
    shown = Table(
        title="Sensitivity",
        title_justify="left",
        title_style="bold",
        caption=f"error: {table.measure}, when this share of the layer's channels goes",
        caption_justify="left",
    )
    shown.add_column("layer", overflow="fold")
    shown.add_column("width", justify="right")
    for ratio in table.ratios:
        shown.add_column(f"error\n-{ratio:.0%}", justify="right")
    shown.add_column(f"GFLOPs\n-{table.ratios[-1]:.0%}", justify="right")
    shown.add_column("error per\nGFLOP saved", justify="right")
    for row in table.ranked():
        errors = (f"{error:.3g}" for error in row.errors)
        shown.add_row(row.name, str(row.width), *errors, f"{row.saved[-1]:.3f}", f"{row.per_gflop:.3g}")
    return shown


def save_sensitivity(table: Sensitivity, path: Path) -> None:
    """Write one row per layer and ratio as CSV, the most sensitive layers first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layers", "width", "ratio", "removed", "error", "gflops_saved", "score", "error_per_gflop"])
    for row in table.ranked():
        for one in zip(table.ratios, row.removed, row.errors, row.saved, row.scores, strict=True):
            writer.writerow([" + ".join(row.layers), row.width, *one, row.per_gflop])
    with atomic(path) as tmp:
        tmp.write_text(text.getvalue(), encoding="utf-8")


def draw_sensitivity(table: Sensitivity, path: Path) -> None:
    """Draw errors as a heat map of layers and ratios, and beside it the error per GFLOP saved as bars.

    Layers are in the order of the network from top to bottom.

    Args:
        table: What `yoloprune.analysis.sensitivity.sensitivity` returned.
        path: PNG file to write.
    """
    from matplotlib.colors import LogNorm

    names = [_short(row.name) for row in table.rows]
    errors = np.array([row.errors for row in table.rows])
    sensitivities = np.array([row.per_gflop for row in table.rows])
    figure = new_figure(3.5 + 0.65 * len(table.ratios) + 3.5, 1.4 + 0.19 * len(names))
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=[0.65 * len(table.ratios), 3.5])

    norm = LogNorm(*_bounds(errors))
    heat.imshow(np.maximum(errors, norm.vmin), norm=norm, cmap="YlOrRd", aspect="auto")
    for (y, x), error in np.ndenumerate(errors):
        dark = norm(max(error, norm.vmin)) > 0.6
        heat.text(x, y, f"{error:.2g}", ha="center", va="center", fontsize=6, color="white" if dark else "black")
    heat.set_xticks(range(len(table.ratios)), [f"{ratio:.0%}" for ratio in table.ratios], fontsize=7)
    heat.set_yticks(range(len(names)), names, fontsize=7)
    heat.set_xlabel("channels removed", fontsize=8)
    heat.set_title("error", fontsize=9)
    heat.tick_params(length=0)

    low, high = _bounds(sensitivities)
    bars.barh(range(len(names)), np.maximum(sensitivities, low), color="#2a6fb0", height=0.75)
    bars.set_xscale("log")
    bars.set_xlim(low / 1.5, high * 1.5)
    bars.set_title("error per GFLOP saved", fontsize=9)
    bars.grid(axis="x", color="#dddddd", linewidth=0.6)
    bars.set_axisbelow(True)
    bars.tick_params(axis="y", length=0, labelleft=False)
    bars.tick_params(axis="x", labelsize=7)
    for axes in (heat, bars):
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"error: {table.measure}; channels ranked by {table.criterion}", fontsize=7, color="#555555")
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=130)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """Ends of a logarithmic scale; what is far below the rest is cut, so that the rest keeps its colours."""
    high = max(float(values.max()), 1e-12)
    low = float(values[values > high * 1e-4].min(initial=high))
    return min(low, high / 10), high


def _short(name: str, most: int = 40) -> str:
    """A name that leaves room for the picture: sets over many layers are called by their first ones."""
    return name if len(name) <= most else name[: most - 2] + " …"
