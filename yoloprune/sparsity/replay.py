"""A computation that is repeated at every step, on a GPU as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replay"]


class Replay:
    """Calls a function of tensors; on a GPU its kernels are recorded once and then started all at once.

    A small network's regulariser is hundreds of small kernels, and each takes longer to start than to run.

    Args:
        function: Takes nothing and returns tensors. It reads the values of `tensors`, and may keep others of its own.
        tensors: What it reads, on one device. Where one of them moved, everything is recorded anew.
    """

    def __init__(self, function: Callable[[], list[Tensor]], tensors: Sequence[Tensor]) -> None:
        self._function, self._tensors = function, tensors
        self._places: list[int] = []

    def __call__(self) -> list[Tensor]:
        """What the function returns; valid until the next call."""
        device = self._tensors[0].device
        if device.type != "cuda":
            return self._function()
        places = [t.data_ptr() for t in self._tensors]
        with torch.cuda.device(device):
            if places != self._places:
                self._record()
                self._places = places
            self._graph.replay()
        return self._results

    def _record(self) -> None:
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._function()  # libraries set themselves up in the first call
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # other threads, such as one that pins the memory of batches, may go on with what they do
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = self._function()
