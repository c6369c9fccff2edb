"""Errors after compensation, against least squares over the inputs that are left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yoloprune.calibration import patches
from yoloprune.criteria import compensated, score
from yoloprune.graph import trace


def images(count=16, seed=1):
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def two_layers(kernel=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, kernel)).eval()


def channels(graph, parameter="0.weight"):
    piece = next(s for s in graph.slices if (s.parameter, s.dim) == (parameter, 0))
    return graph.component[piece.start : piece.start + piece.size]


def left_after(net, x, gone):
    """Damped least-squares error of the last layer's outputs, relative to their variances, without some inputs."""
    with torch.no_grad():
        hidden = net[:2](x)
        y = net[2](hidden).movedim(1, -1).flatten(0, 2).double()
        seen = patches(net[2], hidden, torch.arange(len(y)))[:, 0].double()
    seen, y = seen - seen.mean(0), y - y.mean(0)
    covariance = seen.T @ seen / len(seen)
    damped = covariance + 0.1 * covariance.diagonal().mean() * torch.eye(len(covariance))
    here = torch.ones(8, 9, dtype=torch.bool)
    here[gone] = False
    here = here.flatten()
    weight = net[2].weight.detach().double().flatten(1)
    change = torch.zeros_like(weight)
    change[:, ~here] = -weight[:, ~here]
    change[:, here] = torch.linalg.solve(damped[here][:, here], damped[here][:, ~here] @ weight[:, ~here].T).T
    return float(((change @ damped) * change).sum(1).div(y.var(0, correction=0)).sum())


def test_prices_are_the_errors_that_least_squares_leaves(monkeypatch):
    monkeypatch.setattr(compensated, "_POSITIONS", 10**6)
    net, x = two_layers(), images()
    graph = trace(net, images(1))
    scores = score(graph, net, "compensated_error", batches=[x], per_mac=0)[channels(graph)]
    order = np.argsort(scores)
    before = 0.0
    for place in range(7):  # one after another, the last one stays
        gone = order[: place + 1].tolist()
        now = left_after(net, x, gone)
        assert now - before == pytest.approx(scores[order[place]], rel=2e-3)
        rest = [left_after(net, x, [*order[:place].tolist(), int(c)]) for c in order[place:]]
        assert now == pytest.approx(min(rest), rel=1e-6)
        before = now


def test_of_two_that_say_the_same_one_is_free_and_the_other_dear(monkeypatch):
    monkeypatch.setattr(compensated, "_RIDGE", 1e-6)
    net = two_layers()
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
        net[2].weight[:, :2] *= 5
    graph = trace(net, images(1))
    pair = score(graph, net, "compensated_error", batches=[images()], per_mac=0)[channels(graph)]
    alone = score(graph, net, "output_error", batches=[images()], per_mac=0)[channels(graph)]
    assert sorted(np.argsort(alone)[-2:].tolist()) == [0, 1]
    assert min(pair[:2]) < 1e-3 * max(pair[:2])
    assert pair.argmax() in (0, 1)


def test_where_covariances_would_be_too_large_kernel_positions_stand_alone(monkeypatch):
    monkeypatch.setattr(compensated, "_LARGEST", 0)
    net = two_layers(kernel=1)
    graph = trace(net, images(1))
    alone = score(graph, net, "compensated_error", batches=[images()])[channels(graph)]
    monkeypatch.undo()
    together = score(graph, net, "compensated_error", batches=[images()])[channels(graph)]
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    net = two_layers()
    graph = trace(net, images(1))
    monkeypatch.setattr(compensated, "_LARGEST", 0)
    assert np.isfinite(score(graph, net, "compensated_error", batches=[images()])).all()


class Kinds(nn.Module):
    """Channels that grouped, depthwise and transposed convolutions and a linear layer consume, and a sum ties."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.fc = nn.Linear(14, 3, bias=False)

    def forward(self, x):
        x = F.relu(self.first(x) + self.other(x))
        parts = [self.grouped(self.depthwise(x)), self.up(x)]
        return self.fc(torch.cat([p.square().mean((2, 3)) for p in parts], 1))


def test_every_kind_of_layer_has_finite_prices_and_the_network_stays_as_it_was():
    torch.manual_seed(0)
    net = Kinds().eval()
    graph = trace(net, images(1))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given = {"batches": [images(), images(seed=2)], "loss": lambda m, b: m(b).sum()}
    first, second = (score(graph, net, "compensated_error", **given) for _ in range(2))
    assert (first > 0).all()
    np.testing.assert_array_equal(first, second)
    assert not any(m._forward_hooks for m in net.modules())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
