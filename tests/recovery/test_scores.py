"""Calibration of class scores."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from yoloprune.errors import UserError
from yoloprune.recovery import calibrate_scores


class Detector(nn.Module):
    """Two class layers of which the second is rarely sure."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.near, self.far = nn.Conv2d(8, 4, 1, bias=bias), nn.Conv2d(8, 4, 1)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.near(x), self.far(x)


def batches(count: int = 3) -> list[torch.Tensor]:
    return [torch.rand(2, 3, 16, 16) * 4 - 2 for _ in range(count)]


def test_an_affine_map_of_logits_is_undone() -> None:
    original = Detector()
    with torch.no_grad():
        original.near.weight.mul_(3)
        original.far.bias.sub_(4)
    changed = copy.deepcopy(original)
    with torch.no_grad():
        changed.near.weight.mul_(0.5), changed.near.bias.mul_(0.5).sub_(1.5)
        changed.far.weight.mul_(1.25), changed.far.bias.mul_(1.25).add_(2)
    near, far = calibrate_scores(changed, original, ["near", "far"], batches())
    assert (near.scale, near.shift) == (pytest.approx(2, rel=1e-3), pytest.approx(3, rel=1e-3))
    assert (far.scale, far.shift) == (pytest.approx(0.8, rel=1e-3), pytest.approx(-1.6, rel=1e-3))
    assert near.before > 0.01 > 1e-4 > near.after
    x = torch.rand(1, 3, 8, 8)
    for got, want in zip(changed(x), original(x), strict=True):
        torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-3)


def test_it_is_the_least_cross_entropy() -> None:
    """Against a search of both parameters on the logits themselves."""
    original = Detector()
    other = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    given = batches()
    with torch.no_grad():
        z, y = (torch.cat([net(b)[0].flatten() for b in given]).double() for net in (other, original))
    at = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([at], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = nn.functional.binary_cross_entropy_with_logits(at[0] * z + at[1], y.sigmoid())
        value.backward()
        return value

    search.step(loss)
    scale, shift = at.detach().tolist()
    (fit,) = calibrate_scores(other, original, ["near"], given)
    assert abs(scale - 1) > 1e-3
    assert (fit.scale, fit.shift) == (pytest.approx(scale, rel=1e-2), pytest.approx(shift, abs=1e-2))
    assert fit.after < fit.before


def test_what_cannot_be_fitted_stays() -> None:
    original, changed = Detector(), Detector()
    with torch.no_grad():
        changed.far.weight.zero_()
        changed.near.weight.copy_(-original.near.weight)  # the map would turn ranks round
    before = copy.deepcopy(changed.state_dict())
    fits = calibrate_scores(changed, original, ["idle"], batches())
    assert (fits[0].scale, fits[0].shift) == (1, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in changed.state_dict().items())


def test_outputs_without_an_order_are_paired_by_rank() -> None:
    class Queries(Detector):
        def forward(self, x):
            return self.near(self.stem(x).flip(-1) if self.turned else self.stem(x))

    original = Queries()
    original.turned = False
    changed = copy.deepcopy(original)
    changed.turned = True
    with torch.no_grad():
        changed.near.weight.mul_(0.5), changed.near.bias.mul_(0.5).add_(1)
    (fit,) = calibrate_scores(changed, original, ["near"], batches(), in_order=False)
    assert (fit.scale, fit.shift) == (pytest.approx(2, rel=1e-3), pytest.approx(-2, rel=1e-3))


def test_a_softmax_has_a_temperature() -> None:
    original = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    changed = copy.deepcopy(original)
    with torch.no_grad():
        changed[1].weight.mul_(0.4), changed[1].bias.mul_(0.4)
    (fit,) = calibrate_scores(changed, original, ["1"], [torch.rand(8, 3, 2, 2) * 9], softmax=True)
    assert (fit.scale, fit.shift) == (pytest.approx(2.5, rel=1e-4), 0)
    torch.testing.assert_close(changed[1].weight, original[1].weight)


def test_networks_that_differ_are_refused() -> None:
    original, other = nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(3, 5, 1))
    with pytest.raises(UserError, match="'0' of the pruned network does not put out"):
        calibrate_scores(other, original, ["0"], batches())
    with pytest.raises(UserError, match="no batches were given"):
        calibrate_scores(original, original, ["0"], [])
