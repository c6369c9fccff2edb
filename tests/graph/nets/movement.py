"""Operators that move data: splits, joins, reshapes, permutations, indexing."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, Net, between, conv


def _shuffle(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def _c2f(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    parts = list(x.chunk(2, 1))
    parts.append(net.m(parts[-1]))
    return torch.cat(parts, 1)


def _window(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    x = net.m(x)
    return x.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)


def _focus(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def _flat(n_in: int, forward: object) -> object:
    return lambda: Net(forward, first=conv(3, 16), last=nn.Linear(n_in, 4))


CASES = [
    Case("chunk", between(_c2f, 24, m=lambda: conv(8, 8, 3))),
    Case("split by the width's half", between(lambda net, x: torch.cat(x.split(x.shape[1] // 2, 1)[::-1], 1))),
    Case("split and use one half", between(lambda net, x: x.split(x.shape[1] // 2, 1)[1], 8)),
    Case(
        "split at fixed sizes", between(lambda net, x: net.m(x.split([4, 12], 1)[1]), m=lambda: conv(12, 16)), share=0.5
    ),
    Case("slice up to a fixed place", between(lambda net, x: x[:, :4] * x[:, 4:5], 4), share=11 / 16),
    Case("slice from the half on", between(lambda net, x: x[:, x.shape[1] // 2 :], 8)),
    Case("slice a quarter by narrow", between(lambda net, x: x.narrow(1, 0, x.size(1) // 4), 4)),
    Case("strided slice", between(lambda net, x: x[:, ::2] + x[:, 1::2], 8)),
    Case("channels joined", between(lambda net, x: torch.cat([x, net.m(x), x], 1), 40, m=lambda: conv(16, 8))),
    Case(
        "joined with the network's input",
        lambda: Net(lambda net, x: net.b(torch.cat([net.a(x), x], 1)), a=conv(3, 16), b=conv(19, 4)),
    ),
    Case("stack and sum", between(lambda net, x: torch.stack([x, net.m(x)]).sum(0), m=lambda: conv(16, 16))),
    Case(
        "stack last and flatten",
        between(lambda net, x: torch.stack([x, net.m(x)], 2).flatten(1, 2), 32, m=lambda: conv(16, 16)),
    ),
    Case(
        "channel shuffle into groups",  # which makes one of the 16 channels before
        between(lambda net, x: net.m(_shuffle(net, x)), m=lambda: conv(16, 16, 3, groups=4)),
        share=16 / 17,
    ),
    Case("channel shuffle", between(_shuffle)),
    Case("nn.ChannelShuffle", between(lambda net, x: net.m(x), m=lambda: nn.ChannelShuffle(4))),
    Case("pixel shuffle", between(lambda net, x: F.pixel_shuffle(x, 2), 4)),
    Case("pixel unshuffle", between(lambda net, x: F.pixel_unshuffle(x, 2), 64)),
    Case("focus", between(_focus, 64)),
    Case("window partition", between(_window, m=lambda: nn.Linear(16, 16))),
    Case("flatten NCHW", _flat(16 * 36, lambda net, x: net.last(net.first(x).flatten(1)))),
    Case("flatten NHWC", _flat(16 * 36, lambda net, x: net.last(net.first(x).permute(0, 2, 3, 1).flatten(1)))),
    Case("view to minus one", _flat(16 * 36, lambda net, x: net.last((x := net.first(x)).view(len(x), -1)))),
    Case(
        "view to a product of the shape",
        _flat(16 * 36, lambda net, x: net.last((x := net.first(x)).view(-1, x.shape[1] * x.shape[2] * x.shape[3]))),
    ),
    Case("unflatten and flatten", between(lambda net, x: x.unflatten(1, (-1, 4)).flatten(1, 2))),
    Case("permute", between(lambda net, x: x.permute(0, 2, 3, 1).movedim(-1, 1).transpose(2, 3))),
    Case("squeeze and unsqueeze", between(lambda net, x: x.unsqueeze(1).squeeze(1)[:, :, None].squeeze(2))),
    Case("expand", between(lambda net, x: x.mean((2, 3), True).expand(-1, -1, 6, 6) + x)),
    Case("expand to own shape", between(lambda net, x: x.mean((2, 3), True).expand_as(x) * x)),
    Case("repeat", between(lambda net, x: x.repeat(1, 2, 1, 1), 32)),
    Case("repeat_interleave", between(lambda net, x: x.repeat_interleave(2, 1), 32)),
    Case("tile", between(lambda net, x: x.tile(1, 2, 1, 1), 32)),
    Case("unbind channels in pairs", between(lambda net, x: torch.cat(x.unflatten(1, (2, -1)).unbind(1), 1))),
    Case("flip channels", between(lambda net, x: x.flip(1))),
    Case("flip positions", between(lambda net, x: x.flip(3))),
    Case("roll positions", between(lambda net, x: x.roll((1, 2), (2, 3)))),
    Case("roll channels", between(lambda net, x: x.roll(3, 1)), share=0.0),  # a fixed number: it cannot follow
    Case(
        "index_select channels", between(lambda net, x: x.index_select(1, net.i), i=torch.arange(15, -1, -1)), share=0.0
    ),
    Case("index channels by a list", between(lambda net, x: x[:, [1, 0, 3, 2]], 4), share=0.0),
    Case("index positions", between(lambda net, x: x[:, :, [1, 0, 3]])),
    Case(
        "gather positions",
        between(lambda net, x: x.gather(3, net.i.expand(2, x.shape[1], 6, 2)), i=torch.tensor([[[[1, 0]]]])),
    ),
    Case("masked positions", between(lambda net, x: x.masked_fill(net.m, 0.5), m=torch.eye(6).bool())),
    Case("pad positions", between(lambda net, x: F.pad(x, (1, 1, 1, 1)))),
    Case("reflection pad", between(lambda net, x: F.pad(x, (1, 1, 1, 1), mode="reflect"))),
    Case("pad channels", between(lambda net, x: F.pad(x, (0, 0, 0, 0, 2, 2)), 20)),
    Case(
        "unfold",
        lambda: Net(lambda net, x: net.b(F.unfold(net.a(x), 3).transpose(1, 2)), a=conv(3, 16), b=nn.Linear(144, 4)),
    ),
    Case("unfold and fold", between(lambda net, x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2))),
    Case("Tensor.unfold over positions", between(lambda net, x: x.unfold(2, 2, 2).flatten(3))),
    Case(
        "interpolate",
        between(lambda net, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, (12, 12), mode="bilinear")),
    ),
    Case(
        "grid_sample",
        between(lambda net, x: F.grid_sample(x, net.g, align_corners=False), g=torch.rand(2, 4, 4, 2) - 0.5),
    ),
    Case("pools", between(lambda net, x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 1))),
    Case("written into a part of zeros", between(lambda net, x: _written(x))),
    Case("diagonal of positions", between(lambda net, x: x.diagonal(dim1=2, dim2=3)[..., None])),
]


def _written(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape[0], x.shape[1], 8, 8, dtype=x.dtype)
    out[:, :, 1:7, 1:7] = x
    return out
