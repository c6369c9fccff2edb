"""Blocks of other libraries whose attributes hold a width: all of their channels can go, and the rest is exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.graph.exactness import prunable_share, randomise
from yoloprune.graph import mask_error, trace

pytest.importorskip("timm")
from timm.layers import selective_kernel
from timm.models import metaformer, res2net

BLOCKS = {
    "scale": lambda: metaformer.Scale(12),
    "res2net": lambda: res2net.Bottle2neck(12, 3, base_width=128, scale=3, norm_layer=nn.BatchNorm2d),
    "res2net, first": lambda: res2net.Bottle2neck(
        12, 3, 2, nn.Conv2d(12, 12, 1, 2), base_width=128, scale=3, norm_layer=nn.BatchNorm2d
    ),
    "selective kernel": lambda: selective_kernel.SelectiveKernel(12, 12),
    "selective kernel, whole input": lambda: selective_kernel.SelectiveKernel(12, 12, split_input=False),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_all_channels_can_go(block) -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 12, 1), BLOCKS[block](), nn.Conv2d(12, 4, 1)))
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = trace(model, inputs)
    assert prunable_share(graph) == pytest.approx(1)
    for seed, ratio in enumerate((0.3, 0.5, 0.8)):
        assert mask_error(model, graph.random_plan(ratio, seed), inputs) < 1e-9
