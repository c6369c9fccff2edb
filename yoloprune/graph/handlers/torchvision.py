"""Attributes of torchvision's modules that must follow a pruned width."""

from __future__ import annotations

from torchvision.models import maxvit, swin_transformer, vision_transformer
from torchvision.models.video import mvit
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from yoloprune.graph.attributes import Shapes, attribute_handler
from yoloprune.graph.handlers.heads import update_num_heads

__all__: list[str] = []


@attribute_handler(vision_transformer.VisionTransformer)
def _vision_transformer(model: vision_transformer.VisionTransformer, old: Shapes) -> None:
    model.hidden_dim = model.conv_proj.out_channels


attribute_handler(swin_transformer.ShiftedWindowAttention, ShiftedWindowAttention3d, counts=("num_heads",))(
    update_num_heads
)


@attribute_handler(maxvit.RelativePositionalMultiHeadAttention, counts=("n_heads",))
def _grid_attention(attention: maxvit.RelativePositionalMultiHeadAttention, old: Shapes) -> None:
    attention.n_heads = attention.to_qkv.out_features // (3 * attention.head_dim)


@attribute_handler(mvit.MultiscaleAttention, counts=("num_heads",))
def _multiscale_attention(attention: mvit.MultiscaleAttention, old: Shapes) -> None:
    attention.output_dim = attention.qkv.out_features // 3
    attention.num_heads = attention.output_dim // attention.head_dim
