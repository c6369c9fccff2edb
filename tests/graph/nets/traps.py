"""Patterns in which channels look free and are not, or look bound and are free."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, Net, between, conv, tokens


def _after_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    view = y.view(len(x), -1, 36)
    y.add_(1)
    return view.sum(1, keepdim=True).view(len(x), 1, 6, 6)


def _one_written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 3] = 1.0
    return y


def _to_space(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)


def _hyper(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    kernels = net.k(x.mean((2, 3))).view(-1, 1, 3, 3)
    return F.conv2d(x.reshape(1, -1, 6, 6), kernels, padding=1, groups=x.shape[0] * x.shape[1]).view_as(x)


def _grouped(operator: object, width: int = 16) -> object:
    return between(lambda net, x: operator(x.view(len(x), 4, -1, 6, 6)).reshape(len(x), -1, 6, 6), width)


class Complex(nn.Module):
    """Rotary embedding by complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 4)

    @staticmethod
    def turn(x: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(20, dtype=x.dtype).view(5, 1, 4)
        y = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(y).flatten(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], -1, 8) for layer in (self.q, self.k, self.v))
        q, k, v = (t.transpose(1, 2) for t in (self.turn(q), self.turn(k), v))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Codes(nn.Module):
    """The nearest of some code vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.codes, self.b = nn.Linear(8, 16), nn.Parameter(torch.randn(7, 16)), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(
            F.embedding(torch.cdist(x.flatten(0, 1), self.codes).argmin(-1), self.codes).view(*x.shape[:2], -1) + x
        )


CASES = [
    Case("written after a view was taken", between(lambda net, x: _after_a_view(x), 1), share=0.0),
    Case("one channel written", between(lambda net, x: _one_written(x)), share=12 / 16),
    Case(
        "convolution over channels",
        between(
            lambda net, x: x * net.m(x.mean((2, 3))[:, None]).sigmoid().view(len(x), -1, 1, 1),
            m=lambda: nn.Conv1d(1, 1, 3, padding=1),
        ),
        share=0.0,
    ),
    Case(
        "convolution over channels at the end",
        lambda: Net(
            lambda net, x: net.m(net.a(x).mean((2, 3))[:, None]), a=conv(3, 16), m=nn.Conv1d(1, 1, 3, padding=1)
        ),
        share=0.0,
    ),
    Case(
        "pool over channels",
        between(lambda net, x: F.avg_pool1d(x.flatten(2).mT, 2).mT.unflatten(2, (6, 6)), 8),
        share=0.0,
    ),
    Case(
        "attention between channels",
        between(lambda net, x: (((y := x.flatten(2)) @ y.mT).softmax(-1) @ y).view_as(x) + x),
        share=0.0,
    ),
    Case(
        "attention between positions",
        between(lambda net, x: torch.bmm(y := x.flatten(2), (y.mT @ y).softmax(-1)).unflatten(2, (6, 6))),
    ),
    Case(
        "Gram matrix",
        lambda: Net(
            lambda net, x: net.b(((y := net.a(x).flatten(2)) @ y.mT).flatten(1)), a=conv(3, 6), b=nn.Linear(36, 4)
        ),
        share=0.0,
    ),
    Case("positions to channels by a view", between(lambda net, x: x.reshape(len(x), -1, 3, 3), 64)),
    Case("channels to positions by a view", between(lambda net, x: x.reshape(len(x), x.shape[1] // 4, 12, 12), 4)),
    Case("channels to positions, block first", between(_to_space, 4)),
    Case(
        "interleave and cut in halves",
        between(
            lambda net, x: torch.cat(torch.stack([x, net.m(x)], 2).flatten(1, 2).chunk(2, 1)[::-1], 1),
            32,
            m=lambda: conv(16, 16),
        ),
    ),
    Case(
        "group norm after a shuffle",
        between(
            lambda net, x: net.m(x.view(len(x), 4, -1, 6, 6).transpose(1, 2).flatten(1, 2)),
            m=lambda: nn.GroupNorm(2, 16),
        ),
        statistics=True,
    ),
    Case(
        "group norm across a join",
        between(lambda net, x: net.m(torch.cat([x.chunk(4, 1)[2], x], 1)), 20, m=lambda: nn.GroupNorm(5, 20)),
        statistics=True,
    ),
    Case(
        "chunk into three unequal parts",
        between(lambda net, x: net.m(x).chunk(3, 1)[2], 6, m=lambda: conv(16, 22)),
        share=16 / 38,
    ),
    Case("softmax over groups", _grouped(lambda x: x.softmax(1))),
    Case("cumulative sum over groups", _grouped(lambda x: x.cumsum(1))),
    Case("groups flipped", _grouped(lambda x: x.flip(1))),
    Case("groups reordered", _grouped(lambda x: x[:, [3, 1, 0, 2]]), share=0.0),
    Case("one group taken", _grouped(lambda x: x[:, 2], 4)),
    Case("kernels made from the input, depthwise", between(_hyper, k=lambda: nn.Linear(16, 144))),
    Case(
        "instance norm modulated by a layer",
        lambda: Net(
            lambda net, x: net.c(F.instance_norm(net.a(x)) * net.f(x.mean((2, 3))).view(len(x), -1, 1, 1)),
            a=conv(3, 16),
            f=nn.Linear(3, 16),
            c=conv(16, 4),
        ),
    ),
    Case(
        "modulated by halves of a layer",
        lambda: Net(
            lambda net, x: net.c(net.a(x) * (f := net.f(x.mean(1)).chunk(2, -1))[0][:, None] + f[1][:, None]),
            a=nn.Linear(8, 16),
            f=nn.Linear(8, 32),
            c=nn.Linear(16, 4),
        ),
        tokens(),
    ),
    Case(
        "low-rank addition",
        lambda: Net(
            lambda net, x: net.c(net.a(x) + net.u(net.d(x)) * 2),
            a=nn.Linear(8, 16),
            d=nn.Linear(8, 4),
            u=nn.Linear(4, 16),
            c=nn.Linear(16, 4),
        ),
        tokens(),
    ),
    Case(
        "layer over positions",
        lambda: Net(
            lambda net, x: net.c(net.m((y := net.a(x)).mT).mT + y),
            a=nn.Linear(8, 16),
            m=nn.Linear(5, 5),
            c=nn.Linear(16, 4),
        ),
        tokens(),
        share=16 / 21,
    ),  # but for the positions
    Case(
        "cosine classifier",
        lambda: Net(
            lambda net, x: F.normalize(net.a(x), dim=-1) @ F.normalize(net.w, dim=0),
            a=nn.Linear(8, 16),
            w=nn.Parameter(torch.randn(16, 4)),
        ),
        tokens(),
    ),
    Case(
        "distances",
        lambda: Net(lambda net, x: net.c(torch.cdist(y := net.a(x), y)), a=nn.Linear(8, 16), c=nn.Linear(5, 4)),
        tokens(),
    ),
    Case("nearest code", Codes, tokens()),
    Case("rotary embedding by complex numbers", Complex, tokens()),
    Case(
        "recurrence over channels",
        lambda: Net(
            lambda net, x: net.c(net.m(net.a(x).mT)[0].mean(1)),
            a=nn.Linear(8, 16),
            m=nn.LSTM(5, 6, batch_first=True),
            c=nn.Linear(6, 4),
        ),
        tokens(),
        share=6 / 22,
    ),
    Case(
        "three copies cut in halves",
        between(lambda net, x: torch.cat(torch.cat([x, x, x], 1).chunk(2, 1)[::-1], 1), 48),
        share=0.0,
    ),
    Case(
        "three copies viewed as halves",
        between(lambda net, x: x.repeat(1, 3, 1, 1).view(2, 2, -1, 36).sum(2).unflatten(2, (6, 6)), 2),
        share=0.0,
    ),
    Case("sum of powers of two", between(lambda net, x: (2**x).sum(1, keepdim=True), 1), share=0.0),
    Case("sum of powers of nought", between(lambda net, x: (x**0).sum(1, keepdim=True), 1), share=0.0, constant=True),
    Case("sum of squares", between(lambda net, x: (x**2).sum(1, keepdim=True), 1)),
    Case(
        "sum of what is cut off below nought",
        between(lambda net, x: x.clamp_max(-0.5).sum(1, keepdim=True), 1),
        share=0.0,
    ),
    Case(
        "sum of what is cut off far below",
        between(lambda net, x: F.hardtanh(x, -2, -1).sum(1, keepdim=True), 1),
        share=0.0,
    ),
    Case("sum of what is cut off at nought", between(lambda net, x: x.clamp(min=0).sum(1, keepdim=True), 1)),
    Case(
        "sum of a mask of the largest",
        between(lambda net, x: torch.zeros_like(x).scatter_(2, x.topk(2, 2)[1], 1.0).sum(1, keepdim=True), 1),
        share=0.0,
    ),
    Case("mask of the largest", between(lambda net, x: x * torch.zeros_like(x).scatter(2, x.topk(2, 2)[1], 1.0))),
    Case(
        "mask at fixed places",
        between(lambda net, x: x * torch.zeros_like(x).scatter(2, torch.zeros(2, 16, 1, 6, dtype=torch.long), 1.0)),
        share=0.0,
    ),
    Case(
        "mask of some channels",
        between(lambda net, x: x * torch.zeros_like(x).scatter(1, torch.full((2, 1, 6, 6), 3), 1.0)),
        share=0.0,
    ),
    Case(
        "products of normalised rows",
        between(
            lambda net, x: ((y := net.n(x.flatten(2))).mT @ y).unflatten(2, (6, 6)), 36, n=lambda: nn.LayerNorm(36)
        ),
        share=0.0,
    ),
    Case(
        "product of what is not zero",
        lambda: Net(
            lambda net, x: torch.dot(net.a(x).sigmoid(), net.b(x).sigmoid())[None] + net.c(x),
            a=nn.Linear(8, 16),
            b=nn.Linear(8, 16),
            c=nn.Linear(8, 1),
        ),
        lambda: (torch.randn(8),),
        share=0.0,
    ),
    Case(
        "product with a bias",
        lambda: Net(
            lambda net, x: net.b(torch.addmv(net.bias, net.w, net.a(x))),
            a=nn.Linear(8, 16),
            bias=nn.Parameter(torch.randn(12)),
            w=nn.Parameter(torch.randn(12, 16)),
            b=nn.Linear(12, 4),
        ),
        lambda: (torch.randn(8),),
    ),
    Case(
        "the least of all channels",
        between(lambda net, x: torch.linalg.vector_norm(x, -torch.inf, 1, keepdim=True), 1),
        share=0.0,
    ),
    Case(
        "the largest of all channels",
        between(lambda net, x: torch.linalg.vector_norm(x, torch.inf, 1, keepdim=True), 1),
    ),
    Case("masked in place", between(lambda net, x: x.clone().masked_fill_(torch.eye(6) > 0, -1.0))),
]
