"""Convolutions of every kind."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from tests.graph.nets.case import Case, Net, between, conv


def _volume() -> tuple:
    return (torch.randn(2, 3, 4, 4, 4),)


def _sequence() -> tuple:
    return (torch.randn(2, 3, 8),)


CASES = [
    Case("plain", between(lambda net, x: net.m(x).relu(), m=lambda: conv(16, 16, 3))),
    Case(
        "1-D",
        lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 4, 3)),
        _sequence,
    ),
    Case(
        "3-D",
        lambda: nn.Sequential(nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 4, 1)),
        _volume,
    ),
    Case("transposed", between(lambda net, x: net.m(x), m=lambda: nn.ConvTranspose2d(16, 16, 2, 2))),
    Case(
        "transposed 1-D",
        lambda: nn.Sequential(nn.ConvTranspose1d(3, 16, 3), nn.ReLU(), nn.Conv1d(16, 4, 1)),
        _sequence,
    ),
    Case(
        "transposed 3-D",
        lambda: nn.Sequential(nn.ConvTranspose3d(3, 16, 2), nn.ReLU(), nn.ConvTranspose3d(16, 4, 1)),
        _volume,
    ),
    Case("depthwise", between(lambda net, x: net.m(x), m=lambda: conv(16, 16, 3, groups=16))),
    Case("depthwise multiplier", between(lambda net, x: net.m(x), 32, m=lambda: conv(16, 32, 3, groups=16))),
    Case(
        "transposed depthwise",
        between(lambda net, x: net.m(x), m=lambda: nn.ConvTranspose2d(16, 16, 2, 2, groups=16)),
    ),
    Case("grouped", between(lambda net, x: net.m(x), m=lambda: conv(16, 32, 3, groups=4), width=32)),
    Case(
        "grouped twice, other group counts",
        between(
            lambda net, x: net.n(net.m(x)), 32, m=lambda: conv(16, 32, 3, groups=4), n=lambda: conv(32, 32, groups=2)
        ),
    ),
    Case(
        "grouped transposed",
        between(lambda net, x: net.m(x), m=lambda: nn.ConvTranspose2d(16, 32, 2, 2, groups=4), width=32),
    ),
    Case(
        "groups over the image's own channels", lambda: nn.Sequential(conv(3, 12, 3, groups=3), conv(12, 4)), share=0.0
    ),
    Case(
        "functional convolution with the input's width as groups",
        between(
            lambda net, x: torch.nn.functional.conv2d(x, net.w, groups=x.shape[1]),
            w=lambda: nn.Parameter(torch.randn(16, 1, 3, 3)),
        ),
    ),
    Case("without batch dimension", lambda: nn.Sequential(conv(3, 16), conv(16, 4)), lambda: (torch.randn(3, 4, 4),)),
    Case(
        "deformable",
        lambda: Net(
            lambda net, x: net.last(net.m((x := net.first(x)), net.offset(x))),
            first=conv(3, 16),
            offset=conv(16, 18),
            m=torchvision.ops.DeformConv2d(16, 16, 3, padding=1),
            last=conv(16, 4),
        ),
        share=32 / 50,  # all but the 18 offsets
    ),
    Case(
        "linear on the channels-last side",
        lambda: Net(lambda net, x: net.b(net.a(x.permute(0, 2, 3, 1)).relu()), a=nn.Linear(3, 16), b=nn.Linear(16, 4)),
    ),
    Case(
        "bilinear",
        lambda: Net(
            lambda net, x: net.c(net.m(net.a(x), net.b(x))),
            a=nn.Linear(3, 16),
            b=nn.Linear(3, 12),
            m=nn.Bilinear(16, 12, 10),
            c=nn.Linear(10, 4),
        ),
        lambda: (torch.randn(5, 3),),
    ),
]
