"""Arithmetic, gates and reductions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, Net, between, conv


class Swiglu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        return x * self.up(self.down(y).relu()).sigmoid().view(b, c, 1, 1).expand_as(x)


def _select_kernels(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    both = torch.stack([net.m(x), net.n(x)], 1)
    weight = net.w(both.sum(1).mean((2, 3))).view(len(x), 2, -1, 1, 1).softmax(1)
    return (both * weight).sum(1)


CASES = [
    Case("residual", between(lambda net, x: x + net.m(x), m=lambda: conv(16, 16))),
    Case("product of branches", between(lambda net, x: x * net.m(x).sigmoid(), m=lambda: conv(16, 16))),
    Case(
        "sum at the network's input",
        lambda: Net(lambda net, x: net.b(x + net.a(x)), a=conv(3, 3), b=conv(3, 4)),
        share=0.0,
    ),  # the image has no owner
    Case("broadcast of one channel", between(lambda net, x: x * net.m(x).sigmoid(), m=lambda: conv(16, 1)), share=1.0),
    *(
        Case(f"{layer.__name__}, in place", between(lambda net, x: net.m(x), m=lambda layer=layer: layer(inplace=True)))
        for layer in (nn.CELU, nn.ELU, nn.Hardsigmoid, nn.Hardswish, nn.LeakyReLU, nn.Mish, nn.ReLU6, nn.SELU, nn.SiLU)
    ),
    *(
        Case(layer.__name__, between(lambda net, x: net.m(x), m=layer))
        for layer in (nn.GELU, nn.Hardshrink, nn.LeakyReLU, nn.LogSigmoid, nn.Softplus, nn.Softshrink, nn.Softsign)
    ),
    Case("absolute values in place", between(lambda net, x: x.abs_())),
    Case("in place", between(lambda net, x: x.mul_(2).add_(net.m(x)).relu_(), m=lambda: conv(16, 16))),
    Case(
        "addcmul and lerp",
        between(lambda net, x: torch.lerp(torch.addcmul(x, x, net.m(x)), x, 0.3), m=lambda: conv(16, 16)),
    ),
    Case("where", between(lambda net, x: torch.where(x > 0, x, net.m(x)), m=lambda: conv(16, 16))),
    Case("maximum of branches", between(lambda net, x: torch.maximum(x, net.m(x)), m=lambda: conv(16, 16))),
    Case("maxout by chunks", between(lambda net, x: torch.maximum(*x.chunk(2, 1)), 8)),
    Case("maxout by view", between(lambda net, x: x.view(len(x), 2, -1, 6, 6).amax(1), 8)),
    Case("GLU", between(lambda net, x: F.glu(x, 1), 8)),
    Case(
        "SwiGLU",
        lambda: Net(lambda net, x: net.c(net.b(net.a(x))), a=nn.Linear(3, 8), b=Swiglu(), c=nn.Linear(8, 4)),
        lambda: (torch.randn(2, 5, 3),),
    ),
    Case("squeeze and excitation", between(lambda net, x: net.m(x), m=Squeeze)),
    Case(
        "selective kernels",
        between(_select_kernels, m=lambda: conv(16, 16, 3), n=lambda: conv(16, 16), w=lambda: nn.Linear(16, 32)),
    ),
    Case("PReLU per channel", between(lambda net, x: net.m(x), m=lambda: nn.PReLU(16))),
    Case("PReLU of one slope", between(lambda net, x: net.m(x), m=lambda: nn.PReLU())),
    Case("spatial mean", between(lambda net, x: x.mean((2, 3), keepdim=True))),
    Case("sum over channels", between(lambda net, x: x.sum(1, keepdim=True), 1)),
    Case(
        "sum over channels of what is not zero", between(lambda net, x: x.sigmoid().sum(1, keepdim=True), 1), share=0.0
    ),
    Case(
        "sum over channels of a gate that is not zero",
        between(lambda net, x: (x.sigmoid() * net.m(x)).sum(1, keepdim=True), 1, m=lambda: conv(16, 1)),
        share=0.0,
    ),
    Case(
        "values that are not zero under weights that are not",
        between(
            lambda net, x: torch.conv2d(x.sigmoid(), net.w - net.w.mean(1, keepdim=True)),
            4,
            w=lambda: nn.Parameter(torch.randn(4, 16, 1, 1)),
        ),
        share=4 / 20,
        statistics=True,
    ),
    Case("mean over channels", between(lambda net, x: x * x.mean(1, keepdim=True).sigmoid()), statistics=True),
    Case("maximum over channels", between(lambda net, x: x * x.amax(1, keepdim=True)), share=0.0),
    Case("L2 normalisation over channels", between(lambda net, x: F.normalize(x, dim=1))),
    Case("softmax over channels", between(lambda net, x: x.softmax(1)), share=0.0),
    Case("softmax over positions", between(lambda net, x: x.flatten(2).softmax(-1).view_as(x))),
    Case(
        "global response normalisation",
        between(lambda net, x: x * (g := x.norm(dim=(2, 3), keepdim=True)) / (g.mean(1, keepdim=True) + 1e-6)),
        statistics=True,
    ),
    Case(
        "einsum over channels",
        between(lambda net, x: torch.einsum("bchw,oc->bohw", x, net.w), w=lambda: nn.Parameter(torch.randn(16, 16))),
    ),
    Case(
        "einsum of branches",
        between(
            lambda net, x: torch.einsum("bcn,bcm->bnm", x.flatten(2), net.m(x).flatten(2)).view(len(x), 36, 6, 6),
            36,
            m=lambda: conv(16, 16),
        ),
    ),
    Case(
        "outer product of branches",  # a feature belongs to two channels
        lambda: Net(
            lambda net, x: net.c(torch.einsum("bi,bj->bij", net.a(x), net.b(x)).flatten(1)),
            a=nn.Linear(3, 8),
            b=nn.Linear(3, 6),
            c=nn.Linear(48, 4),
        ),
        lambda: (torch.randn(5, 3),),
        share=0.0,
    ),
    Case(
        "matmul with a parameter",
        lambda: Net(
            lambda net, x: (x @ net.w).relu() @ net.v,
            w=nn.Parameter(torch.randn(3, 16)),
            v=nn.Parameter(torch.randn(16, 4)),
        ),
        lambda: (torch.randn(2, 5, 3),),
    ),
    Case("dropout", between(lambda net, x: F.dropout2d(F.dropout(x, 0.5, net.training), 0.5, net.training))),
    Case("complex of two halves", between(lambda net, x: torch.cat([(h := x.chunk(2, 1))[0] - h[1], h[0] + h[1]], 1))),
    Case(
        "None among outputs",
        lambda: Net(lambda net, x: {"a": net.b(net.a(x)), "b": None}, a=conv(3, 16), b=conv(16, 4)),
    ),
    Case(
        "two inputs, one absent in the sum",
        lambda: Net(lambda net, x, y: net.c(net.a(x) + net.b(y)), a=conv(3, 16), b=conv(5, 16), c=conv(16, 4)),
        lambda: (torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6)),
    ),
    Case("a layer used twice", between(lambda net, x: net.m(net.m(x).relu()), m=lambda: conv(16, 16))),
    Case("a layer that is not used", between(lambda net, x: x.relu(), m=lambda: conv(16, 16))),
]
