"""Scale of the batch norms."""

from __future__ import annotations

import warnings

import numpy as np
from torch import nn

from yoloprune.graph.tracing.internals import BatchNorm

from ..errors import UserError
from .labels import component_sums, slice_sums, weights
from .magnitude import l2
from .registry import Inputs, criterion
from .relative import relative

__all__ = ["bn_scale"]


@criterion("bn_scale")
def bn_scale(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Mean |γ| over the batch norms of a channel, compared over the whole network.

    Network Slimming (Liu et al., ICCV 2017). Channels without a batch norm are ranked by their relative squared L2
    norm times the mean |γ| of the others, with a warning that says how many.
    """
    modules = [module for module in model.modules() if isinstance(module, BatchNorm) and module.weight is not None]
    owned = {id(module.weight) for module in modules}
    # by identity, since a shared parameter has one name in the graph and may have another in its module
    named = {name: t for name, t in graph.parameters(model).items() if id(t) in owned}
    scales = {name: w.abs() for name, w in weights(graph, model).items() if name in named}
    if not scales:
        raise UserError("Criterion 'bn_scale' needs batch norms, and the network has none to prune; use 'l2'.")
    total = component_sums(graph, slice_sums(graph, scales))
    count = component_sums(graph, ((start, np.ones_like(v)) for start, v in slice_sums(graph, scales)))
    scores = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    without = count == 0
    if missing := int(np.count_nonzero(without & ~graph.frozen)):
        warnings.warn(
            f"bn_scale: {missing} of {int(np.count_nonzero(~graph.frozen))} prunable channels have no batch norm; "
            "they are ranked by their relative L2 norm instead.",
            stacklevel=3,
        )
    scores[without] = relative(graph, l2(graph, model, inputs))[without] * scores[~without].mean()
    return scores
