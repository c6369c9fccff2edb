"""Pooling, resampling and sampling: they act on trailing positions and leave channels alone."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, varying_dims
from yoloprune.graph.rules.contraction import label_vector
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


def _positions(call: Call) -> int:
    match = re.search(r"([123])d", call.name)
    return int(match.group(1)) if match else 2


def _without_positions(call: Call, plane: Tensor, positions: range) -> Tensor:
    """The plane with its labels united along the positions, which are cut to size 1."""
    plane = call.ledger.unite_along(plane, positions)
    for d in positions:
        plane = plane.narrow(d, 0, 1)
    return plane


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
    """What happens to positions is the same for every channel."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    positions = range(x.dim() - _positions(call), x.dim())
    planes = [_without_positions(call, plane, positions) for plane in labels.planes]
    for out in call.outs:
        call.put(out, Labels(tuple(plane.expand(out.shape) for plane in planes), labels.zero))


@rule("grid_sampler_2d", "grid_sampler_3d", "grid_sampler", "cudnn_grid_sampler")
def grid_sample(call: Call) -> None:
    """All channels are sampled at the positions that the grid gives."""
    x, grid = call.args[0], call.args[1]
    for plane in call.planes(grid):
        if set(varying_dims(plane)) - {0}:
            call.ledger.freeze(plane, "is a sampling place")
    labels = call.labels(x)
    if labels is None:
        return
    planes = [_without_positions(call, plane, range(2, x.dim())) for plane in labels.planes]
    call.put(call.out, Labels(tuple(plane.expand(call.out.shape) for plane in planes), labels.zero))


@rule("col2im")
def col2im(call: Call) -> None:
    """Fold: the rows of one channel are summed into it, so they go together."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    planes = []
    line = label_vector(call, x, x.dim() - 2)
    if line is not None:
        rows = line.view(call.out.shape[-3], -1)
        call.ledger.unite(rows, rows[:, :1])
        planes.append(rows[:, :1, None].expand(call.out.shape))
    call.put(call.out, Labels(tuple(planes), labels.zero))


@rule("im2col")
def im2col(call: Call) -> None:
    """Unfold: each channel becomes one row per kernel position."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    channel = x.dim() - 3
    planes = []
    for plane in labels.planes:
        if channel in varying_dims(plane):
            plane = call.ledger.unite_along(plane, [d for d in varying_dims(plane) if d != channel])
            line = compact(plane, (channel,)).reshape(-1)
            rows = torch.repeat_interleave(line, call.out.shape[-2] // line.numel())
            planes.append(rows.view(*[1] * (call.out.dim() - 2), -1, 1).expand(call.out.shape))
    call.put(call.out, Labels(tuple(planes), labels.zero))


@rule("roi_align", "roi_pool", "ps_roi_align")
def roi_align(call: Call) -> None:
    """All channels are sampled within boxes, whose coordinates must stay."""
    x, boxes = call.args[:2]
    labels = call.labels(x)
    call.ledger.freeze_all(call.labels(boxes), "is a sampling place")
    if call.name == "ps_roi_align":  # a channel is a position here
        call.ledger.report_unsupported(call.name, [labels] if labels else [])
        return
    channels = label_vector(call, x, 1)
    if labels and channels is not None:
        out = call.outs[0]
        call.put(out, Labels((channels.view(1, -1, 1, 1).expand(out.shape),), labels.zero))
