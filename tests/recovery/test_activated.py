"""The fit behind the activation: what comes out of it is nearer to the original's than after least squares alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.recovery.test_reconstruction import images, removal
from yoloprune.calibration import call_order
from yoloprune.graph import trace
from yoloprune.recovery import recalibrate_bn, reconstruct
from yoloprune.recovery.activated import Activated, fit_activated


def test_it_undoes_what_only_the_activation_hides():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=generator)
    weight, shift = torch.randn(3, 6, generator=generator), torch.tensor([0.5, -1.0, 0.0])
    y = x @ weight.T + shift
    seen = torch.where(y < 0, 30 * y, y)  # far from linear below zero, where nothing comes through
    behind = Activated(nn.ReLU(inplace=True), torch.ones(3), torch.zeros(3))
    joined = torch.cat([x, torch.ones(4000, 1)], 1)
    start = torch.linalg.lstsq(joined, seen).solution.T
    start = start[:, :6].contiguous(), start[:, 6].contiguous()
    found = fit_activated(x, seen, torch.ones(4000), *start, behind, ridge=1e-3, steps=100)

    def error(weight, shift):
        return float((behind(x @ weight.T + shift) - behind(seen)).square().mean())

    assert error(*found) < 0.02 * error(*start)
    assert float((found[0] - weight).abs().max()) < 0.1 * float((start[0] - weight).abs().max())


def test_samples_that_count_nothing_change_nothing():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 4, generator=generator), torch.randn(200, 2, generator=generator)
    behind = Activated(nn.SiLU(), torch.full((2,), 1.5), torch.full((2,), 0.2))
    start = torch.zeros(2, 4), torch.zeros(2)
    counts = (torch.arange(200) < 100).float()
    some = fit_activated(x, y, counts, *start, behind, ridge=0.1, steps=5)
    alone = fit_activated(x[:100], y[:100], torch.ones(100), *start, behind, ridge=0.1, steps=5)
    for a, b in zip(some, alone, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_a_reconstructed_network_comes_nearer_behind_its_activations(bias, affine):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, bias=bias), nn.BatchNorm2d(16, affine=affine), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(16, 12, 3, bias=bias), nn.BatchNorm2d(12, affine=affine), nn.ReLU(inplace=True)]
    net = nn.Sequential(*layers, nn.Conv2d(12, 4, 1)).eval()
    for at in (0, 3):
        nn.init.normal_(net[at].weight, std=0.3)
    recalibrate_bn(net, [images(32)])
    plan = removal(trace(net, images(1)), "0.weight", range(8, 16))
    errors = []
    for steps in (0, 10):
        pruned = plan.apply(net)
        reconstruct(pruned, net, plan, [images(32)], steps=steps, ridge=0.01)
        with torch.no_grad():
            errors.append(float((pruned[:6](images(8, seed=3)) - net[:6](images(8, seed=3))).square().mean()))
    assert errors[1] < 0.985 * errors[0]


def test_only_what_follows_as_it_is_counts_as_a_layers_activation():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.norm, self.act = nn.BatchNorm2d(4), nn.SiLU()

        def forward(self, x):
            return self.act(self.norm(self.three(self.act(self.one(x) + self.two(x)))))

    net = Sum().eval()
    layers = {name: net.get_submodule(name) for name in ("one", "two", "three")}
    names, norms, activations = call_order(net, layers, lambda: net(images(1)))
    assert names == ["one", "two", "three"]
    assert norms == {"three": "norm"}
    assert activations == {"three": net.act}
