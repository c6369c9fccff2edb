"""Small networks that between them have every kind of coupling."""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """conv - norm, a depthwise branch, a grouped branch and a shortcut, concatenated, then transposed and linear."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.grouped = nn.Conv2d(width, 2 * width, 3, padding=1, groups=groups)
        self.second = nn.Conv2d(2 * width, width, 1)
        self.second_norm = nn.BatchNorm2d(width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up_depthwise = nn.ConvTranspose2d(width, width, 2, stride=2, groups=width)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        y = x + self.depthwise(x)
        z = self.second_norm(self.second(self.grouped(x).relu())).relu()
        return self.fc(self.up_depthwise(self.up(torch.cat([y, z], 1)).relu()).mean((2, 3)))


class Shared(nn.Module):
    """One convolution's weight used twice, and a layer that plays no part in the output."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.first = nn.Conv2d(width, width, 1, bias=False)
        self.again = nn.Conv2d(width, width, 1, bias=False)
        self.again.weight = self.first.weight
        self.idle = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.again(self.first(self.stem(x)).relu()).relu())


def plain(width: int = 8) -> nn.Sequential:
    """conv - norm - conv - norm - conv."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4, 1),
    )


def scatter(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give all parameters random values, channels of very different size among them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
            size = parameter.shape[0]
            parameter.mul_(torch.rand(size, generator=generator).view(-1, *[1] * (parameter.ndim - 1)) + 0.05)
    return model
