"""Union-find over labels: which belong together, and the components of coupled channels that follow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from yoloprune.graph.lookup import take

__all__ = ["FROZEN", "LABEL_DTYPE", "UnionFind"]

LABEL_DTYPE = torch.int32  # a label; attention over a video holds hundreds of millions of copies of them
FROZEN = 0  # the label of an index that must stay: a constant's own channels

# pairs that wait before they are united, at least and as a share of the labels: each time goes through all labels
_AT_ONCE, _SHARE = 1 << 16, 0.25


class UnionFind:
    """Pairs of labels that belong together, as a forest in which each label points to a lower one or to itself."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0
        self._parent = np.zeros(0, np.int32)  # outside `_unite` the lowest label of each one's component
        self._met = np.zeros(0, bool)

    def add(self, a: Tensor, b: Tensor, size: int) -> None:
        """Record that labels belong together.

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
            The component of each label, int32 (size,), and the labels that were united with a constant's, which does
            not join them.
        """
        self._unite(size)
        number = np.cumsum(self._parent == np.arange(size, dtype=np.int32), dtype=np.int32)
        number -= 1
        return take(number, self._parent), np.flatnonzero(self._met)

    def _unite(self, size: int) -> None:
        """Merge the waiting pairs into the forest.

        All roots at once are attached to lower ones and paths are shortened, until no pair has two roots (Shiloach and
        Vishkin, 1982). Labels are numbered in the order of the execution, so a second round is rarely needed.
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
