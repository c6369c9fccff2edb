"""Attributes of timm's modules that must follow a pruned width."""

from __future__ import annotations

from timm.layers import attention, pos_embed_rel, selective_kernel, std_conv
from timm.models import beit, cait, edgenext, efficientformer, maxxvit, metaformer, pvt_v2, res2net, tnt, twins, xcit

from yoloprune.graph.attributes import Shapes, attribute_handler, resize_convolution
from yoloprune.graph.handlers.heads import update_num_heads

__all__: list[str] = []

_QKV = (
    attention.Attention,
    beit.Attention,
    cait.TalkingHeadAttn,
    edgenext.CrossCovarianceAttn,
    maxxvit.Attention2d,
    maxxvit.AttentionCl,
    twins.LocallyGroupedAttn,
    xcit.XCA,
)
_QUERIES = (cait.ClassAttn, pvt_v2.Attention, twins.GlobalSubSampleAttn)

_CONVOLUTIONS = (
    std_conv.ScaledStdConv2d,
    std_conv.ScaledStdConv2dSame,
    std_conv.StdConv2d,
    std_conv.StdConv2dSame,
)

attribute_handler(*_CONVOLUTIONS)(resize_convolution)
attribute_handler(*_QKV, counts=("num_heads",))(update_num_heads)
attribute_handler(*_QUERIES, counts=("num_heads",))(lambda module, old: update_num_heads(module, old, "q"))
attribute_handler(tnt.Attention, counts=("num_heads",))(lambda module, old: update_num_heads(module, old, "v"))
attribute_handler(efficientformer.Attention, counts=("num_heads",), resizes_splits=True)(update_num_heads)


@attribute_handler(pos_embed_rel.RelPosBias)
def _relative_position_bias(bias: pos_embed_rel.RelPosBias, old: Shapes) -> None:
    bias.num_heads = bias.relative_position_bias_table.shape[1]
    bias.bias_shape = (*bias.bias_shape[:2], bias.num_heads)


@attribute_handler(metaformer.Scale)
def _scale(module: metaformer.Scale, old: Shapes) -> None:
    module.shape = (module.scale.numel(), *module.shape[1:])


@attribute_handler(res2net.Bottle2neck)
def _res2net_block(block: res2net.Bottle2neck, old: Shapes) -> None:
    block.width = block.conv1.out_channels // block.scale


@attribute_handler(selective_kernel.SelectiveKernel)
def _selective_kernel(kernel: selective_kernel.SelectiveKernel, old: Shapes) -> None:
    kernel.out_channels = kernel.paths[0].conv.out_channels
    paths = kernel.paths if kernel.split_input else kernel.paths[:1]
    kernel.in_channels = sum(path.conv.in_channels for path in paths)
