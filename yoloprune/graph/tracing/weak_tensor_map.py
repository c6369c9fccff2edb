"""Values kept beside tensors."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["WeakTensorMap"]

T = TypeVar("T")


class WeakTensorMap(Generic[T]):
    """A dictionary by tensor that keeps no tensor alive.

    Beside the tensors, not on them: one that the model caches would take what it carries into another trace. Unlike
    `WeakIdKeyDictionary` it compares no keys, for it is asked some twenty times per operator.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], T]] = {}

    def __setitem__(self, tensor: Tensor, value: T) -> None:
        key = id(tensor)
        # a value that outlived its tensor would lie between activations and keep their memory from being used again
        self._entries[key] = weakref.ref(tensor, lambda dead: self._entries.pop(key)), value

    def clear(self) -> None:
        """Forget everything; the entries refer to each other, so that they would else wait for Python's collector."""
        self._entries.clear()

    def get(self, tensor: Tensor) -> T | None:
        """What was set for this very tensor."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry and entry[0]() is tensor else None
