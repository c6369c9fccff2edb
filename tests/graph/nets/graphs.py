"""Networks on graphs and point clouds."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case

_EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5, 0], [1, 0, 2, 1, 4, 3, 5, 4, 5]])


def _adjacency() -> torch.Tensor:
    a = torch.eye(6)
    a[_EDGES[0], _EDGES[1]] = 1
    return a / a.sum(1, keepdim=True)


class Convolution(nn.Module):
    """GCN with a dense adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", _adjacency())
        self.a, self.b = nn.Linear(7, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.adjacency @ self.b((self.adjacency @ self.a(x)).relu())


class Sage(nn.Module):
    """GraphSAGE: own features and the mean of the neighbours'."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", _adjacency())
        self.a, self.b = nn.Linear(14, 16), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(torch.cat([x, self.adjacency @ x], -1)).relu()
        return self.b(torch.cat([x, self.adjacency @ x], -1))


class Attention(nn.Module):
    """GAT, dense, with several heads whose width is derived."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", _adjacency() == 0)
        self.a, self.b = nn.Linear(7, 24, bias=False), nn.Linear(24, 4)
        self.source, self.target = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x).view(len(x), 3, -1)
        score = (x * self.source).sum(-1).T[:, :, None] + (x * self.target).sum(-1).T[:, None]
        weight = F.leaky_relu(score, 0.2).masked_fill(self.mask, -9e9).softmax(-1)
        return self.b((weight @ x.transpose(0, 1)).transpose(0, 1).flatten(1).relu())


class Messages(nn.Module):
    """Messages along a list of edges, summed at their ends by index_add or scatter_add."""

    def __init__(self, scatter: bool) -> None:
        super().__init__()
        self.a, self.b, self.scatter = nn.Linear(7, 16), nn.Linear(16, 4), scatter

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = self.a(x).relu()
        if self.scatter:
            x = torch.zeros_like(x).scatter_add_(0, edges[1][:, None].expand(-1, x.shape[1]), x[edges[0]])
        else:
            x = x.new_zeros(6, x.shape[1]).index_add_(0, edges[1], x.index_select(0, edges[0]))
        return self.b(x)


class Points(nn.Module):
    """DGCNN: neighbours by distance between features, which change from layer to layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * i, o, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2))
            for i, o in ((3, 16), (16, 24))
        )
        self.join, self.head = nn.Conv1d(40, 32, 1), nn.Linear(64, 4)

    @staticmethod
    def edges(x: torch.Tensor, k: int = 3) -> torch.Tensor:
        b, c, n = x.shape
        square = (x**2).sum(1, keepdim=True)
        nearest = (2 * x.transpose(2, 1) @ x - square - square.transpose(2, 1)).topk(k, -1)[1]
        nearest = (nearest + torch.arange(b)[:, None, None] * n).view(-1)
        x = x.transpose(2, 1).contiguous()
        near = x.view(b * n, -1)[nearest, :].view(b, n, k, c)
        x = x.view(b, n, 1, c).repeat(1, 1, k, 1)
        return torch.cat((near - x, x), 3).permute(0, 3, 1, 2).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for layer in self.layers:
            x = layer(self.edges(x)).max(-1)[0]
            found.append(x)
        x = self.join(torch.cat(found, 1))
        x = torch.cat([F.adaptive_max_pool1d(x, 1).view(len(x), -1), F.adaptive_avg_pool1d(x, 1).view(len(x), -1)], 1)
        return self.head(x)


class PointNet(nn.Module):
    """A learned 3 × 3 transform of the points, shared layers, a maximum over points."""

    def __init__(self) -> None:
        super().__init__()
        self.t, self.u = nn.Conv1d(3, 16, 1), nn.Linear(16, 9)
        self.a, self.b = nn.Conv1d(3, 16, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turn = self.u(self.t(x).amax(2).relu()).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        return self.b(self.a((x.transpose(2, 1) @ turn).transpose(2, 1)).amax(2))


def _nodes() -> tuple:
    return (torch.randn(6, 7),)


CASES = [
    Case("GCN, dense", Convolution, _nodes, share=16 / 22),
    Case("GraphSAGE, dense", Sage, _nodes, share=16 / 22),
    Case("GAT, dense", Attention, _nodes),
    Case("messages by index_add", lambda: Messages(False), lambda: (*_nodes(), _EDGES)),
    Case("messages by scatter_add", lambda: Messages(True), lambda: (*_nodes(), _EDGES)),
    Case("DGCNN", Points, lambda: (torch.randn(2, 3, 9),)),
    Case("PointNet", PointNet, lambda: (torch.randn(2, 3, 9),), share=32 / 41),  # but for the transform
]
