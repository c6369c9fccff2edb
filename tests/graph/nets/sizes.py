"""Widths that the model's code reads, as a size that follows or as a number that would not."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, Net, between, conv, tokens


@dataclass
class Boxes:
    """An output that is no container of PyTorch's."""

    logits: Tensor
    name: str = "boxes"


class Slots:
    """An output without a dictionary of attributes."""

    __slots__ = ("logits", "more")

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class PlainNorm(nn.Module):
    """The layer norm of ConvNeXt's own code, with a width that nothing keeps up to date."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.normalized_shape = (width,)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias)


class LastNorm(nn.LayerNorm):
    """A subclass with a forward of its own, which reads the attribute that a handler keeps up to date."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias).movedim(-1, 1)


def _wrapped(wrap: object) -> object:
    return lambda: Net(lambda net, x: wrap(net.b(net.a(x))), a=conv(3, 16), b=conv(16, 6))


def _linear(middle: object, **parts: object) -> object:
    return lambda: Net(
        lambda net, x: net.b(middle(net, net.a(x))),
        a=nn.Linear(8, 16),
        b=nn.Linear(16, 4),
        **{k: p() for k, p in parts.items()},
    )


def _write_half(net: nn.Module, x: Tensor) -> Tensor:
    x = x.clone()
    half = x.shape[1] // 2
    x[:, :half] = net.m(x[:, :half])
    return x


def _write_all(x: Tensor) -> Tensor:
    x = x.clone()
    x[:] = torch.ones(16, 1, 1, dtype=x.dtype)
    return x


def _in_fours(x: Tensor) -> Tensor:
    return x if x.shape[1] % 4 == 0 else x.clone()


def _hidden(net: nn.Module, x: Tensor) -> Tensor:
    y, n = net.r(x)[0], net.r.hidden_size
    return net.b(y[..., :n] + y[..., n:])


