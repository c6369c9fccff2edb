"""The control experiment."""

from __future__ import annotations

import numpy as np
from torch import nn

from .registry import Inputs, criterion

__all__ = ["random"]


@criterion("random")
def random(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Uniform random numbers in [0, 1), the same for the same seed: what any criterion has to beat."""
    return np.random.default_rng(inputs.seed).random(graph.n_components)
