"""One-pass reconstruction on small networks whose removed channels can be made up for exactly."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yoloprune.errors import UserError
from yoloprune.graph import trace
from yoloprune.recovery import recalibrate_bn, reconstruct
from yoloprune.recovery.memory import bytes_held


class Branches(nn.Module):
    """A plain, a depthwise and a grouped convolution and a linear layer behind one another and side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.depthwise_bn = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.one, self.two = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.silu(self.stem_bn(self.stem(x)))
        y = F.silu(self.depthwise_bn(self.depthwise(x)))
        y = F.relu(self.grouped(y), inplace=True)
        return self.fc(torch.cat([self.one(y), self.two(y)], 1).mean((2, 3)))


def images(count=8, size=16, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def calibrated(net, seed=0):
    """Random affine parameters and statistics that fit the data, so that every channel matters."""
    torch.manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
    recalibrate_bn(net, [images(32)])
    return net.eval()


def error(a, b, x):
    with torch.no_grad():
        return float((a(x) - b(x)).square().mean() / b(x).square().mean())


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(inplace=True), nn.Conv2d(16, 4, 3, padding=1)
    )


def removal(graph, parameter, indices):
    piece = next(s for s in graph.slices if (s.parameter, s.dim) == (parameter, 0))
    removed = np.zeros(graph.n_components, bool)
    removed[graph.component[piece.start + np.asarray(indices)]] = True
    return graph.plan(removed)


def test_copies_of_kept_channels_are_made_up_for_exactly():
    net = calibrated(plain())
    with torch.no_grad():
        for t in (net[0].weight, net[0].bias, net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var):
            t[8:] = t[:8]
    graph = trace(net, images(1))
    plan = removal(graph, "0.weight", range(8, 16))
    pruned = plan.apply(net)
    fresh = images(4, seed=1)
    assert error(pruned, net, fresh) > 0.05
    report = reconstruct(pruned, net, plan, [images(8), images(8, seed=2)], ridge=1e-8)
    assert error(pruned, net, fresh) < 1e-8
    assert [fit.name for fit in report.layers] == ["0", "3"]
    assert report.skipped == []


def test_constant_channels_go_into_the_bias_exactly():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[0].weight[4:] = 0
        net[0].bias[4:] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = torch.randn(64, 6)
    plan = removal(trace(net, x), "0.weight", range(4, 8))
    pruned = plan.apply(net)
    assert error(pruned, net, x) > 0.1
    reconstruct(pruned, net, plan, [x], ridge=1e-8)
    assert error(pruned, net, x) < 1e-9


def test_a_removed_constant_goes_into_the_running_mean_of_the_next_batch_norm():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
    ).eval()
    with torch.no_grad():
        net[0].weight[6:] = 0
        net[0].bias[6:] = 5.0
    x = images()
    plan = removal(trace(net, x), "0.weight", [6, 7])
    pruned = plan.apply(net)
    reconstruct(pruned, net, plan, [x], ridge=1e-8)
    assert error(pruned, net, images(seed=3)) < 1e-9


def test_grouped_depthwise_linear_and_several_consumers():
    net = calibrated(Branches())
    graph = trace(net, images(1))
    plan = graph.random_plan(0.25, seed=1)
    assert {"stem.weight", "depthwise.weight", "grouped.weight", "one.weight", "fc.weight"} <= set(plan.keep)
    batches = [images(16, seed=s) for s in range(4)]
    pruned, normed = plan.apply(net), plan.apply(net)
    recalibrate_bn(normed, batches)
    report = reconstruct(pruned, net, plan, batches)
    assert {fit.name for fit in report.layers} == {"stem", "depthwise", "grouped", "one", "two", "fc"}
    fresh = images(16, seed=9)
    assert error(pruned, net, fresh) < 0.5 * error(normed, net, fresh)


def test_nothing_pruned_changes_nothing():
    net = calibrated(Branches())
    plan = trace(net, images(1)).random_plan(0.0)
    same = plan.apply(net)
    reconstruct(same, net, plan, [images()])
    assert error(same, net, images(seed=1)) < 1e-9


