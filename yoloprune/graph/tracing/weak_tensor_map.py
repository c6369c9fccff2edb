"""A dictionary by tensor that keeps no tensor alive."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["WeakTensorMap"]

T = TypeVar("T")


class WeakTensorMap(Generic[T]):
    """Values by tensor identity, dropped when their tensor is.

    An attribute set on the tensor would leak into another trace if the model caches that tensor. Unlike
    `WeakIdKeyDictionary` it compares no keys, since it is looked up some twenty times per operator.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], T]] = {}

    def __setitem__(self, tensor: Tensor, value: T) -> None:
        key = id(tensor)
        # a value that outlived its tensor would lie between activations and keep their memory from being reused
        self._entries[key] = weakref.ref(tensor, lambda dead: self._entries.pop(key)), value

    def clear(self) -> None:
        """Forget everything; the entries refer to each other and would otherwise wait for the garbage collector."""
        self._entries.clear()

    def get(self, tensor: Tensor) -> T | None:
        """What was set for this very tensor, None if nothing was."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry and entry[0]() is tensor else None
