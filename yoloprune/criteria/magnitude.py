"""Magnitude of the coupled weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .labels import component_sums, slice_sums, weights
from .registry import Inputs, criterion

__all__ = ["l1", "l2"]


@criterion("l2", relative=True)
def l2(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Squared L2 norm of everything that goes with a channel: I(g,k) = Σ_{w∈g} ‖w[k]‖².

    DepGraph (Fang et al., CVPR 2023, section 3.3). Output and input slices, depthwise kernels, biases and norm affines
    all count.
    """
    return component_sums(graph, slice_sums(graph, weights(graph, model), torch.square))


@criterion("l1", relative=True)
def l1(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """L1 norm of everything that goes with a channel: Σ_{w∈g} ‖w[k]‖₁.

    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, over the whole group instead of one filter.
    """
    return component_sums(graph, slice_sums(graph, weights(graph, model), torch.abs))
