"""Layers seen from outside: patches are what the layer multiplies with its weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yoloprune.calibration import collect, contractions, groups_of, patches
from yoloprune.errors import UserError
from yoloprune.execution import forward, full_precision

LAYERS = {
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 5)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 5)),
    "dilated": (nn.Conv2d(4, 6, (3, 1), dilation=(2, 1), padding=(2, 0)), (2, 4, 7, 5)),
    "same": (nn.Conv2d(4, 6, 4, padding="same"), (2, 4, 7, 5)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 7, 5)),
    "one dimension": (nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(4, 6, 2), (2, 4, 3, 4, 5)),
    "no batch": (nn.Conv2d(4, 6, 3), (4, 7, 5)),
    "linear": (nn.Linear(4, 6), (2, 5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weight_is_the_output(name):
    layer, shape = LAYERS[name]
    x = torch.randn(shape)
    out = layer(x)
    out = out if isinstance(layer, nn.Linear) else out.movedim(1 if len(shape) == layer.weight.dim() else 0, -1)
    out = out.reshape(-1, out.shape[-1])
    chosen = torch.randperm(len(out))[:9]
    seen = patches(layer, x, chosen)
    weight = layer.weight.reshape(groups_of(layer), -1, seen.shape[2])
    torch.testing.assert_close(torch.einsum("pgi,goi->pgo", seen, weight).flatten(1) + layer.bias, out[chosen])


def test_contractions_leave_out_what_cannot_be_solved_alone():
    shared = nn.Linear(3, 3)
    tied = nn.Linear(3, 3)
    tied.weight = shared.weight
    net = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 3, 1),
            "up": nn.ConvTranspose2d(3, 3, 2),
            "norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)),
            "shared": shared,
            "tied": tied,
            "linear": nn.Linear(3, 3),
        }
    )
    assert set(contractions(net)) == {"conv", "linear"}


def test_batches_may_be_tensors_tuples_or_dicts():
    class Two(nn.Module):
        def forward(self, a, b=0):
            return a + b

    assert [forward(Two(), x) for x in (torch.tensor(1), (1, 2), {"a": 1, "b": 3})] == [1, 3, 4]


@pytest.mark.parametrize("nothing", [None, [], iter(())])
def test_no_batches_is_an_error(nothing):
    with pytest.raises(UserError, match="Scoring looks at data, but no batches were given"):
        collect(nothing, "Scoring")


def test_convolutions_are_in_full_precision_until_the_end_or_an_error():
    def rounds() -> bool:
        cudnn = torch.backends.cudnn
        return cudnn.conv.fp32_precision == "tf32" if hasattr(cudnn, "conv") else cudnn.allow_tf32

    def fail() -> None:
        with full_precision():
            assert not rounds()
            raise UserError("inside")

    assert rounds()  # PyTorch's default
    with pytest.raises(UserError, match="inside"):
        fail()
    assert rounds()
