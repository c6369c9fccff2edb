"""The figure that every picture starts from, and how it gets onto a page and into files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from yoloprune.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "as_svg", "chart", "network_color", "new_figure", "save"]

COLORS = {
    "ink": "#1d2733",
    "dim": "#667281",
    "grid": "#e3e8ee",
    "paper": "#fffffe",
    "n0": "#8a94a3",
    "n1": "#2a6fb0",
    "n2": "#d9822b",
    "n3": "#3a9a5b",
    "n4": "#8e5ea2",
    "bad": "#c0392b",
    "good": "#2e8b57",
}
"""Names of the page's colours (CSS variables) and what they are on white; a picture uses no others, so that those of a
dark page can take their place."""

_NETWORKS = ("n0", "n1", "n2", "n3", "n4")


def network_color(number: int) -> str:
    """The colour of the first, second … network on every picture of a page."""
    return COLORS[_NETWORKS[number % len(_NETWORKS)]]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, whose parts arrange themselves."""
    # The object interface, not pyplot: no window system and no global state are touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def chart(
    title: str, *, height: float = 2.7, xlabel: str = "", ylabel: str = "", above: int = 0
) -> Iterator[tuple[Figure, Axes]]:
    """A chart in the style of the page, as wide as a phone; filled within the block.

    Args:
        title: What it shows.
        height: In inches, without the legend above.
        xlabel: What lies along the x axis.
        ylabel: The same for y.
        above: Lines of a legend that stands between title and axes.
    """
    figure = new_figure(4.3, height + 0.18 * above)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    yield figure, axes
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=COLORS["ink"], pad=6 + 13 * above)
    axes.set_xlabel(xlabel, fontsize=9, color=COLORS["dim"])
    axes.set_ylabel(ylabel, fontsize=9, color=COLORS["dim"])
    axes.tick_params(labelsize=8.5, colors=COLORS["dim"], length=0)
    axes.grid(color=COLORS["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLORS["dim"])
    if legend := axes.get_legend():
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set_fontsize(8.5)
            text.set_color(COLORS["ink"])


def as_svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as an SVG element whose colours are the page's and whose text is in the page's font.

    Args:
        figure: What `chart` made.
        name: Keeps its inner names apart from those of other figures on the page.
        alt: What it shows, for those who do not see it.
    """
    from html import escape

    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # it is settled, and takes as long as drawing
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: (?:bold |700 )?([\d.]+)px [^;\"]+", _font, svg)
    for variable, color in COLORS.items():
        svg = svg.replace(color, f"var(--{variable}, {color})")
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def _font(match: re.Match[str]) -> str:
    bold = "bold " if "bold" in match[0] or "700" in match[0] else ""
    return f"font: {bold}{match[1]}px system-ui, sans-serif"


def save(figure: Figure, svg: str, path: Path) -> None:
    """Write a figure as PATH.png, on white, and as PATH.svg."""
    with atomic(path.with_suffix(".svg")) as tmp:
        tmp.write_text(svg, encoding="utf-8")
    with atomic(path.with_suffix(".png")) as tmp:
        figure.savefig(tmp, dpi=130, format="png", facecolor="white")
