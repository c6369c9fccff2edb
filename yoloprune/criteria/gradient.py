"""Criteria from the loss on calibration batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .labels import component_sums, slice_sums, weights
from .loss import gradients
from .registry import Inputs, criterion

__all__ = ["hessian", "taylor"]


@criterion("taylor", needs_batches=True, needs_loss=True)
def taylor(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """First-order change of the loss: Σ_slices |Σ_{w∈slice} w · ∂L/∂w|, averaged over the batches.

    Molchanov et al., CVPR 2019, equation 8, over the whole group, batch norms and biases included. The absolute value
    is taken batch by batch, since at a minimum the gradients of many batches cancel.
    """
    values = weights(graph, model)
    total = np.zeros(graph.n_components)
    for found in gradients(graph, model, inputs):
        products = {name: values[name].float() * g.float() for name, g in found.items()}
        total += component_sums(graph, ((start, np.abs(v)) for start, v in slice_sums(graph, products)))
    return total / len(inputs.batches)


@criterion("hessian", needs_batches=True, needs_loss=True)
def hessian(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Second-order change of the loss with a diagonal Hessian: ½ Σ_w h_w w².

    h_w is the mean squared gradient over all batches, the empirical Fisher information (LeCun et al., Optimal Brain
    Damage, 1989). A batch counts as one sample, so batches of one image give the exact figure.
    """
    values = weights(graph, model)
    squared = {name: torch.zeros(w.shape, dtype=torch.float32, device=w.device) for name, w in values.items()}
    for found in gradients(graph, model, inputs):
        for name, gradient in found.items():
            squared[name].addcmul_(gradient.float(), gradient.float(), value=0.5 / len(inputs.batches))
    return component_sums(graph, slice_sums(graph, {n: squared[n] * w.float().square() for n, w in values.items()}))
