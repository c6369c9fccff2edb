"""How the scores of channels move apart over a group-sparse training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.sparsity.distribution import EDGES, QUANTILES, Distribution

from .figure import new_figure

__all__ = ["draw_sparsity"]

_WEAK = 0.1  # a channel below a tenth of its group's typical score costs next to nothing to prune
_LINES = {0.1: ".:", 0.5: ".-", 0.9: ".--"}  # share of channels below: line style


def draw_sparsity(rows: Sequence[Distribution], path: Path) -> None:
    """Draw the relative scores of all prunable channels: by epoch on the left, before and after on the right.

    A training that separates the channels splits the one hump at 1 in two: channels below a tenth of their group's
    typical score (red) and those that stay (blue).

    Args:
        rows: What `sparsity.read_rows` returned, one entry per epoch.
        path: PNG file to write.

    Raises:
        UserError: There are no rows.
    """
    if not rows:
        raise UserError("There is nothing to draw: the sparse training finished no epoch.")
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10.0, 4.2)
    course, ends = figure.subplots(1, 2, sharey=True)
    counts = np.array([row.counts for row in rows], float)
    epochs = [row.epoch for row in rows]

    borders = [epochs[0] - 0.5, *(epoch + 0.5 for epoch in epochs)]
    shown = np.ma.masked_equal(counts.T, 0)
    norm = LogNorm(1, max(counts.max(), 2))
    mesh = course.pcolormesh(borders, EDGES, shown, norm=norm, cmap="Blues", rasterized=True)
    figure.colorbar(mesh, ax=ends, label="channels (left)")
    for share, style in _LINES.items():
        line = [row.quantiles[QUANTILES.index(share)] for row in rows]
        points = np.clip(line, EDGES[0], EDGES[-1])
        course.plot(epochs, points, style, color="#b3423a", linewidth=1, markersize=3, label=f"{share:.0%}")
    course.legend(title="share of channels below", ncols=len(_LINES), fontsize=8, title_fontsize=8, loc="lower left")
    course.set_yscale("log")
    course.set_ylim(min(EDGES[np.flatnonzero(counts.sum(0))[0]], _WEAK / 10), EDGES[-1])
    course.xaxis.set_major_locator(MaxNLocator(integer=True))
    course.set_xlabel("epoch")
    course.set_ylabel("relative score of a channel")

    middles = np.sqrt(np.multiply(EDGES[:-1], EDGES[1:]))
    colors = np.where(middles < _WEAK, "#b3423a", "#2a6fb0")
    share = 100 * counts / counts.sum(1, keepdims=True)
    ends.barh(EDGES[:-1], share[-1], np.diff(EDGES), align="edge", color=colors)
    ends.set_title(f"epoch {epochs[-1]}", fontsize=10)
    if len(rows) > 1:
        ends.stairs(share[0], EDGES, orientation="horizontal", color="#333333", label=f"epoch {epochs[0]}")
        ends.legend(frameon=False)
    ends.axhline(_WEAK, color="#999999", linewidth=0.8, linestyle=":")
    ends.set_xlabel("% of channels")
    for axes in (course, ends):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=110)
