"""The heads as Ultralytics' exporter takes them: as one of its own `Detect`, with one tensor as output."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Detect

from . import heads
from .network import Network

__all__ = ["with_exported_head"]


class ExportedHead(Detect):
    """A head of YOLOv7 or YOLOv5 where the exporter looks for a `Detect`, whose switches it sets.

    Args:
        head: The head.
        official: Whether the output is (b, n, 5 + nc), and not (b, 4 + nc, n).
    """

    end2end = False

    def __init__(self, head: heads.Detect, official: bool = False) -> None:
        nn.Module.__init__(self)
        self.head = head
        self.nc, self.no, self.nl, self.stride = head.nc, head.no, head.nl, head.stride
        self.i, self.f, self.type, self.np = head.i, head.f, head.type, head.np
        head.export, head.official = True, official

    def forward(self, x: list[Tensor]) -> Tensor:
        """Corners instead of centres and sizes where `xyxy` asks for them, as the graph of NMS does."""
        y = self.head(x)
        if not self.xyxy:
            return y
        centre, half = y[:, :2], y[:, 2:4] / 2
        return torch.cat((centre - half, centre + half, y[:, 4:]), 1)


def with_exported_head(network: Network, official: bool = False) -> Network:
    """A copy of a network with an `ExportedHead`."""
    network = copy.deepcopy(network)
    network.model[-1] = ExportedHead(network.head, official)
    return network
