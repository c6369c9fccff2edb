"""How much memory a forward pass holds where it pauses, so that many side by side stay within a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import OperatorMode, StorageRef, leaves, storage_id

__all__ = ["bytes_held"]


def bytes_held(run: Callable[[], Any], layers: Iterable[nn.Module]) -> int:
    """Run a function; return the most bytes that tensors made by it hold when one of the layers has been called."""
    held = [0]
    with torch.no_grad(), _Live() as live:
        handles = [layer.register_forward_hook(lambda *_: held.append(live.bytes())) for layer in layers]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
    return max(held)


class _Live(OperatorMode):
    """Knows the storages that operators returned: the same on every device, where allocators can be asked on few."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[StorageRef, int]] = {}

    def bytes(self) -> int:
        """Size of all storages that are still in use."""
        self._known = {key: value for key, value in self._known.items() if not value[0].is_dead()}
        return sum(size for _, size in self._known.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = {storage_id(t) for t in leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in leaves(out):
            if isinstance(tensor, Tensor) and (key := storage_id(tensor)) not in given:  # views and in-place results
                self._known[key] = StorageRef(tensor), tensor.untyped_storage().nbytes()  # hold nothing of their own
        return out
