"""What a tiny network of the operator matrix is: its modules, its forward and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Modules, parameters and constants by name, and a forward that is given them."""

    def __init__(self, forward: Callable, **parts: object) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.run = forward

    def forward(self, *inputs: Tensor) -> object:
        return self.run(self, *inputs)


class Case(NamedTuple):
    """One pattern.

    Attributes:
        name: What it shows.
        build: Makes the network.
        inputs: Makes its inputs.
        share: Of the channels that do not reach the output, the share that can go.
        statistics: Whether it takes statistics over channels, which are held fixed in the comparison.
        constant: Whether its outputs depend on parameters alone.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple] = lambda: (torch.randn(2, 3, 6, 6),)
    share: float = 1.0
    statistics: bool = False
    constant: bool = False


def conv(n_in: int, n_out: int, k: int = 1, **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, k, padding=k // 2, **kwargs)


def between(middle: Callable, width: int = 16, **parts: object) -> Callable[[], nn.Module]:
    """A convolution to 16 channels, something in the middle, a convolution from `width` channels."""
    return lambda: Net(
        lambda net, x: net.last(middle(net, net.first(x))),
        first=conv(3, 16),
        last=conv(width, 4),
        **{
            name: part() if callable(part) and not isinstance(part, nn.Module) else part for name, part in parts.items()
        },
    )


def tokens(n: int = 5, width: int = 8, batch: int = 2) -> Callable[[], tuple]:
    return lambda: (torch.randn(batch, n, width),)
