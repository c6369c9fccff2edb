"""What exactness tests share: a network in which a wrong channel shows, and the error of a plan."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from yoloprune.graph import Plan


def enliven(model: nn.Module, size: int = 8, channels: int = 3) -> nn.Module:
    """Random affine parameters and BN calibrated on activations, in inference mode.

    In a default-initialised network a wrong channel moves the output by less than 1e-6.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.randn(2, channels, size, size, generator=generator))
    return model.eval()


def outputs(out: object, drop: str = "") -> list[Tensor]:
    """Floating-point tensors of any output structure, without those under a dictionary key `drop`."""
    leaves = [(str(path), t) for path, t in tree_flatten_with_path(out)[0]]
    return [
        t.double()
        for path, t in leaves
        if isinstance(t, Tensor) and t.is_floating_point() and not (drop and drop in path)
    ]


def mask_error(model: nn.Module, plan: Plan, x: Tensor, drop: str = "") -> float:
    """Largest relative difference between the pruned model and the original with the removed slices zeroed."""
    with torch.no_grad():
        masked = outputs(plan.mask_(copy.deepcopy(model))(x), drop)
        pruned = outputs(plan.apply(model)(x), drop)
    assert masked and [m.shape for m in masked] == [p.shape for p in pruned]
    return max(
        float((m - p).abs().max() / m.abs().max().clamp_min(1e-9))
        for m, p in zip(masked, pruned, strict=False)
        if m.numel()
    )
