"""The tensors in what a network returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from yoloprune.graph.tracing.internals import leaves

__all__ = ["output_tensors"]


def output_tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in a structure of containers, dataclasses and other objects with attributes."""
    seen: dict[int, Any] = {}
    waiting: list[object] = [value]
    while waiting:
        for leaf in leaves(waiting.pop()):
            if isinstance(leaf, Tensor):
                yield leaf
            elif id(leaf) not in seen and not isinstance(leaf, (type, nn.Module)) and not callable(leaf):
                seen[id(leaf)] = leaf
                slots = [s for cls in type(leaf).__mro__ for s in getattr(cls, "__slots__", ())]
                waiting.append([*getattr(leaf, "__dict__", {}).values(), *(getattr(leaf, s, None) for s in slots)])
