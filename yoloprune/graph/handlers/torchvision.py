"""Attributes of torchvision's modules that must follow a pruned width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torchvision.models import maxvit, swin_transformer, vision_transformer

from yoloprune.graph.attributes import attribute_handler
from yoloprune.graph.handlers.heads import fewer_heads

__all__: list[str] = []


@attribute_handler(vision_transformer.VisionTransformer)
def _vision_transformer(model: vision_transformer.VisionTransformer, old: Mapping[str, torch.Size]) -> None:
    model.hidden_dim = model.conv_proj.out_channels


@attribute_handler(swin_transformer.ShiftedWindowAttention, counts=("num_heads",))
def _window_attention(attention: swin_transformer.ShiftedWindowAttention, old: Mapping[str, torch.Size]) -> None:
    fewer_heads(attention, old)


@attribute_handler(maxvit.RelativePositionalMultiHeadAttention, counts=("n_heads",))
def _grid_attention(attention: maxvit.RelativePositionalMultiHeadAttention, old: Mapping[str, torch.Size]) -> None:
    attention.n_heads = attention.to_qkv.out_features // (3 * attention.head_dim)
