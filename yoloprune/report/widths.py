"""Which layer lost how much: widths per layer, and their picture."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from yoloprune.files import atomic
from yoloprune.graph.tracing.internals import ConvNd

from .figure import new_figure

__all__ = ["draw_widths", "layer_label", "layer_widths", "paired_widths"]


def layer_widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer, in the model's order."""
    widths = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvNd):
            widths[name] = module.out_channels
        elif isinstance(module, nn.Linear):
            widths[name] = module.out_features
    return widths


def paired_widths(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    """Output channels of every layer before and after; a layer that is gone has 0."""
    pruned = layer_widths(after)
    return {name: (width, pruned.get(name, 0)) for name, width in layer_widths(before).items()}


def draw_widths(widths: dict[str, tuple[int, int]], path: Path) -> None:
    """Draw the widths before (outline) and after (filled) as a bar chart, one bar per layer.

    Args:
        widths: Layer to output channels before and after.
        path: PNG file to write.
    """
    figure = new_figure(max(6.0, 0.16 * len(widths) + 1.5), 4.2)
    axes = figure.add_subplot()
    places = range(len(widths))
    before = [pair[0] for pair in widths.values()]
    after = [pair[1] for pair in widths.values()]
    axes.bar(places, before, width=0.9, color="#dfe5ec", label="before")
    axes.bar(places, after, width=0.9, color="#2a6fb0", label="after")
    axes.set_xticks(places, [layer_label(name) for name in widths], rotation=90, fontsize=6)
    axes.set_xlim(-1, len(widths))
    axes.set_ylabel("output channels")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=110)


def layer_label(name: str) -> str:
    """`model.2.m.0.cv1.conv` is known as `2.m.0.cv1` to those who read Ultralytics' YAML."""
    return name.removeprefix("model.").removesuffix(".conv")