CASES = [
    Case("a dataclass as output", _wrapped(Boxes)),
    Case("a namespace as output", _wrapped(lambda x: SimpleNamespace(deep=[{"logits": x}]))),
    Case("an object with slots as output", _wrapped(Slots)),
    Case("NumPy's root of a size", between(lambda net, x: x / np.sqrt(x.shape[1])), share=0.0),
    Case("NumPy's number by a size", between(lambda net, x: x * (np.float64(1) / x.shape[1])), share=0.0),
    Case("NumPy's product of a shape", between(lambda net, x: x / float(np.prod(x.shape[1:]))), share=0.0),
    Case("number of elements of a part of a shape", between(lambda net, x: x / x.shape[1:].numel()), share=0.0),
    Case("length of a tensor", between(lambda net, x: x / len(x[0])), share=0.0),
    Case("constant of a size's value", between(lambda net, x: x + torch.full((1,), x.shape[1]).to(x)), share=0.0),
    Case(
        "padding by a size",
        between(
            lambda net, x: F.conv2d(x, net.k, padding=x.shape[1] // 16)[..., :6, :6],
            k=lambda: nn.Parameter(torch.randn(16, 16, 3, 3)),
        ),
        share=0.5,
    ),
    Case(
        "a layer's width as a number", _linear(lambda net, x: x * net.a.out_features**-0.5), inputs=tokens(), share=0.0
    ),
    Case(
        "an embedding's width as a number",
        lambda: Net(
            lambda net, x: net.b(net.a(x) * net.a.embedding_dim**0.5), a=nn.Embedding(9, 16), b=nn.Linear(16, 4)
        ),
        lambda: (torch.randint(9, (2, 5)),),
        share=0.0,
    ),
    Case(
        "a layer's width as a size",
        _linear(lambda net, x: x.view(2, 5, net.a.out_features // 4, 4).flatten(2)),
        tokens(),
    ),
    Case(
        "a recurrent layer's width cuts its directions",
        lambda: Net(_hidden, r=nn.GRU(8, 6, bidirectional=True, batch_first=True), b=nn.Linear(6, 4)),
        tokens(),
    ),
    Case(
        "layer norm at a fixed shape",
        _linear(lambda net, x: net.m(x), m=lambda: PlainNorm(16)),
        tokens(),
        share=0.0,
        statistics=True,
    ),
    Case("layer norm of a subclass", between(lambda net, x: net.m(x), m=lambda: LastNorm(16)), statistics=True),
    Case(
        "RMS norm without a weight",
        _linear(lambda net, x: net.m(x), m=lambda: nn.RMSNorm(16, elementwise_affine=False)),
        tokens(),
        share=0.0,
        statistics=True,
    ),
    Case(
        "RMS norm at a fixed shape",
        _linear(lambda net, x: F.rms_norm(x, (16,), net.w), w=lambda: nn.Parameter(torch.ones(16))),
        tokens(),
        share=0.0,
        statistics=True,
    ),
    Case(
        "RMS norm at the shape that comes",
        _linear(lambda net, x: F.rms_norm(x, x.shape[-1:], net.w), w=lambda: nn.Parameter(torch.ones(16))),
        tokens(),
        statistics=True,
    ),
    Case(
        "groups of one channel without weights",
        between(lambda net, x: net.m(x), m=lambda: nn.GroupNorm(16, 16, affine=False)),
        share=0.0,
    ),
    Case("groups of one channel", between(lambda net, x: net.m(x), m=lambda: nn.GroupNorm(16, 16))),
    Case(
        "as many groups as channels allow",
        between(lambda net, x: F.group_norm(x, x.shape[1] // 4)),
        share=0.0,
        statistics=True,
    ),
    Case(
        "depthwise kernels in a fixed number",
        between(
            lambda net, x: F.conv2d(x, net.k, padding=1, groups=16), k=lambda: nn.Parameter(torch.randn(16, 1, 3, 3))
        ),
        share=0.0,
    ),
    Case(
        "depthwise kernels in the number that comes",
        between(
            lambda net, x: F.conv2d(x, net.k, padding=1, groups=x.shape[1]),
            k=lambda: nn.Parameter(torch.randn(16, 1, 3, 3)),
        ),
    ),
    Case(
        "depthwise kernels of a transposed convolution",
        between(
            lambda net, x: F.conv_transpose2d(x, net.k, padding=1, groups=16),
            k=lambda: nn.Parameter(torch.randn(16, 1, 3, 3)),
        ),
        share=0.0,
    ),
    Case(
        "groups of four, as many as there are",
        between(
            lambda net, x: F.conv2d(x, net.k, groups=x.shape[1] // 4), k=lambda: nn.Parameter(torch.randn(16, 4, 1, 1))
        ),
        share=16 / 20,
    ),
    Case(
        "the shape of another tensor",
        _linear(lambda net, x: net.m(x).flatten(1).view_as(x), m=lambda: nn.Linear(16, 16)),
        tokens(),
    ),
    Case(
        "the shape of a constant",
        _linear(lambda net, x: x.flatten(1).view_as(net.c), c=lambda: torch.zeros(2, 5, 16)),
        tokens(),
        share=0.0,
    ),
    Case(
        "expanded as another tensor",
        between(lambda net, x: torch.cat([x, x.mean(1, keepdim=True).expand_as(x)], 1), 32),
        statistics=True,
    ),
    Case(
        "a gate expanded as what it meets",
        between(lambda net, x: x * net.m(x).sigmoid().expand_as(x), m=lambda: conv(16, 1)),
    ),
    Case(
        "a gate broadcast to the shape that comes",
        between(lambda net, x: x * net.m(x).sigmoid().broadcast_to(x.shape), m=lambda: conv(16, 1)),
    ),
    Case(
        "a gate broadcast to a fixed shape",
        between(lambda net, x: x * net.m(x).sigmoid().broadcast_to(2, 16, 6, 6), m=lambda: conv(16, 1)),
        share=0.0,
    ),
    Case(
        "a gate repeated a fixed number of times",
        between(lambda net, x: x * net.m(x).sigmoid().repeat_interleave(16, 1), m=lambda: conv(16, 1)),
        share=0.0,
    ),
    Case(
        "product with an input",
        lambda: Net(lambda net, x, text: net.a(x) @ text.mT, a=nn.Linear(8, 16)),
        lambda: (torch.randn(2, 5, 8), torch.randn(2, 7, 16)),
        share=0.0,
    ),
    Case("a part written over", between(_write_half, m=lambda: conv(8, 8))),
    Case(
        "written over by a constant",
        between(lambda net, x: x.clone().copy_(torch.ones(16, 1, 1, dtype=x.dtype))),
        share=0.0,
        constant=True,
    ),
    Case("all written over by a constant", between(lambda net, x: torch.cat([x, _write_all(x)], 1), 32), share=0.0),
    Case("numbers that NumPy reads", between(lambda net, x: x * float(x.detach().numpy().max(1).mean())), share=0.0),
    Case("remainder of a size", between(lambda net, x: x * (x.shape[1] % 3)), share=0.0),
    Case("no remainder of a size", between(lambda net, x: _in_fours(x))),
    Case(
        "a view under vmap",
        _linear(lambda net, x: torch.vmap(lambda row: row.view(5, 4, 4).flatten(1))(x)),
        tokens(),
        share=0.0,
    ),
    Case("cut in equal tensors", between(lambda net, x: torch.cat(x.tensor_split(2, 1)[::-1], 1))),
    Case("every second of the first half", between(lambda net, x: x[:, :8:2], 4), share=0.0),
    Case(
        "a slice behind an index and an ellipsis",
        lambda: Net(
            lambda net, x: net.c(net.b(net.a(x))[0, ..., 4:8]),
            a=nn.Linear(8, 16),
            b=nn.Linear(16, 12),
            c=nn.Linear(4, 4),
        ),
        tokens(),
        share=20 / 28,
    ),
    Case("padding that cuts", between(lambda net, x: F.pad(x, (0, 0, 0, 0, 0, -8)), 8), share=0.0),
    Case(
        "patches without a batch",
        lambda: Net(lambda net, x: net.b(F.unfold(net.a(x[0]), 3).T), a=conv(3, 16), b=nn.Linear(144, 4)),
    ),
    Case("noise of the shape that comes", between(lambda net, x: x + 0 * torch.randn(x.shape, dtype=x.dtype))),
    Case(
        "an encoder and a decoder",
        lambda: Net(
            lambda net, x, y: net.c(net.t(net.a(x), net.a(y))),
            a=nn.Linear(8, 16),
            t=nn.Transformer(16, 4, 1, 1, 24, batch_first=True),
            c=nn.Linear(16, 4),
        ),
        lambda: (torch.randn(2, 5, 8), torch.randn(2, 3, 8)),
        statistics=True,
    ),
]
