"""From per-slice vectors to per-component sums.

A label is one index of one parameter dimension, a component the set of labels that are removed together.
Everything here works on whole vectors of labels; nothing loops over channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["component_sums", "slice_sums", "weights"]


def weights(graph, model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable kind of tensors that the graph's slices name, detached; buffers are left out.

    Whether `requires_grad` is set makes no difference: a frozen weight still has a magnitude.
    """
    tensors = graph.parameters(model)
    return {name: t.detach() for name, t in tensors.items() if isinstance(t, nn.Parameter)}


def slice_sums(graph, values: Mapping[str, Tensor]) -> Iterator[tuple[int, np.ndarray]]:
    """Sum `values[parameter]` over all its dimensions but the slice's own.

    Args:
        graph: Dependency graph with `slices`.
        values: Parameter name to a tensor of the parameter's shape; slices of names that are absent are left out.

    Yields:
        The slice's first label and a float64 vector with one sum per index of the slice's dimension.
    """
    for piece in graph.slices:
        value = values.get(piece.parameter)
        if value is None:
            continue
        others = [d for d in range(value.ndim) if d != piece.dim]
        summed = value.sum(dim=others, dtype=torch.float64) if others else value.double()
        yield piece.start, summed.cpu().numpy()


def component_sums(graph, vectors: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Add up label vectors over components.

    Args:
        graph: Dependency graph with `component` (n_labels,) and `n_components`.
        vectors: Pairs of first label and values for it and the labels that follow it.

    Returns:
        float64 array (n_components,).
    """
    labels = np.zeros(len(graph.component))
    for start, vector in vectors:
        labels[start : start + len(vector)] = vector
    return np.bincount(graph.component, weights=labels, minlength=graph.n_components)
