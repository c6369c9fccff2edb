"""Pooling, resampling and sampling: they act on trailing positions and leave channels alone."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, varying
from yoloprune.graph.rules.contraction import vector
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


def _positions(call: Call) -> int:
    match = re.search(r"([123])d", call.name)
    return int(match.group(1)) if match else 2


def _without_positions(call: Call, layer: Tensor, positions: range) -> Tensor:
    """The layer with its labels united along the positions, which are cut to size 1."""
    layer = call.ledger.unite_along(layer, positions)
    for d in positions:
        layer = layer.narrow(d, 0, 1)
    return layer


@rule(
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "mkldnn_max_pool2d",
)
def pool(call: Call) -> None:
    """Whatever happens to positions happens to every channel alike."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    positions = range(x.dim() - _positions(call), x.dim())
    layers = [_without_positions(call, layer, positions) for layer in labels.layers]
    for out in call.outs:
        call.put(out, Labels(tuple(layer.expand(out.shape) for layer in layers), labels.zero))


@rule("grid_sampler_2d", "grid_sampler_3d", "grid_sampler", "cudnn_grid_sampler")
def grid_sample(call: Call) -> None:
    """Channels are sampled alike at places that the grid gives."""
    x, grid = call.args[0], call.args[1]
    for layer in call.layers(grid):
        if set(varying(layer)) - {0}:
            call.ledger.freeze(layer, "is a sampling place")
    labels = call.labels(x)
    if labels is None:
        return
    layers = [_without_positions(call, layer, range(2, x.dim())) for layer in labels.layers]
    call.put(call.out, Labels(tuple(layer.expand(call.out.shape) for layer in layers), labels.zero))


@rule("col2im")
def col2im(call: Call) -> None:
    """Fold: the rows of one channel are summed into it, so they go together."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    layers = []
    for layer in labels.layers:
        if x.dim() - 2 in varying(layer):
            line = vector(call, x, x.dim() - 2).view(call.out.shape[-3], -1)
            call.ledger.unite(line, line[:, :1])
            layers.append(line[:, :1, None].expand(call.out.shape))
    call.put(call.out, Labels(tuple(layers), labels.zero))


@rule("im2col")
def im2col(call: Call) -> None:
    """Unfold: each channel becomes one row per kernel place."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    channel = x.dim() - 3
    layers = []
    for layer in labels.layers:
        if channel in varying(layer):
            layer = call.ledger.unite_along(layer, [d for d in varying(layer) if d != channel])
            line = compact(layer, (channel,)).reshape(-1)
            rows = torch.repeat_interleave(line, call.out.shape[-2] // line.numel())
            layers.append(rows.view(*[1] * (call.out.dim() - 2), -1, 1).expand(call.out.shape))
    call.put(call.out, Labels(tuple(layers), labels.zero))


@rule("roi_align", "roi_pool", "ps_roi_align")
def roi_align(call: Call) -> None:
    """Channels are sampled alike within boxes, whose coordinates must stay."""
    x, boxes = call.args[:2]
    call.ledger.freeze_all(call.labels(boxes), "is a sampling place")
    if call.name == "ps_roi_align":  # a channel is a place here
        call.ledger.unknown(call.name, [labels] if (labels := call.labels(x)) else [])
        return
    channels = vector(call, x, 1)
    if channels is not None:
        out = call.outs[0]
        call.put(out, Labels((channels.view(1, -1, 1, 1).expand(out.shape),), call.labels(x).zero))