def test_batches_of_different_shapes_weigh_by_their_size():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.5)
    pruned = plan.apply(net)
    batches = [images(4, 16), images(2, 24)]
    report = reconstruct(pruned, net, plan, batches)
    assert report.layers[0].samples == 4 * 16 * 16 + 2 * 24 * 24
    with torch.no_grad():  # the solved intercept leaves no mean error over all positions together
        left = torch.cat([(pruned(b) - net(b)).movedim(1, -1).reshape(-1, 4) for b in batches])
    assert float(left.mean(0).abs().max() / left.std()) < 1e-4


def test_positions_bound_the_samples():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.5)
    report = reconstruct(plan.apply(net), net, plan, [images(4), images(4)], positions=500)
    assert [fit.samples for fit in report.layers] == [500, 500]


def test_memory_bounds_the_batches():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.5)
    batches = [images(2, seed=seed) for seed in range(6)]
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    each = bytes_held(lambda: net(batches[0]), convolutions)
    assert reconstruct(plan.apply(net), net, plan, batches, memory=6.5 * each).batches == 3
    assert reconstruct(plan.apply(net), net, plan, batches, memory=1).batches == 1
    assert reconstruct(plan.apply(net), net, plan, batches).batches == 6


def test_bytes_held_counts_what_waits_once():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1), nn.Flatten())
    x = torch.zeros(1, 3, 10, 10)
    float32 = 4
    assert bytes_held(lambda: net(x), [net[0]]) == 8 * 100 * float32
    assert bytes_held(lambda: net(x), [net[2]]) == (8 + 4) * 100 * float32  # its input is held as long as it runs


def test_fewer_samples_than_unknowns_stay_finite():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.25)
    pruned = plan.apply(net)
    reconstruct(pruned, net, plan, [images(1, 4)])
    assert all(torch.isfinite(t).all() for t in pruned.state_dict().values())


def test_deterministic_and_the_original_stays_as_it_was():
    net = calibrated(Branches()).train()
    plan = trace(net, images(1)).random_plan(0.5)
    before = copy.deepcopy(net.state_dict())
    results = []
    for _ in range(2):
        pruned = plan.apply(net)
        reconstruct(pruned, net, plan, [images()], positions=300)
        results.append(pruned.state_dict())
        assert pruned.training
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in results), strict=True))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training


class Twice(nn.Module):
    """One layer called twice, one never, one that computes a fixed function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.never = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.fixed = nn.Sequential(nn.Linear(16, 3))

    def forward(self, x):
        return self.fixed(self.twice(F.relu(self.twice(F.relu(self.first(x))))))


class Sealed(nn.Sequential):
    """Marks what is not to be touched."""


def test_what_cannot_be_solved_is_reported_and_kept():
    net = Twice().eval()
    net.fixed = Sealed(*net.fixed)
    x = torch.randn(64, 4)
    plan = trace(net, x).random_plan(0.25)
    pruned = plan.apply(net)
    kept = {k: v.clone() for k, v in pruned.state_dict().items() if k.startswith(("twice", "fixed"))}
    report = reconstruct(pruned, net, plan, [x], skip=[Sealed])
    assert [fit.name for fit in report.layers] == ["first"]
    assert report.skipped == ["twice", "never", "fixed.0"]
    assert all(torch.equal(v, pruned.state_dict()[k]) for k, v in kept.items())


def test_a_failing_batch_ends_every_walk():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.5)
    pruned = plan.apply(net)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="channels"):
        reconstruct(pruned, net, plan, [images(), torch.zeros(1, 5, 16, 16)])
    assert threading.active_count() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for n in (net, pruned) for m in n.modules())


def test_another_network_is_an_error():
    net = calibrated(plain())
    plan = trace(net, images(1)).random_plan(0.5)
    with pytest.raises(UserError, match="Layer '0' of the pruned network is not what the plan makes"):
        reconstruct(copy.deepcopy(net), net, plan, [images()])
    with pytest.raises(UserError, match="Reconstruction looks at data"):
        reconstruct(plan.apply(net), net, plan, [])
