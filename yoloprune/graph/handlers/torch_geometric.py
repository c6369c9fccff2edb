"""Attributes of PyTorch Geometric's modules that must follow a pruned width."""

from __future__ import annotations

from torch_geometric.nn import conv

from yoloprune.graph.attributes import Shapes, attribute_handler

__all__: list[str] = []


@attribute_handler(conv.GATConv)
def _gat(layer: conv.GATConv, old: Shapes) -> None:
    layer.out_channels = layer.att_src.shape[-1]
