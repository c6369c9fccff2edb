"""The charts of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from yoloprune.detectors.details import BINS

from .figure import COLORS, chart, network_color
from .widths import block_of, layer_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .page import Course, Network, Page, Point

__all__ = ["Drawing", "all_charts"]

_MOST_CLASSES = 15
_LEAST_CONFIDENCE = 0.2  # below, there are hundreds of boxes that nobody sees
_KINDS = {  # marker, number of the network's colour, filled
    "before": ("o", 0, True),
    "smaller": ("o", 0, False),
    "pruned": ("s", 1, False),
    "tuned": ("s", 1, True),
}


class Drawing(NamedTuple):
    """A chart: its file's name, the figure, and what it shows in a sentence."""

    name: str
    figure: Figure
    alt: str


def all_charts(page: Page) -> Iterator[Drawing]:
    """All charts that a page has something for; the names are those that its template asks for."""
    for number, measure in enumerate(page.measures):
        yield _quality(page, f"quality-{number + 1}", measure, "GFLOPs", lambda point: point.gflops)
        if number == 0 and all(point.latency_ms for point in (page.path[0], page.path[-1])):
            yield _quality(page, "quality-ms", measure, "milliseconds of one image", lambda point: point.latency_ms)
    detailed = [(number, network) for number, network in enumerate(page.networks) if network.details]
    if detailed and detailed[0][1].details.f1:
        for name in ("f1", "precision", "recall"):
            yield _over_confidence(name, detailed)
        yield _scores(detailed)
    if len(detailed) == len(page.networks) > 1:
        if len(page.networks[0].details.classes) > 1:
            yield _classes(page.networks)
        if page.networks[0].details.sizes:
            yield _sizes(page.networks)
    if page.networks[0].layers:
        timed = all(any(layer.ms for layer in network.layers) for network in page.networks)
        if len({layer.part for layer in page.networks[0].layers}) > 1:
            yield _parts("gflops", "GFLOPs", page.networks)
            yield _parts("params", "parameters (M)", page.networks)
            if timed:
                yield _parts("ms", "milliseconds", page.networks)
        if _alike(page.networks):
            yield _blocks("blocks", "gflops", "GFLOPs", page.networks)
            if timed:
                yield _blocks("blocks-ms", "ms", "Milliseconds", page.networks)
            yield _widths(page.networks)
    for number, course in enumerate(page.courses, start=1):
        if course.history.quality:
            yield _course_quality(f"training-{number}-quality", course)
        yield _course_losses(f"training-{number}-loss", course)
        if course.history.rates:
            yield _course_rates(f"training-{number}-rate", course)


def _quality(page: Page, name: str, measure: str, cost: str, get: Callable[[Point], float | None]) -> Drawing:
    """A figure of quality over cost, the image-size line in grey."""

    def drawable(points: Sequence[Point]) -> list[Point]:
        return [point for point in points if measure in point.metrics and get(point)]

    path, line = drawable(page.path), sorted(drawable(page.line), key=lambda point: get(point))
    with chart(f"{measure} over {cost}", height=3.0, xlabel=cost) as (_, axes):
        if len(line) > 1:
            x, y = [get(p) for p in line], [p.metrics[measure] for p in line]
            axes.plot(x, y, "-", color=network_color(0), linewidth=1.5, zorder=1)
        if page.record:
            steps = [(get(p), p.metrics[measure]) for p in path]
            axes.plot(*zip(*steps, strict=True), ":", color=network_color(1), linewidth=1.2, zorder=1)
        shown = [*(p for p in line if p.kind == "smaller"), *path]
        for number, point in enumerate(shown):
            marker, color, filled = _KINDS.get(point.kind, ("s", number, True))
            color, x, y = network_color(color), get(point), point.metrics[measure]
            if noise := point.noise.get(measure):
                axes.errorbar(x, y, noise, color=color, capsize=3, linewidth=1.1, alpha=0.7, zorder=2)
            axes.plot(x, y, marker, color=color, markersize=7, mfc=color if filled else COLORS["paper"], zorder=3)
        _label_points(axes, shown, get, measure)
        axes.margins(x=0.25, y=0.28)
        if axes.get_xlim()[0] < 0:
            axes.set_xlim(left=0)
    listed = "; ".join(f"{p.label.replace(chr(10), ' ')}: {p.metrics[measure]:.3f} at {get(p):.2f}" for p in shown)
    return Drawing(name, axes.figure, f"{measure} over {cost}. {listed}.")


