"""Parameters outside of layers, shared and parametrised ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, weight_norm

from tests.graph.nets.case import Case, Net, between, conv


class Symmetric(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w + w.transpose(0, 1)


class Doubled(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return 2 * w.tanh()


class Patches(nn.Module):
    """Patch embedding, class token, position embedding: the front of a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 16, 2, 2)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 10, 16))
        self.scale = nn.Parameter(torch.rand(16))
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        x = x + self.scale * self.down(self.up(x).relu())
        return self.head(x[:, 0])


def _tied_embedding() -> nn.Module:
    net = Net(lambda net, i: net.head(net.m(net.embed(i)).relu()), embed=nn.Embedding(20, 16), m=nn.Linear(16, 16))
    net.head = nn.Linear(16, 20, bias=False)
    net.head.weight = net.embed.weight
    return net


def _tied_autoencoder() -> nn.Module:
    return Net(
        lambda net, x: (x @ net.w.t() + net.b).relu() @ net.w,
        w=nn.Parameter(torch.randn(16, 3)),
        b=nn.Parameter(torch.randn(16)),
    )


def _with_plain_weight_norm() -> nn.Module:
    with torch.no_grad():  # torch cannot copy a model in which the weight has a gradient
        return weight_norm(conv(16, 16, 3))


def _standardised(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    w = F.batch_norm(net.w.reshape(1, net.w.shape[0], -1), None, None, training=True, eps=1e-6).reshape_as(net.w)
    return torch.conv2d(x, w)


CASES = [
    Case(
        "layer scale",
        between(
            lambda net, x: x + net.s * net.m(x), s=lambda: nn.Parameter(torch.rand(16, 1, 1)), m=lambda: conv(16, 16)
        ),
    ),
    Case("class token, position embedding, layer scale", Patches, constant=True),
    Case(
        "parameter as bias",
        between(lambda net, x: x + net.b[None, :, None, None], b=lambda: nn.Parameter(torch.rand(16))),
    ),
    Case("parameter of one value", between(lambda net, x: x * net.s, s=lambda: nn.Parameter(torch.rand(1)))),
    Case(
        "parameter list",
        between(
            lambda net, x: x * net.s[0] + net.s[1],
            s=lambda: nn.ParameterList([torch.rand(16, 1, 1), torch.rand(16, 1, 1)]),
        ),
    ),
    Case("embedding tied to the classifier", _tied_embedding, lambda: (torch.randint(0, 20, (2, 5)),), share=16 / 36),
    Case("tied autoencoder", _tied_autoencoder, lambda: (torch.randn(5, 3),), share=16 / 19),
    Case(
        "weight norm", between(lambda net, x: net.m(x).relu(), m=lambda: parametrizations.weight_norm(conv(16, 16, 3)))
    ),
    Case("weight norm of the old kind", between(lambda net, x: net.m(x).relu(), m=_with_plain_weight_norm)),
    Case(
        "weight standardisation",
        lambda: Net(
            lambda net, x: torch.conv2d(
                net.first(x), (net.w - net.w.mean((1, 2, 3), True)) * net.w.std((1, 2, 3)).view(-1, 1, 1, 1)
            ),
            first=conv(3, 16),
            w=nn.Parameter(torch.randn(4, 16, 1, 1)),
        ),
        statistics=True,
    ),
    Case(
        "weight standardised by a batch norm",
        between(_standardised, w=lambda: nn.Parameter(torch.randn(16, 16, 1, 1))),
        statistics=True,
    ),
    Case("parametrised element by element", between(lambda net, x: net.m(x), m=lambda: _parametrised(Doubled()))),
    Case("parametrised to be symmetric", between(lambda net, x: net.m(x), m=lambda: _parametrised(Symmetric()))),
    Case(
        "spectral norm",
        between(lambda net, x: net.m(x), m=lambda: parametrizations.spectral_norm(conv(16, 16))),
        share=0.5,
    ),
    Case(
        "embedding",
        lambda: Net(lambda net, i: net.b(net.a(i).relu()), a=nn.Embedding(20, 16), b=nn.Linear(16, 4)),
        lambda: (torch.randint(0, 20, (2, 5)),),
    ),
    Case(
        "embedding bag",
        lambda: Net(lambda net, i: net.b(net.a(i).tanh()), a=nn.EmbeddingBag(20, 16), b=nn.Linear(16, 4)),
        lambda: (torch.randint(0, 20, (2, 5)),),
    ),
    Case(
        "weight made by a layer",
        between(
            lambda net, x: torch.conv2d(x, net.h(net.z).view(16, 16, 1, 1)),
            z=torch.randn(4),
            h=lambda: nn.Linear(4, 256),
        ),
        share=0.0,
    ),
]


def _parametrised(parametrisation: nn.Module) -> nn.Module:
    layer = conv(16, 16)
    parametrize.register_parametrization(layer, "weight", parametrisation)
    return layer
