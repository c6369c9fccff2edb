"""Layers beside what they are defined to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.detectors.yolov7.small import lively
from yoloprune.detectors.yolov7 import architecture
from yoloprune.detectors.yolov7.layers import Conv, DownC, Focus, ReOrg, RepConv, Shortcut
from yoloprune.detectors.yolov7.network import Network
from yoloprune.graph import mask_error, trace

# release 5 of YOLOv5, small
OLD_BACKBONE = [
    [-1, 1, "Focus", [64, 3]],
    [-1, 1, "Conv", [128, 3, 2]],
    [-1, 3, "C3", [128]],
    [-1, 1, "Conv", [256, 3, 2]],
    [-1, 9, "C3", [256]],
    [-1, 1, "Conv", [512, 3, 2]],
    [-1, 9, "C3", [512]],
    [-1, 1, "Conv", [1024, 3, 2]],
    [-1, 1, "SPP", [1024, [5, 9, 13]]],
    [-1, 3, "C3", [1024, False]],
]


def old_yolov5(width: float = 0.5, nc: int = 80) -> Network:
    cfg = architecture("yolov5s", nc=nc)
    del cfg["anchor_grid"]
    return Network.from_yaml({**cfg, "backbone": OLD_BACKBONE, "width_multiple": width})


def test_older_releases_of_yolov5_have_the_published_parameters() -> None:
    with torch.device("meta"):
        network = old_yolov5()
    assert sum(p.numel() for p in network.parameters()) == 7_276_605
    assert {"model.24.anchors", "model.24.anchor_grid"} <= set(network.state_dict())


def test_older_releases_of_yolov5_prune_exactly() -> None:
    network, image = lively(old_yolov5(width=0.125, nc=3), size=64)
    plan = trace(network, image).random_plan(0.5, seed=1)
    assert mask_error(network, plan, image) < 1e-9


def test_pixels_go_to_channels_column_by_column() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    expected = torch.stack([image[0, 0, row::2, column::2] for column in (0, 1) for row in (0, 1)])[None]
    assert torch.equal(ReOrg()(image), expected)
    focus = Focus(1, 8, 3).eval()
    assert torch.equal(focus(image), focus.conv(expected))


def test_downc_joins_its_convolutions_and_then_its_pooling() -> None:
    layer = DownC(4, 16).eval()
    x = torch.randn(1, 4, 8, 8)
    y = layer(x)
    assert y.shape == (1, 16, 4, 4)
    assert torch.equal(y[:, :8], layer.cv2(layer.cv1(x)))
    assert torch.equal(y[:, 8:], layer.cv3(nn.functional.max_pool2d(x, 2)))


def test_shortcut_adds() -> None:
    a, b = torch.randn(2, 1, 4, 2, 2)
    assert torch.equal(Shortcut(1)([a, b]), a + b)


def test_fusing_keeps_outputs_and_what_trains() -> None:
    layer = Conv(4, 8, 3, act=nn.LeakyReLU(0.1)).eval()
    nn.init.uniform_(layer.bn.weight, 0.5, 1.5)
    nn.init.uniform_(layer.bn.running_var, 0.5, 1.5)
    nn.init.normal_(layer.bn.bias)
    layer.requires_grad_(False)
    x = torch.randn(1, 4, 8, 8)
    expected = layer(x)
    layer.fuse()
    layer.fuse()
    torch.testing.assert_close(layer(x), expected)
    assert list(layer.state_dict()) == ["conv.weight", "conv.bias"]
    assert not any(p.requires_grad for p in layer.parameters())


def test_repconv_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="k=5"):
        RepConv(8, 8, 5)
