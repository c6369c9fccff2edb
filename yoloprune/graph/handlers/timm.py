"""Attributes of timm's modules that must follow a pruned width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers import attention
from torch import nn

from yoloprune.graph.attributes import attribute_handler
from yoloprune.graph.handlers.heads import fewer_heads

__all__: list[str] = []


@attribute_handler(attention.Attention, counts=("num_heads",))
def _attention(module: nn.Module, old: Mapping[str, torch.Size]) -> None:
    fewer_heads(module, old)
    module.attn_dim = module.proj.in_features
