"""Sizes that the code fixes, or that follow from the width of something else; own modules."""

from __future__ import annotations

import torch
from torch import nn

from tests.graph.nets.case import Case, Net, between, conv


class Halved(nn.Conv2d):
    """A layer of torch's with a forward of its own, which reads what no handler knows."""

    def __init__(self) -> None:
        super().__init__(3, 16, 1)
        self.half = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x[:, : self.half] * x[:, self.half :]


class Wrapped(nn.Module):
    """A module of one's own, with a submodule and a constant that no channel depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gain = nn.ModuleDict({"a": conv(16, 8), "b": conv(8, 16)}), 0.5

    def forward(self, x: torch.Tensor, *, twice: bool = False) -> torch.Tensor:
        y = self.inner["b"](self.inner["a"](x).relu()) * self.gain
        return self.forward(x + y) if twice else x + y


CASES = [
    Case(
        "view at a fixed width",
        lambda: Net(
            lambda net, x: net.last(net.first(x).view(-1, 16 * 36)), first=conv(3, 16), last=nn.Linear(16 * 36, 4)
        ),
        share=0.0,
    ),
    Case(
        "view that would take from the positions",
        between(lambda net, x: x.view(len(x), 16, -1)[..., :36].unflatten(2, (6, 6))),
        share=0.0,
    ),
    Case("view in fixed groups", between(lambda net, x: x.view(len(x), 4, -1, 6, 6).sum(1), 4)),
    Case("view in groups of fixed size", between(lambda net, x: x.view(len(x), -1, 4, 6, 6).sum(2), 4)),
    Case("view to both fixed", between(lambda net, x: x.view(len(x), 4, 4, 6, 6).sum(1), 4), share=0.0),
    Case("size as a number", between(lambda net, x: x / x.shape[1]), share=0.0),
    Case("root of a size", between(lambda net, x: x * x.size(1) ** -0.5), share=0.0),
    Case("size in a tensor", between(lambda net, x: x * torch.tensor(x.shape[1])), share=0.0),
    Case(
        "zeros of the input's width",
        between(lambda net, x: torch.cat([x, torch.zeros(2, x.shape[1], 6, 6, dtype=x.dtype)], 1), 32),
    ),
    Case("zeros of a fixed width", between(lambda net, x: x + torch.zeros(16, 1, 1, dtype=x.dtype)), share=0.0),
    Case(
        "width of one branch cuts another",
        between(lambda net, x: net.m(x).view(len(x), 2, x.shape[1], 6, 6).sum(1) * x, m=lambda: conv(16, 32)),
    ),
    Case(
        "width of one layer sizes another",
        lambda: Net(
            lambda net, x: net.c(net.b(x)[:, : net.a(x).shape[1]]) + net.d(net.a(x)),
            a=conv(3, 8),
            b=conv(3, 16),
            c=conv(8, 4),
            d=conv(8, 4),
        ),
        share=1.0,
    ),
    Case("own module", between(lambda net, x: net.m(x), m=Wrapped)),
    Case("subclass of a layer", lambda: nn.Sequential(Halved(), conv(8, 4)), share=0.0),
    Case("windows of channels", between(lambda net, x: x.unfold(1, 2, 2).sum(-1), 8), share=0.0),
    Case("a module without modules", between(lambda net, x: x + net.m(x), m=lambda: nn.Sequential())),
    Case("own module called in itself", between(lambda net, x: net.m(x, twice=True), m=Wrapped)),
    Case("branch on the width", between(lambda net, x: x.relu() if x.shape[1] > 2 else x)),
]
