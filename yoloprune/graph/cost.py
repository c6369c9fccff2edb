"""MACs and parameters as a function of which components are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from yoloprune.graph.labels import CostTerm
from yoloprune.graph.lookup import take

if TYPE_CHECKING:
    from yoloprune.graph.core import Graph

__all__ = ["Cost"]


class Cost:
    """One fused multiply-add is one MAC; biases, norms and activations are not counted."""

    def __init__(self, graph: Graph, terms: list[CostTerm]) -> None:
        self.terms = [term._replace(vectors=()) for term in terms]  # their labels are kept in one vector below
        self._n_components = graph.n_components
        vectors, owner = [], []
        for i, term in enumerate(terms):
            for v in term.vectors:
                vectors.append(graph.component[v.numpy()])
                owner.append(i)
        self._macs = np.array([t.macs for t in terms], np.float64)
        flat = np.concatenate(vectors) if vectors else np.zeros(0, np.int32)
        self._vectors, self._owner = (flat, *_offsets([len(v) for v in vectors])), np.array(owner, np.int64)
        names = sorted(graph.shapes)
        trainable = {name: i for i, name in enumerate(names)}
        self._numel = np.array([math.prod(graph.shapes[n]) for n in names], np.float64)
        self._is_parameter = np.array([graph.is_parameter[n] for n in names], bool)
        self._dims = (graph.component[1:], *_offsets([s.size for s in graph.slices]))
        self._dim_owner = np.array([trainable[s.parameter] for s in graph.slices], np.int64)

    def per_term(self, kept: np.ndarray) -> np.ndarray:
        """MACs of each operator, float64 (terms,); `kept` is bool (n_components,)."""
        return _scale(self._macs, self._vectors, self._owner, kept)

    def macs(self, kept: np.ndarray) -> float:
        """MACs of one execution."""
        return float(self.per_term(kept).sum())

    def savings(self) -> np.ndarray:
        """MACs that each component's removal saves while all others stay, float64 (n_components,)."""
        flat, _, sizes = self._vectors
        each = np.repeat(self._macs[self._owner] / np.maximum(sizes, 1), sizes)
        return np.bincount(flat, weights=each, minlength=self._n_components)

    def params(self, kept: np.ndarray) -> int:
        """Number of parameters (buffers are not counted)."""
        return round(float(_scale(self._numel, self._dims, self._dim_owner, kept)[self._is_parameter].sum()))


def _offsets(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where vectors of these lengths start when they are concatenated, and the lengths."""
    sizes = np.array(lengths, np.int64)
    return np.cumsum(sizes) - sizes, sizes


def _scale(
    base: np.ndarray, packed: tuple[np.ndarray, np.ndarray, np.ndarray], owner: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    flat, starts, sizes = packed
    out = base.copy()
    if len(sizes):
        share = np.add.reduceat(take(kept, flat), starts, dtype=np.int64) / sizes
        np.multiply.at(out, owner, share)
    return out
