"""What a page tells of one network or several, and the page itself: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from yoloprune.detectors.details import Details, History
from yoloprune.files import atomic

from . import charts
from .figure import COLORS, as_svg, save
from .pictures import Shown
from .record import Measure, Record

__all__ = [
    "Course",
    "Layer",
    "Network",
    "Page",
    "Point",
    "Stays",
    "Words",
    "best_confidence",
    "draw_page",
    "write_page",
]


class Layer(NamedTuple):
    """A layer and what it costs.

    Attributes:
        name: Module name.
        part: Name of the part that it belongs to; "" if it belongs to none.
        width: Output channels; 0 for a layer that has none or is gone.
        gflops: GFLOPs at 640 px, those of convolutions and matrix products alone.
        params: Parameters, those of its norm included.
        ms: Milliseconds of one image, its activation included; 0 if that was not measured.
    """

    name: str
    part: str
    width: int
    gflops: float
    params: int
    ms: float = 0.0


@dataclass
class Network:
    """One of the networks that a page compares; the first is the one that the others are measured by.

    Attributes:
        label: What it is called on the page.
        measure: Cost and quality.
        details: What stands behind its quality.
        layers: Its layers in order.
    """

    label: str
    measure: Measure
    details: Details | None = None
    layers: list[Layer] = field(default_factory=list)


class Point(NamedTuple):
    """A network on the picture of quality over cost.

    Attributes:
        label: What stands beside it.
        kind: "before", "pruned" (as it comes out of pruning), "tuned", "smaller" (image) or "other".
        gflops: GFLOPs at 640 px of a network that costs as much.
        metrics: Its validation.
        noise: Standard deviation of mAP and F1 over resampled images, by the names of `metrics`.
        latency_ms: Milliseconds of one image.
    """

    label: str
    kind: str
    gflops: float
    metrics: Mapping[str, float]
    noise: Mapping[str, float] = {}
    latency_ms: float | None = None


class Words(NamedTuple):
    """The verdict.

    Attributes:
        mood: "good", "bad" or "even".
        headline: It in a few words.
        lines: What it rests on, a sentence each.
        why: What the next command does.
        command: The next command to type.
    """

    mood: str
    headline: str
    lines: list[str]
    why: str
    command: str


class Course(NamedTuple):
    """A training.

    Attributes:
        title: What it was.
        measure: Name of the figure in which its quality is told.
        history: Its course.
        levels: Name to quality of networks to measure it by, such as the unpruned one.
        setbacks: Epochs after which it went back to the best network.
    """

    title: str
    measure: str
    history: History
    levels: dict[str, float]
    setbacks: list[int]


class Stays(NamedTuple):
    """Channels that were not to be pruned, or not freely.

    Attributes:
        why: In plain words.
        channels: How many.
        layers: Which layers make them.
    """

    why: str
    channels: int
    layers: list[str]


@dataclass
class Page:
    """All that a page shows; what is empty is left out.

    Attributes:
        title: Its title.
        subtitle: What was compared on what.
        words: The verdict.
        networks: The networks, the reference first.
        path: From the unpruned network to the finished one, as points.
        line: The unpruned network at several image sizes, the smallest first.
        looks: Images with what each network finds.
        looked_at: Among how many images these were chosen.
        courses: Trainings.
        stays: Frozen channels by reason, then tied ones.
        record: The run, if the page is about one.
        command: What was typed or called.
        options: Options that differ from the default: name, value, default.
        environment: Versions and the like.
        sparsity: Picture of a group-sparse training, a PNG file; empty if there was none.
        pictures: Pictures that others have written, by path from the page.
        files: Files of the folder: path from the page and size in bytes.
    """

    title: str
    subtitle: str
    words: Words
    networks: list[Network]
    path: list[Point] = field(default_factory=list)
    line: list[Point] = field(default_factory=list)
    looks: list[Shown] = field(default_factory=list)
    looked_at: int = 0
    courses: list[Course] = field(default_factory=list)
    stays: list[Stays] = field(default_factory=list)
    record: Record | None = None
    command: str = ""
    options: list[tuple[str, str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    sparsity: bytes = b""
    pictures: list[str] = field(default_factory=list)
    files: list[tuple[str, int]] = field(default_factory=list)

    @property
    def measures(self) -> list[str]:
        """Names of the figures that the quality is drawn in: mAP and F1, or top-1."""
        known = self.networks[0].measure.metrics
        return [name for name in dict.fromkeys([*list(known)[:1], "F1 (conf .25)"]) if name in known]


def best_confidence(details: Details | None) -> tuple[float, float] | None:
    """The confidence at which F1 is highest, and that F1."""
    if not details or not details.f1:
        return None
    at = max(range(len(details.f1)), key=lambda i: details.f1[i])
    return details.confidence[at], details.f1[at]


def draw_page(page: Page, folder: Path) -> dict[str, str]:
    """Write every picture of a page into a folder, charts as SVG and PNG and photographs as JPEG, and layers.json.

    Returns:
        Name of a chart -> SVG element, for `write_page`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    svgs = {}
    for drawing in charts.all_charts(page):
        svgs[drawing.name] = as_svg(drawing.figure, drawing.name, drawing.alt)
        save(drawing.figure, svgs[drawing.name], folder / drawing.name)
    for number, shown in enumerate(page.looks, start=1):
        for network, jpeg in zip(page.networks, shown.jpegs, strict=True):
            with atomic(folder / f"{number}-{_slug(network.label)}.jpg") as tmp:
                tmp.write_bytes(jpeg)
    with atomic(folder / "layers.json") as tmp:
        layers = {network.label: [layer._asdict() for layer in network.layers] for network in page.networks}
        tmp.write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
    return svgs


