"""Sums and extremes over segments of a vector, by gathers alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Segments"]


class Segments:
    """A division of the entries of a vector into segments 0 … count - 1, none of them empty.

    Segments of equal length are gathered into one matrix and reduced along its rows. That takes a handful of kernels
    whatever the number of segments, and, unlike `index_add_` on a GPU, adds in the same order each time: processes
    with equal weights keep equal weights.

    Args:
        of: Segment of each entry, int64 (entries,), or -1 for an entry that is in none.
        device: Where the vectors will be.
    """

    def __init__(self, of: np.ndarray, device: torch.device):
        order = np.argsort(of, kind="stable")[np.count_nonzero(of < 0) :]
        lengths = np.bincount(of[order])
        starts = np.cumsum(lengths) - lengths
        self.count = len(lengths)
        self._entries: list[Tensor] = []
        by_length = []
        for length in np.unique(lengths):
            own = np.flatnonzero(lengths == length)
            by_length.append(own)
            entries = order[starts[own][:, None] + np.arange(length)]
            self._entries.append(torch.from_numpy(entries).to(device))
        place = np.empty(self.count, np.int64)
        place[np.concatenate(by_length)] = np.arange(self.count)
        self._place = torch.from_numpy(place).to(device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over each segment, (count,), for values (entries,)."""
        return torch.cat([values[entries].sum(1) for entries in self._entries])[self._place]

    def extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest of each segment, (count,) both, for values (entries,)."""
        parts = [torch.aminmax(values[entries], dim=1) for entries in self._entries]
        return torch.cat([p.min for p in parts])[self._place], torch.cat([p.max for p in parts])[self._place]
