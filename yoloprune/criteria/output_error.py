"""Importance from what removal does to the outputs of the layers behind."""

from __future__ import annotations

import numpy as np
from torch import nn

from .consumers import observed
from .registry import Inputs, criterion

__all__ = ["output_error"]


@criterion("output_error", needs_batches=True, per_mac=1.0)
def output_error(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Error that removal causes in the layers that consume the channel: Σ_layers Σ_o Var(x_c) ‖W[o,c]‖² / Var(y_o).

    The variances are over all positions of the calibration batches; where neither a bias nor a batch norm takes up a
    lost mean, it counts too. This is the objective of Channel Pruning (He et al., ICCV 2017, equation 1) for a single
    channel, relative to the layer's own output. With a loss, the share of each output is weighted by
    (Var(y_o) Σ (∂L/∂y_o)²)^influence: what its change does behind the layer (the Fisher information of GroupFisher,
    Liu et al., ICML 2021, summed over positions). Channels that no convolution or linear layer consumes stay longest.
    """
    scores, met = np.zeros(graph.n_components), np.zeros(graph.n_components, bool)
    for consumer in observed(graph, model, inputs):
        errors, consumed = consumer.moments.errors(consumer.centred), consumer.consumed
        np.add.at(scores, np.broadcast_to(consumed, (len(errors) // len(consumed), len(consumed))).ravel(), errors)
        met[consumed] = True
    scores[~met] = scores.max(initial=1.0) * np.maximum(graph.cost.savings()[~met], 1.0)
    return scores
