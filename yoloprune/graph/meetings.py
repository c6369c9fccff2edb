"""Which labels met during an execution, and the components that follow: dependencies resolved to coupled channels."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["FROZEN", "LABEL", "Meetings"]

LABEL = torch.int32  # a label; attention over a video holds hundreds of millions of copies of them
FROZEN = 0  # the label of an index that must stay: a constant's own channels

_MOST = 4_000_000  # pairs kept as they came, 32 MB: a video transformer brings tens of millions


class Meetings:
    """Pairs of labels that belong together, in bounded memory: many pairs become one per label now and then."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0

    def add(self, a: Tensor, b: Tensor, size: int) -> None:
        """Say that labels belong together.

        Args:
            a: Labels, int32 (pairs,).
            b: Their partners, int32 (pairs,).
            size: The number of labels so far.
        """
        self._pairs.append((a, b))
        self._waiting += len(a)
        if self._waiting > _MOST:
            self._fold(size)

    def components(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Components of labels that belong together, numbered by their lowest label.

        Args:
            size: The number of labels.

        Returns:
            The component of each label, int64 (size,), and the labels that met a constant's, which joins nothing.
        """
        a, b = (np.concatenate([pair[i].numpy() for pair in self._pairs] or [np.zeros(0, np.int32)]) for i in (0, 1))
        constant = (a == FROZEN) | (b == FROZEN)
        met = np.concatenate([a[constant], b[constant]])
        a, b = a[~constant], b[~constant]
        _, component = connected_components(coo_matrix((np.ones(len(a), bool), (a, b)), (size, size)), directed=False)
        return component.astype(np.int64), met

    def _fold(self, size: int) -> None:
        component, met = self.components(size)
        _, lowest = np.unique(component, return_index=True)
        root, met = lowest[component], np.unique(met)
        others = np.flatnonzero(root != np.arange(size))
        pairs = (others, root[others]), (met, np.full(len(met), FROZEN))
        self._pairs = [(torch.from_numpy(a).to(LABEL), torch.from_numpy(b).to(LABEL)) for a, b in pairs]
        self._waiting = 0
