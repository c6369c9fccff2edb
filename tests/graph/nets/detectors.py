"""Blocks of detectors that Ultralytics does not ship: YOLOv7 (Wang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tests.graph.nets.case import Case, Net, between, conv


def _cbs(n_in: int, n_out: int, k: int = 1, stride: int = 1) -> nn.Module:
    return nn.Sequential(conv(n_in, n_out, k, stride=stride, bias=False), nn.BatchNorm2d(n_out), nn.SiLU())


class Elan(nn.Module):
    def __init__(self, n_in: int, n_out: int, hidden: int = 8) -> None:
        super().__init__()
        self.aside, self.first = _cbs(n_in, hidden), _cbs(n_in, hidden)
        self.chain = nn.ModuleList(_cbs(hidden, hidden, 3) for _ in range(4))
        self.last = _cbs(4 * hidden, n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.first(x)]
        for layer in self.chain:
            y.append(layer(y[-1]))
        return self.last(torch.cat([y[4], y[2], y[0], self.aside(x)], 1))


class Downsampling(nn.Module):
    """Two halves: a maximum and a convolution with a stride."""

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        self.pooled = nn.Sequential(nn.MaxPool2d(2), _cbs(n_in, hidden))
        self.strided = nn.Sequential(_cbs(n_in, hidden), _cbs(hidden, hidden, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(x), self.pooled(x)], 1)


class Sppcspc(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.before = nn.Sequential(_cbs(n_in, n_out), _cbs(n_out, n_out, 3), _cbs(n_out, n_out))
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.after = nn.Sequential(_cbs(4 * n_out, n_out), _cbs(n_out, n_out, 3))
        self.aside, self.last = _cbs(n_in, n_out), _cbs(2 * n_out, n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        y = self.after(torch.cat([y, *(pool(y) for pool in self.pools)], 1))
        return self.last(torch.cat([y, self.aside(x)], 1))


class RepConv(nn.Module):
    """A 3 × 3 and a 1 × 1 convolution, and the input itself where the widths are the same, each with its own norm."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.wide, self.narrow = _cbs(n_in, n_out, 3)[:2], _cbs(n_in, n_out)[:2]
        self.identity = nn.BatchNorm2d(n_in) if n_in == n_out else None

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.wide(x) + self.narrow(x) + (self.identity(x) if self.identity else 0))


class Detect(nn.Module):
    """IDetect: implicit knowledge is added to what enters a scale's convolution and multiplies what leaves it."""

    def __init__(self, classes: int, widths: Iterable[int]) -> None:
        super().__init__()
        self.each = classes + 5
        self.convolutions = nn.ModuleList(conv(width, 3 * self.each) for width in widths)
        self.added = nn.ParameterList(torch.randn(1, width, 1, 1) for width in widths)
        self.factors = nn.ParameterList(torch.randn(1, 3 * self.each, 1, 1) for _ in widths)
        self.register_buffer("anchors", torch.rand(len(self.convolutions), 1, 3, 1, 1, 2))

    def forward(self, scales: list[Tensor]) -> Tensor:
        found = []
        for i, x in enumerate(scales):
            y = self.factors[i] * self.convolutions[i](x + self.added[i])
            n, _, rows, columns = y.shape
            y = y.view(n, 3, self.each, rows, columns).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            grid = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), 2)
            y[..., :2] = (y[..., :2] * 2 - 0.5 + grid) * 8 * 2**i
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchors[i]
            found.append(y.view(n, -1, self.each))
        return torch.cat(found, 1)


CASES = [
    Case("ELAN of YOLOv7", between(lambda net, x: net.m(x), m=lambda: Elan(16, 16))),
    Case("downsampling of YOLOv7", between(lambda net, x: net.m(x), m=lambda: Downsampling(16, 8))),
    Case("SPPCSPC of YOLOv7", between(lambda net, x: net.m(x), m=lambda: Sppcspc(16, 16))),
    Case("RepConv of YOLOv7", between(lambda net, x: net.m(x), m=lambda: RepConv(16, 16))),
    Case("RepConv of YOLOv7 to another width", between(lambda net, x: net.m(x), 12, m=lambda: RepConv(16, 12))),
    Case(
        "IDetect of YOLOv7",
        lambda: Net(
            lambda net, x: net.head([net.fine(x), net.coarse(x)]),
            fine=conv(3, 16),
            coarse=conv(3, 16, 3, stride=2),
            head=Detect(2, (16, 16)),
        ),
        share=32 / 33,  # but for the anchors' scales
    ),
]
