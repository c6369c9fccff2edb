"""The error that removal causes, against masked executions of the network itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yoloprune.criteria import score
from yoloprune.errors import UserError
from yoloprune.graph import trace


class Net(nn.Module):
    """One producer whose channels a plain, a strided and a transposed convolution consume."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.plain = nn.Conv2d(8, 6, 3, padding=1)
        self.strided = nn.Conv2d(8, 4, 1, stride=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.fc = nn.Linear(14, 3, bias=False)

    def forward(self, x):
        x = F.relu(self.bn(self.first(x)))
        parts = [self.plain(x), self.strided(x), self.up(x)]
        return self.fc(torch.cat([p.square().mean((2, 3)) for p in parts], 1))


def images(n=16, seed=1):
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def net_and_graph():
    torch.manual_seed(0)
    net = Net().eval()
    nn.init.uniform_(net.bn.weight, 0.5, 2)
    nn.init.uniform_(net.bn.bias, -1, 1)
    return net, trace(net, images(1))


def channels(graph, parameter="first.weight", dim=0):
    piece = next(s for s in graph.slices if (s.parameter, s.dim) == (parameter, dim))
    return graph.component[piece.start : piece.start + piece.size]


def relative_error(layer, x, c):
    """Error of a 1 × 1 layer's outputs around their means when input c is set to its mean."""
    masked = x.clone()
    masked[:, c] = x[:, c].mean()
    y, z = layer(x), layer(masked)
    return float(((y - z).square().mean((0, 2, 3)) / y.var((0, 2, 3), correction=0)).sum())


def test_score_is_the_relative_error_at_the_consumer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    graph, batch = trace(net, images(1)), images()
    scores = score(graph, net, "output_error", batches=[batch[:4], batch[4:]], per_mac=0)
    with torch.no_grad():
        hidden = net[:3](batch)
        want = [relative_error(net[3], hidden, c) for c in range(8)]
    np.testing.assert_allclose(scores[channels(graph, "0.weight")], want, rtol=1e-4)


def test_the_budget_goes_where_it_is_cheap():
    net, graph = net_and_graph()
    errors = score(graph, net, "output_error", batches=[images()], per_mac=0)
    per_mac = score(graph, net, "output_error", batches=[images()])
    np.testing.assert_allclose(per_mac * np.maximum(graph.cost.savings(), 1), errors)
    squared = score(graph, net, "output_error", batches=[images()], per_mac=2)
    np.testing.assert_allclose(squared * np.maximum(graph.cost.savings(), 1) ** 2, errors)


def test_savings_are_what_the_cost_model_says():
    _, graph = net_and_graph()
    savings = graph.cost.savings()
    for c in channels(graph)[:3]:
        kept = np.ones(graph.n_components, bool)
        kept[c] = False
        assert graph.macs() - graph.cost.macs(kept) == pytest.approx(savings[c])


def test_a_dead_channel_scores_nothing_and_a_loud_one_most():
    net, graph = net_and_graph()
    with torch.no_grad():
        net.bn.weight[2], net.bn.bias[2] = 0, -1  # never above zero
        net.bn.weight[5], net.bn.bias[5] = 20, 0
    scores = score(graph, net, "output_error", batches=[images()])[channels(graph)]
    assert scores[2] == pytest.approx(0, abs=1e-12)
    assert scores.argmax() == 5


def test_influence_follows_the_loss():
    net, graph = net_and_graph()
    batches = [images()]
    plain = score(graph, net, "output_error", batches=batches)
    same = score(graph, net, "output_error", batches=batches, loss=lambda m, b: m(b).sum(), influence=0.0)
    np.testing.assert_allclose(plain, same)

    def first_branch(model, batch):  # the outputs of `plain` alone
        hidden = F.relu(model.bn(model.first(batch)))
        return model.plain(hidden).square().sum() + 0 * model(batch).sum()

    full = score(graph, net, "output_error", batches=batches, loss=first_branch, influence=1.0, per_mac=0)
    with torch.no_grad():
        net.plain.weight[:, 3] = 0
    without = score(graph, net, "output_error", batches=batches, loss=first_branch, influence=1.0, per_mac=0)
    assert full[channels(graph)[3]] > 0
    assert without[channels(graph)[3]] == pytest.approx(0, abs=1e-9)


def test_model_and_gradients_are_left_as_they_were():
    net, graph = net_and_graph()
    net.train()
    net.first.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    score(graph, net, "output_error", batches=[images()], loss=lambda m, b: m(b).sum())
    assert net.training
    assert not net.first.weight.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_grouped_convolution_is_measured_group_by_group():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1, groups=2), nn.Flatten(), nn.Linear(6 * 144, 2)).eval()
    graph, batch = trace(net, images(1)), images()
    scores = score(graph, net, "output_error", batches=[batch], per_mac=0)
    with torch.no_grad():
        hidden = net[0](batch)
        errors = np.array([relative_error(net[1], hidden, c) for c in range(8)])
    inputs = channels(graph, "0.weight")
    want = np.zeros(graph.n_components)
    np.add.at(want, inputs, errors)
    np.testing.assert_allclose(scores[inputs], want[inputs], rtol=1e-4)


def test_channels_that_no_such_layer_consumes_stay_longest():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    lstm = nn.LSTM(6, 7, batch_first=True)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lstm, self.out = net[0], lstm, nn.Linear(7, 2)

        def forward(self, x):
            return self.out(self.lstm(self.net(x))[0])

    model = Both().eval()
    x = torch.randn(2, 5, 4)
    graph = trace(model, x)
    scores = score(graph, model, "output_error", batches=[x])
    piece = channels(graph, "net.weight")
    assert scores[piece].min() >= scores[channels(graph, "out.weight", 1)].max()


def test_batches_are_asked_for():
    net, graph = net_and_graph()
    with pytest.raises(UserError, match="looks at data"):
        score(graph, net, "output_error")
