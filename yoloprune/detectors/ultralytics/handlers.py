"""Attributes of Ultralytics' blocks that must follow a pruned width."""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules import block, conv

from yoloprune.graph.attributes import attribute_handler

__all__: list[str] = []


@attribute_handler(block.C2, block.C2f, block.C2fAttn, block.C2PSA, block.PSA, block.RepNCSPELAN4)
def _split_width(module: nn.Module, old: object) -> None:
    # forward uses chunk(2), but export goes through forward_split, which reads the attribute
    module.c = module.cv1.conv.out_channels // 2


@attribute_handler(block.SPPELAN)
def _sppelan(module: nn.Module, old: object) -> None:
    module.c = module.cv1.conv.out_channels


@attribute_handler(conv.RepConv)
def _rep_conv(module: nn.Module, old: object) -> None:
    # read when the branches are fused
    module.c1, module.c2 = module.conv1.conv.in_channels, module.conv1.conv.out_channels
    module.g = module.conv1.conv.groups


@attribute_handler(block.RepVGGDW)
def _rep_vgg_dw(module: nn.Module, old: object) -> None:
    module.dim = module.conv.conv.out_channels
