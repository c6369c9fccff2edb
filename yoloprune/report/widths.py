"""Which layer lost how much: widths per layer."""

from __future__ import annotations

from torch import nn

from yoloprune.graph.tracing.internals import ConvNd

__all__ = ["block_of", "layer_label", "layer_widths", "paired_widths"]


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


def layer_label(name: str) -> str:
    """`model.2.m.0.cv1.conv` is known as `2.m.0.cv1` to those who read Ultralytics' YAML."""
    return name.removeprefix("model.").removesuffix(".conv")


def block_of(name: str) -> str:
    """The outermost block that a layer is in: `model.2` of `model.2.m.0.cv1.conv`, and `stem` of `stem.0`."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "model" else parts[0]
