"""Which labels met during an execution, and the components that follow: dependencies resolved to coupled channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from yoloprune.graph.lookup import take

__all__ = ["FROZEN", "LABEL_DTYPE", "UnionFind"]

LABEL_DTYPE = torch.int32  # a label; attention over a video holds hundreds of millions of copies of them
FROZEN = 0  # the label of an index that must stay: a constant's own channels

# pairs that wait until they are united, at least and as a share of the labels, all of which are looked at each time
_AT_ONCE, _SHARE = 1 << 16, 0.25


class UnionFind:
    """Pairs of labels that belong together, as a forest in which each label points to a lower one or to itself."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0
        self._parent = np.zeros(0, np.int32)  # outside `_unite` the lowest label of each one's component
        self._met = np.zeros(0, bool)

    def add(self, a: Tensor, b: Tensor, size: int) -> None:
        """Say that labels belong together.

        Args:
            a: Labels, int32 (pairs,).
            b: Their partners, int32 (pairs,).
            size: The number of labels so far.
        """
        self._pairs.append((a, b))
        self._waiting += len(a)
        if self._waiting > max(_AT_ONCE, size * _SHARE):
            self._unite(size)

    def components(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Components of labels that belong together, numbered by their lowest label.

        Args:
            size: The number of labels.

        Returns:
            The component of each label, int32 (size,), and the labels that met a constant's, which joins nothing.
        """
        self._unite(size)
        number = np.cumsum(self._parent == np.arange(size, dtype=np.int32), dtype=np.int32)
        number -= 1
        return take(number, self._parent), np.flatnonzero(self._met)

    def _unite(self, size: int) -> None:
        """Let the pairs that wait into the forest.

        Roots are hung below lower ones, all at once, and paths are cut short, until no pair has two roots (Shiloach and
        Vishkin, 1982). Labels are numbered in the order of the execution, so that it seldom takes a second round.
        """
        self._parent = np.concatenate([self._parent, np.arange(len(self._parent), size, dtype=np.int32)])
        self._met = np.concatenate([self._met, np.zeros(size - len(self._met), bool)])
        a, b = (np.concatenate([pair[i].numpy() for pair in self._pairs] or [self._parent[:0]]) for i in (0, 1))
        self._pairs, self._waiting = [], 0
        constant = (a == FROZEN) | (b == FROZEN)
        self._met[a[constant]] = self._met[b[constant]] = True
        a, b = a[~constant], b[~constant]
        while len(a):
            a, b = self._parent[a], self._parent[b]
            apart = a != b
            a, b = a[apart], b[apart]
            np.minimum.at(self._parent, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(above := take(self._parent, self._parent), self._parent):
                self._parent = above
