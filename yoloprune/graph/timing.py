"""What operators take on the machine at hand: another unit of cost than MACs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from yoloprune.calibration import evaluation, forward

if TYPE_CHECKING:
    from yoloprune.graph.core import Graph

__all__ = ["operator_seconds"]


def operator_seconds(graph: Graph, model: nn.Module, batch: Any, *, repeats: int = 10) -> np.ndarray:
    """Seconds of each operator that has MACs, measured where the model and the batch are.

    The clock runs per module, without the modules inside it that have operators of their own; several operators of one
    module share its time by their MACs. Of all executions the quickest counts, since others only disturb.

    Args:
        graph: What `trace` returned for this model.
        model: The network; left as it is.
        batch: A calibration batch, of the size and on the device that time matters for.
        repeats: Executions.

    Returns:
        float64 array (terms of `graph.cost`,), for `score(seconds=...)`.
    """
    terms = graph.cost.terms
    owners = {name: model.get_submodule(name) for name in {term.module for term in terms}}
    clock = _Clock(on_gpu=any(p.is_cuda for p in model.parameters()))
    best = dict.fromkeys(owners, np.inf)
    handles = []
    for name, module in owners.items():
        handles.append(module.register_forward_pre_hook(lambda m, args, name=name: clock.enter(name)))
        handles.append(module.register_forward_hook(lambda m, args, out: clock.leave()))
    try:
        with evaluation(model), torch.no_grad():
            forward(model, batch)  # the first execution allocates and chooses kernels
            for _ in range(repeats):
                clock.own = dict.fromkeys(owners, 0.0)
                forward(model, batch)
                best = {name: min(best[name], seconds) for name, seconds in clock.own.items()}
    finally:
        for handle in handles:
            handle.remove()
    macs = dict.fromkeys(owners, 0)
    for term in terms:
        macs[term.module] += term.macs
    return np.array([best[term.module] * term.macs / max(macs[term.module], 1) for term in terms])


class _Clock:
    """Each module's own time: that of a module inside another one is not the outer one's."""

    def __init__(self, on_gpu: bool) -> None:
        self.own: dict[str, float] = {}
        self._on_gpu, self._open, self._since = on_gpu, [], 0.0

    def enter(self, name: str) -> None:
        self._lap()
        self._open.append(name)

    def leave(self) -> None:
        self._lap()
        self._open.pop()

    def _lap(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()  # kernels run behind Python's back
        now = time.perf_counter()
        if self._open and self._open[-1] in self.own:
            self.own[self._open[-1]] += now - self._since
        self._since = now
