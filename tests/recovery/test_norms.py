"""Batch norm recalibration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yoloprune.errors import UserError
from yoloprune.recovery import recalibrate_bn


def test_statistics_become_those_of_the_calibration_batches():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.9)).train()
    batches = [torch.randn(4, 2, 5, 5) + 2 for _ in range(3)]
    assert recalibrate_bn(net, batches) == 1
    with torch.no_grad():
        outs = [net[0](b) for b in batches]
    torch.testing.assert_close(net[1].running_mean, torch.stack([o.mean((0, 2, 3)) for o in outs]).mean(0))
    torch.testing.assert_close(net[1].running_var, torch.stack([o.var((0, 2, 3)) for o in outs]).mean(0))
    assert net[1].momentum == 0.1
    assert [m.training for m in net.modules()] == [True] * 4


def test_no_batches_is_an_error():
    with pytest.raises(UserError, match="Batch norm recalibration looks at data"):
        recalibrate_bn(nn.BatchNorm1d(2), [])


def test_a_batch_without_variance_is_an_error():
    norm = nn.BatchNorm1d(2)
    with pytest.raises(UserError, match="two images or more"):
        recalibrate_bn(norm, [torch.zeros(1, 2)])
    assert norm.momentum == 0.1
    norm(torch.randn(3, 2))
    with pytest.raises(ValueError, match="1 value"):  # torch's own error again: nothing of ours is left in the norm
        norm.train()(torch.zeros(1, 2))


def test_one_image_is_enough_where_it_has_several_positions():
    norm, image = nn.BatchNorm2d(2), torch.randn(1, 2, 3, 3)
    assert recalibrate_bn(norm, [image]) == 1
    torch.testing.assert_close(norm.running_mean, image.mean((0, 2, 3)))


def test_errors_of_the_network_itself_stay_what_they_are():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("Expected more than 1 value per channel, says the network")

    with pytest.raises(ValueError, match="says the network"):
        recalibrate_bn(nn.Sequential(nn.BatchNorm2d(2), Fails()), [torch.randn(2, 2, 3, 3)])
