"""From per-slice vectors to per-component sums.

A label is one index of one parameter dimension, a component the set of labels that are removed together.
Everything here works on whole vectors of labels; nothing loops over channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["component_sums", "slice_sums", "weights"]

_CACHED = 2**16  # elements that are summed at a time


def weights(graph, model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable kind of tensors that the graph's slices name, detached; buffers are left out.

    Whether `requires_grad` is set makes no difference: a frozen weight still has a magnitude.
    """
    tensors = graph.parameters(model)
    return {name: t.detach() for name, t in tensors.items() if isinstance(t, nn.Parameter)}


def slice_sums(
    graph, values: Mapping[str, Tensor], function: Callable[[Tensor], Tensor] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Sum `function(values[parameter])` over all its dimensions but the slice's own.

    Args:
        graph: Dependency graph with `slices`.
        values: Parameter name to a tensor of the parameter's shape; slices of names that are absent are left out.
        function: Element-wise, computed in float64; by default the values themselves.

    Yields:
        The slice's first label and a float64 vector with one sum per index of the slice's dimension.
    """
    for name, pieces in itertools.groupby(graph.slices, key=lambda piece: piece.parameter):
        if name in values:
            first, others = _sums(values[name], function)
            for piece in pieces:
                rest = [d for d in range(others.ndim) if d != piece.dim - 1]
                vector = first if piece.dim == 0 else others.sum(dim=rest) if rest else others
                yield piece.start, vector.cpu().numpy()


def _sums(value: Tensor, function: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    """Sums over all dimensions but the first, and over the first, in float64 and a part at a time, for the cache."""
    rows = value.reshape(len(value), math.prod(value.shape[1:]))
    first = torch.empty(len(rows), dtype=torch.float64, device=value.device)
    others = torch.zeros(rows.shape[1], dtype=torch.float64, device=value.device)
    step = max(_CACHED // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step].double()
        if function is not None:
            part = function(part)
        first[start : start + step] = part.sum(1)
        others += part.sum(0)
    return first, others.view(value.shape[1:])


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
