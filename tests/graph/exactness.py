"""What exactness tests share: networks in which a wrong channel shows, and how much of one can go."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from yoloprune.graph import Graph
from yoloprune.graph.budget import chains


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


def randomise(model: nn.Module) -> nn.Module:
    """Random values for all parameters and floating-point buffers, in double precision and inference mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for p in model.parameters():
        if p.dim() > 1:
            p.data.normal_(0, (p.shape[1:].numel()) ** -0.5, generator=generator)
        else:
            p.data.uniform_(0.5, 1.5, generator=generator)
    for module in model.modules():
        for name in ("running_mean", "running_var"):
            if getattr(module, name, None) is not None:
                getattr(module, name).uniform_(0.5, 1.5, generator=generator)
    return model


def prunable_share(graph: Graph) -> float:
    """Of the channels that layers produce for other layers, the share that some plan can remove but for the last."""
    hidden = graph.produced.copy()
    for group in graph.groups:
        if group.reason == "reaches the model's output":
            hidden[group.components] = False
    can_go = 0
    for chain in chains(graph, np.zeros(graph.n_components), round_to=1):
        if chain.steps:
            can_go += len(chain.steps[0]) * (len(chain.steps) + 1)
    return can_go / max(hidden.sum(), 1)
