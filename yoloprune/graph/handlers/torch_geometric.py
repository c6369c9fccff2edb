"""Attributes of PyTorch Geometric's modules that must follow a pruned width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch_geometric.nn import conv

from yoloprune.graph.attributes import attribute_handler

__all__: list[str] = []


@attribute_handler(conv.GATConv)
def _gat(layer: conv.GATConv, old: Mapping[str, torch.Size]) -> None:
    layer.out_channels = layer.att_src.shape[-1]