def _label_points(axes: Any, points: Sequence[Point], get: Callable[[Point], float | None], measure: str) -> None:
    """Write at each point what it is: those of the line on one side of it, what came out of pruning on the other.

    What was only pruned is named beside its mark where what became of it stands above or below.
    """
    line = sorted((get(p), p.metrics[measure]) for p in points if p.kind in ("smaller", "before"))
    out = [p for p in points if p.kind in ("pruned", "tuned")]
    level = np.interp([get(p) for p in out], *zip(*line, strict=True)) if line and out else []
    ahead = {id(p): p.metrics[measure] >= y for p, y in zip(out, level, strict=True)}
    best = max(out, key=lambda p: p.metrics[measure], default=None)
    for number, point in enumerate(points):
        y = point.metrics[measure]
        if point.kind == "smaller":
            above = best is not None and not ahead[id(best)]
        elif point.kind in ("pruned", "tuned"):
            above = ahead[id(point)]
        else:
            above = point.kind == "before" or number % 2 == 0
        beside = point.kind == "pruned" and len(out) > 1
        end = 0.0 if beside else (1 if above else -1) * point.noise.get(measure, 0.0)
        axes.annotate(
            f"{point.label} {y:.3f}".replace(" px ", " px\n"),
            (get(point), y + end),
            xytext=(8, 0) if beside else (0, 6 if above else -6),
            textcoords="offset points",
            ha="left" if beside else "center",
            va="center" if beside else "bottom" if above else "top",
            fontsize=8,
            color=COLORS["ink"],
            bbox={"boxstyle": "square,pad=0.05", "facecolor": COLORS["paper"], "edgecolor": "none", "alpha": 0.7},
            zorder=4,
        )


def _over_confidence(name: str, networks: Sequence[tuple[int, Network]]) -> Drawing:
    shown = {"f1": "F1", "precision": "Precision", "recall": "Recall"}[name]
    told = []
    with chart(f"{shown} over confidence", xlabel="least confidence of a detection") as (_, axes):
        axes.axvline(0.25, color=COLORS["dim"], linewidth=0.8, linestyle=":")
        axes.annotate("0.25", (0.25, 0), xytext=(2, 2), textcoords="offset points", fontsize=8, color=COLORS["dim"])
        for number, network in networks:
            x, y = network.details.confidence, getattr(network.details, name)
            label = network.label
            if name == "f1":
                best = int(np.argmax(y))
                axes.plot(x[best], y[best], "o", color=network_color(number), markersize=6)
                label = f"{network.label}, best {y[best]:.2f} at {x[best]:.2f}"
                told.append(f"{network.label} is best at {x[best]:.2f} with {y[best]:.2f}")
            axes.plot(x, y, color=network_color(number), linewidth=2, label=label)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(loc="best")
    return Drawing(name, axes.figure, f"{shown} over confidence. " + "; ".join(told))


