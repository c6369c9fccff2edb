"""Normalisation layers."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, Net, between, conv


def _norm(norm: object) -> object:
    return between(lambda net, x: net.m(x).relu(), m=norm)


def _running_instance_norm() -> nn.Module:
    return nn.InstanceNorm2d(16, affine=True, track_running_stats=True)


def _last(norm: object) -> object:
    return lambda: Net(lambda net, x: net.b(net.m(net.a(x))), a=nn.Linear(3, 16), m=norm(), b=nn.Linear(16, 4))


def _tokens() -> tuple:
    return (torch.randn(2, 5, 3),)


CASES = [
    Case("batch norm", _norm(lambda: nn.BatchNorm2d(16))),
    Case("batch norm without affine", _norm(lambda: nn.BatchNorm2d(16, affine=False))),
    Case(
        "batch norm before the convolution",
        lambda: nn.Sequential(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 8), nn.BatchNorm2d(8), conv(8, 4)),
    ),
    Case("frozen batch norm", _norm(lambda: torchvision.ops.FrozenBatchNorm2d(16))),
    Case("instance norm", _norm(lambda: nn.InstanceNorm2d(16, affine=True))),
    Case("instance norm without affine", _norm(lambda: nn.InstanceNorm2d(16))),
    Case("instance norm with running statistics", _norm(_running_instance_norm)),
    Case("group norm", _norm(lambda: nn.GroupNorm(4, 16)), statistics=True),
    Case("group norm of one channel each", _norm(lambda: nn.GroupNorm(16, 16))),
    Case("group norm of all channels", _norm(lambda: nn.GroupNorm(1, 16)), statistics=True),
    Case("layer norm", _last(lambda: nn.LayerNorm(16)), _tokens, statistics=True),
    Case(
        "layer norm within heads",
        lambda: Net(
            lambda net, x: net.b(net.m(net.a(x).unflatten(-1, (-1, 4))).flatten(-2)),
            a=nn.Linear(3, 16),
            m=nn.LayerNorm(4),
            b=nn.Linear(16, 4),
        ),
        _tokens,
    ),
    Case(
        "layer norm over channels first",
        between(lambda net, x: net.m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), m=lambda: nn.LayerNorm(16)),
        statistics=True,
    ),
    Case(
        "layer norm of a shape that is asked for", between(lambda net, x: F.layer_norm(x, x.shape[1:])), statistics=True
    ),
    Case(
        "layer norm without affine",
        _last(lambda: nn.LayerNorm(16, elementwise_affine=False)),
        _tokens,
        share=0.0,
        statistics=True,
    ),  # nothing of it would shrink with the fixed shape that it holds
    Case("RMS norm", _last(lambda: nn.RMSNorm(16)), _tokens, statistics=True),
    Case(
        "RMS norm by hand",
        lambda: Net(
            lambda net, x: net.b((y := net.a(x)) * y.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() * net.w),
            a=nn.Linear(3, 16),
            b=nn.Linear(16, 4),
            w=nn.Parameter(torch.rand(16)),
        ),
        _tokens,
        statistics=True,
    ),
    Case("local response norm", _norm(lambda: nn.LocalResponseNorm(3)), share=0.0),  # neighbours by number
    Case(
        "fixed statistics as buffers",
        between(lambda net, x: (x - net.mean) * net.scale, mean=torch.randn(16, 1, 1), scale=torch.rand(16, 1, 1) + 1),
    ),
    Case("a buffer that scales", between(lambda net, x: x * net.scale.view(1, -1, 1, 1), scale=torch.rand(16) + 1)),
]