def write_page(page: Page, svgs: Mapping[str, str], path: Path) -> None:
    """Write the page.

    Args:
        page: What it tells.
        svgs: What `draw_page` returned.
        path: HTML file to write.
    """
    environment = Environment(
        loader=PackageLoader("yoloprune.report"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    text = environment.get_template("report.html").render(
        page=page,
        svgs=svgs,
        colors=COLORS,
        confidences=[best_confidence(network.details) for network in page.networks],
        classes=_class_rows(page.networks),
        layers=_layer_rows(page.networks),
        tiles=_tiles(page),
    )
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


class Tile(NamedTuple):
    """A figure of the first and of each other network: name, values, changes, and whether each change is good."""

    name: str
    values: list[str]
    changes: list[str]
    moods: list[str]


_FORMS = {"detections per image": (1, 0), "calibration error (conf .25)": (3, -1)}
"""Decimals of a figure, and whether more of it is better (1), worse (-1) or neither, where that is not (3, 1)."""


def _tiles(page: Page) -> list[Tile]:
    measures = [network.measure for network in page.networks]
    costs: list[tuple[str, Callable[[Measure], float | None], str]] = [
        ("GFLOPs", lambda m: m.gflops, "{:.2f}"),
        ("parameters (M)", lambda m: m.params / 1e6, "{:.3f}"),
        ("milliseconds", lambda m: m.latency_ms, "{:.2f}"),
        ("file (MB)", lambda m: m.size_mb, "{:.2f}"),
    ]
    tiles = []
    for name in page.networks[0].measure.metrics:
        values = [m.metrics.get(name) for m in measures]
        if all(value is not None for value in values):
            changes = [value - values[0] for value in values[1:]]
            digits, better = _FORMS.get(name, (3, 1))
            texts = [f"{value:.{digits}f}" for value in values]
            told = [f"{change:+.{digits}f}" for change in changes]
            tiles.append(Tile(name, texts, told, [_mood(better * change) for change in changes]))
    for name, get, form in costs:
        costs_of = [get(m) for m in measures]
        if all(costs_of):
            ratios = [value / costs_of[0] - 1 for value in costs_of[1:]]
            told = [f"{ratio:+.0%}" for ratio in ratios]
            tiles.append(Tile(name, [form.format(v) for v in costs_of], told, [_mood(-ratio) for ratio in ratios]))
    return tiles


def _mood(gain: float) -> str:
    return "" if abs(gain) < 5e-4 else "good" if gain > 0 else "bad"


def _class_rows(networks: list[Network]) -> list[tuple[str, int, list[float]]]:
    """Classes that all networks were measured on, the biggest losses first: name, objects, AP of each network."""
    known = [network.details.classes if network.details else {} for network in networks]
    names = [name for name in known[0] if all(name in classes for classes in known)]
    rows = [(name, known[0][name][1], [classes[name][0] for classes in known]) for name in names]
    return sorted(rows, key=lambda row: row[2][-1] - row[2][0])


def _layer_rows(networks: list[Network]) -> list[list[Layer]]:
    """Layer by layer of all networks, if they have the same ones."""
    names = [[layer.name for layer in network.layers] for network in networks]
    if len(networks) < 2 or any(each != names[0] for each in names):
        return []
    return [list(rows) for rows in zip(*(network.layers for network in networks), strict=True)]


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(label).stem) or "network"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} B"


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _count(number: int) -> str:
    return f"{number:,}"


_FILTERS: dict[str, Callable[..., Any]] = {"bytes": _bytes, "b64": _b64, "count": _count}