def _scores(networks: Sequence[tuple[int, Network]]) -> Drawing:
    edges = np.linspace(0, 1, BINS + 1)
    first = round(_LEAST_CONFIDENCE * BINS)
    with chart("Confidences of detections", xlabel="confidence", ylabel="boxes per image") as (_, axes):
        for number, network in networks:
            color, details = network_color(number), network.details
            right, wrong = np.array(details.right), np.array(details.wrong)
            axes.stairs(right[first:], edges[first:], color=color, linewidth=2, label=f"{network.label}, right")
            axes.stairs(-wrong[first:], edges[first:], color=color, linewidth=1.2, linestyle="--")
            axes.plot([], [], "--", color=color, linewidth=1.2, label=f"{network.label}, wrong (downwards)")
        axes.axhline(0, color=COLORS["dim"], linewidth=0.8)
        axes.set_xlim(_LEAST_CONFIDENCE, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.legend(loc="best")
    return Drawing(
        "scores", axes.figure, "Boxes per image by confidence, those that match an object and those that do not."
    )


def _classes(networks: Sequence[Network]) -> Drawing:
    """Classes whose AP changed most, the biggest losers on top."""
    first, last = (network.details.classes for network in (networks[0], networks[-1]))
    both = [name for name in first if name in last]
    change = {name: last[name][0] - first[name][0] for name in both}
    shown = sorted(both, key=lambda name: change[name])
    if len(shown) > _MOST_CLASSES:
        shown = shown[:_MOST_CLASSES]
    measure = next(iter(networks[0].measure.metrics), "AP")
    measure = "AP50-95" if measure == "mAP50-95" else measure
    height, xlabel = 0.9 + 0.24 * len(shown), "biggest losses on top (number of objects)"
    with chart(f"{measure} by class", height=height, xlabel=xlabel, above=_above(networks)) as (_, axes):
        for row, name in enumerate(shown):
            ends = first[name][0], last[name][0]
            color = COLORS["bad"] if change[name] < 0 else COLORS["good"]
            axes.plot(ends, (row, row), "-", color=color, linewidth=2.5, alpha=0.55, solid_capstyle="butt")
            for number, network in enumerate(networks):
                if name in network.details.classes:
                    axes.plot(network.details.classes[name][0], row, "o", color=network_color(number), markersize=6)
        for number, network in enumerate(networks):
            axes.plot([], [], "o", color=network_color(number), label=network.label)
        axes.set_yticks(range(len(shown)), [f"{_short(name)} ({first[name][1]})" for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 1.03 * axes.get_xlim()[1])  # room for the last marker
        _legend(axes, networks)
    told = ", ".join(f"{name} {change[name]:+.3f}" for name in shown[:3])
    return Drawing("classes", axes.figure, f"{measure} by class before and after. The biggest losses: {told}.")


def _sizes(networks: Sequence[Network]) -> Drawing:
    sizes = list(networks[0].details.sizes)
    label = {"small": "small\nunder 32² px", "medium": "medium", "large": "large\nover 96² px"}
    told = []
    with chart("AP50-95 by size of the object", ylabel="AP50-95") as (_, axes):
        width = 0.8 / len(networks)
        for number, network in enumerate(networks):
            values = [network.details.sizes.get(size, (0.0, 0))[0] for size in sizes]
            at = np.arange(len(sizes)) + (number - (len(networks) - 1) / 2) * width
            bars = axes.bar(at, values, width * 0.92, color=network_color(number), label=network.label)
            axes.bar_label(bars, fmt="{:.2f}", fontsize=8, color=COLORS["ink"], padding=1)
            told.append(f"{network.label} " + ", ".join(f"{s} {v:.3f}" for s, v in zip(sizes, values, strict=True)))
        counts = [f"{label[size]} ({networks[0].details.sizes[size][1]})" for size in sizes]
        axes.set_xticks(range(len(sizes)), counts)
        axes.margins(y=0.25)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=len(networks))
    return Drawing("sizes", axes.figure, "AP50-95 by size of the object: " + "; ".join(told))


def _parts(name: str, shown: str, networks: Sequence[Network]) -> Drawing:
    parts = list(dict.fromkeys(layer.part for network in networks for layer in network.layers if layer.part))
    scale = 1e-6 if name == "params" else 1.0
    told = []
    height = 1.1 + 0.33 * len(parts) * len(networks)
    with chart(f"{shown[0].upper()}{shown[1:]} by part", height=height, above=_above(networks)) as (_, axes):
        height = 0.8 / len(networks)
        for number, network in enumerate(networks):
            values = [
                scale * sum(getattr(layer, name) for layer in network.layers if layer.part == part) for part in parts
            ]
            at = np.arange(len(parts)) + (number - (len(networks) - 1) / 2) * height
            bars = axes.barh(at, values, height * 0.9, color=network_color(number), label=network.label)
            axes.bar_label(bars, fmt="{:.2f}", fontsize=8, color=COLORS["ink"], padding=2)
            told.append(f"{network.label} " + ", ".join(f"{p} {v:.2f}" for p, v in zip(parts, values, strict=True)))
        axes.set_yticks(range(len(parts)), parts)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        _legend(axes, networks)
    return Drawing(f"parts-{name}", axes.figure, f"{shown} by part: " + "; ".join(told))


def _blocks(name: str, field: str, shown: str, networks: Sequence[Network]) -> Drawing:
    """A cost of the outermost numbered modules, before behind after."""
    blocks = list(dict.fromkeys(block_of(layer.name) for layer in networks[0].layers))
    with chart(f"{shown} by block", height=0.9 + 0.2 * len(blocks), above=_above(networks)) as (_, axes):
        for number, network in enumerate(networks):
            costs = dict.fromkeys(blocks, 0.0)
            for layer in network.layers:
                costs[block_of(layer.name)] += getattr(layer, field)
            height = 0.84 if number == 0 else 0.84 / len(networks)
            axes.barh(range(len(blocks)), [*costs.values()], height, color=network_color(number), label=network.label)
        axes.set_yticks(range(len(blocks)), [layer_label(block) for block in blocks])
        axes.set_ylim(len(blocks) - 0.4, -0.6)
        _legend(axes, networks)
    return Drawing(name, axes.figure, f"{shown} by block of the network, before and after.")


def _widths(networks: Sequence[Network]) -> Drawing:
    """Output channels of every layer, before behind after."""
    rows = [i for i, layer in enumerate(networks[0].layers) if layer.width]
    height = 1.0 + 0.155 * len(rows)
    with chart("Output channels of every layer", height=height, above=_above(networks)) as (_, axes):
        for number, network in enumerate(networks):
            widths = [network.layers[i].width for i in rows]
            height = 0.84 if number == 0 else 0.84 / len(networks)
            axes.barh(range(len(rows)), widths, height, color=network_color(number), label=network.label)
        axes.set_yticks(range(len(rows)), [layer_label(networks[0].layers[i].name) for i in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _legend(axes, networks)
    axes.tick_params(axis="y", labelsize=7)
    return Drawing("widths", axes.figure, "Output channels of every layer before and after.")


def _course_quality(name: str, course: Course) -> Drawing:
    history = course.history
    with chart(f"{course.measure} by epoch", xlabel="epoch") as (_, axes):
        axes.plot(history.epochs, history.quality, ".-", color=network_color(1), linewidth=1.8, label="validation")
        for (label, level), color, style in zip(
            course.levels.items(), (network_color(0), COLORS["n2"]), ("--", ":"), strict=False
        ):
            axes.axhline(level, color=color, linestyle=style, linewidth=1.4, label=f"{label} {level:.3f}")
        for number, epoch in enumerate(course.setbacks):
            axes.axvline(epoch, color=COLORS["bad"], linewidth=1, label="setback" if number == 0 else None)
        axes.margins(y=0.15)
        axes.legend(loc="best")
        _whole_numbers(axes)
    best = max(history.quality)
    return Drawing(name, axes.figure, f"{course.measure} by epoch of {course.title}; the best is {best:.3f}.")


def _course_losses(name: str, course: Course) -> Drawing:
    with chart("Loss by epoch, on training images", xlabel="epoch") as (_, axes):
        for number, (term, values) in enumerate(course.history.losses.items(), start=1):
            axes.plot(course.history.epochs, values, ".-", color=network_color(number), label=term.replace("_", " "))
        axes.margins(y=0.15)
        axes.legend(loc="best")
        _whole_numbers(axes)
    return Drawing(name, axes.figure, f"Loss terms by epoch of {course.title}.")


def _course_rates(name: str, course: Course) -> Drawing:
    with chart("Scheduled learning rate by epoch", xlabel="epoch") as (_, axes):
        axes.plot(course.history.epochs, course.history.rates, ".-", color=network_color(1))
        for epoch in course.setbacks:
            axes.axvline(epoch, color=COLORS["bad"], linewidth=1)
        axes.set_ylim(bottom=0)
        _whole_numbers(axes)
    return Drawing(name, axes.figure, f"Scheduled learning rate by epoch of {course.title}.")


def _legend(axes: Any, networks: Sequence[Network]) -> None:
    """Above the axes: beside the title or, where the names are long, below it."""
    if _above(networks):
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=1, handlelength=1)
    else:
        axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, handlelength=1, columnspacing=1)


def _above(networks: Sequence[Network]) -> int:
    """Lines of a legend between title and axes."""
    return len(networks) if sum(len(network.label) for network in networks) > 16 else 0


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _alike(networks: Sequence[Network]) -> bool:
    names = [[layer.name for layer in network.layers] for network in networks]
    return len(networks) > 1 and all(each == names[0] for each in names)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
