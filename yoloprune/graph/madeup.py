"""An execution almost without arithmetic and activations: labels need shapes, and hardly ever values."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from yoloprune.graph.rules.registry import RuleError
from yoloprune.graph.shapes import CONTRACTIONS, FOLLOWERS, KEYWORDS, Rule, Shapes
from yoloprune.graph.unchanged import memory, written

__all__ = ["MadeUp", "ValuesNeededError"]

_READS = frozenset(["_local_scalar_dense", "equal"])
_FRESH = frozenset(["empty", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"])
_FRESH |= {"empty_like", "full_like", "ones_like", "zeros_like"}  # their results hang on no argument's values

_AT_ONCE = 16  # made-up storages between two looks for dead ones, at least
_LARGE = 1 << 16  # bytes from which zeros get pages of their own, which take no memory until somebody writes there
_PRIVATE = {} if os.name == "nt" else {"access": mmap.ACCESS_COPY}  # shared ones would take it when they are read


class ValuesNeededError(Exception):
    """Something hangs on a value that was not computed."""


class MadeUp:
    """Runs operators; contractions give zeros of the right shape, and what is computed from these is made up too.

    Norms, activations and sums of what is made up are not computed either, they are zeros again.

    Where a made-up value could decide anything - as an index or a mask, as a number in the model's code, as the size of
    a result - it raises `ValuesNeededError`: the execution has to be repeated with values.

    Attributes:
        used: Whether anything was made up yet.
    """

    def __init__(self) -> None:
        self.used = False
        # storages that hold made-up values; a weak reference keeps the address of a freed one from coming back
        self._places: dict[int, StorageWeakRef] = {}
        self._most = _AT_ONCE

    def run(self, name: str, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run an ATen operator.

        Args:
            name: Its name without namespace and overload.
            func: The operator.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            ValuesNeededError: See above.
            RuleError: What says which shapes the operator gives has a fault.
        """
        if name in CONTRACTIONS and not kwargs and (shapes := _shapes(CONTRACTIONS[name], func, args, kwargs)):
            self.used = True
            return self._noted(_zeros(args, shapes))
        if not self._places or name in _FRESH or not self._takes_made_up(name, args, kwargs):
            return func(*args, **kwargs)
        if torch.Tag.dynamic_output_shape in func.tags:
            raise ValuesNeededError(name)
        changes = func._schema.is_mutable
        rule = FOLLOWERS.get(name[:-1] if changes else name)
        large = rule and kwargs.keys() <= KEYWORDS and next(_tensors(args)).nbytes >= _LARGE
        if large and (shapes := _shapes(rule, func, args, kwargs)):
            return self._noted(args[0] if changes else _zeros(args, shapes))
        self._noted(written(func, args, kwargs))
        return self._noted(func(*args, **kwargs))

    def _noted(self, out: Any) -> Any:
        for tensor in _tensors(out if isinstance(out, (list, tuple)) else (out,)):
            self._note(tensor)
        return out

    def _note(self, tensor: Tensor) -> None:
        self._places.setdefault(memory(tensor), StorageWeakRef(tensor.untyped_storage()))
        if len(self._places) > self._most:  # what is left of dead storages lies between live ones and wastes memory
            self._places = {place: weak for place, weak in self._places.items() if not weak.expired()}
            self._most = 2 * len(self._places) + _AT_ONCE

    def _takes_made_up(self, name: str, args: tuple, kwargs: dict) -> bool:
        found = [t for t in _tensors((*args, *kwargs.values())) if memory(t) in self._places]
        if found and (name in _READS or not all(t.is_floating_point() for t in found)):
            raise ValuesNeededError(name)
        return bool(found)

    def read(self, tensor: Tensor) -> None:
        """Raise `ValuesNeededError` if the model's code is about to read made-up values."""
        if memory(tensor) in self._places:
            raise ValuesNeededError("read by the model's code")


def _shapes(rule: Rule, func: Any, args: tuple, kwargs: dict) -> Shapes | None:
    try:
        return rule(*args, **kwargs)
    except Exception as error:
        func(*args, **kwargs)  # if it raises as well, the model's call is what is wrong
        raise RuleError(func, "shapes", error) from error


def _zeros(args: Iterable[Any], shapes: Iterable[Sequence[int]]) -> Tensor | tuple[Tensor, ...]:
    """Results of these shapes, one or several, of the type and on the device of the first tensor."""
    like, made = next(_tensors(args)), []
    for shape in shapes:
        size = math.prod(shape) * like.element_size()
        if size < _LARGE or like.device.type != "cpu":
            made.append(like.new_zeros(shape))
        else:
            made.append(torch.frombuffer(mmap.mmap(-1, size, **_PRIVATE), dtype=like.dtype).view(shape))
    return made[0] if len(made) == 1 else tuple(made)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor
