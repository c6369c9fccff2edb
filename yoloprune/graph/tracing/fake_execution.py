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
from yoloprune.graph.tracing.output_shapes import CONTRACTIONS, KEYWORDS, MEMORY_BOUND, Rule, Shapes
from yoloprune.graph.tracing.snapshot import storage_id, written_tensors

__all__ = ["FakeExecution", "ValuesNeededError"]

_VALUE_READS = frozenset(["_local_scalar_dense", "equal"])
_FACTORIES = frozenset(["empty", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"])
_FACTORIES |= {"empty_like", "full_like", "ones_like", "zeros_like"}  # their results hang on no argument's values

_SWEEP_AFTER = 16  # made-up storages between two looks for dead ones, at least
_LARGE = 1 << 16  # bytes from which zeros get pages of their own, which take no memory until somebody writes there
_COPY_ON_WRITE = {} if os.name == "nt" else {"access": mmap.ACCESS_COPY}  # shared ones would take it when they are read


class ValuesNeededError(Exception):
    """Something hangs on a value that was not computed."""


class FakeExecution:
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
        self._fake_storages: dict[int, StorageWeakRef] = {}
        self._sweep_above = _SWEEP_AFTER

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
            return self._mark_fake(_zeros(args, shapes))
        if not self._fake_storages or name in _FACTORIES or not self._takes_fake(name, args, kwargs):
            return func(*args, **kwargs)
        if torch.Tag.dynamic_output_shape in func.tags:
            raise ValuesNeededError(name)
        changes = func._schema.is_mutable
        rule = MEMORY_BOUND.get(name[:-1] if changes else name)
        large = rule and kwargs.keys() <= KEYWORDS and next(_tensors(args)).nbytes >= _LARGE
        if large and (shapes := _shapes(rule, func, args, kwargs)):
            return self._mark_fake(args[0] if changes else _zeros(args, shapes))
        self._mark_fake(written_tensors(func, args, kwargs))
        return self._mark_fake(func(*args, **kwargs))

    def _mark_fake(self, out: Any) -> Any:
        for tensor in _tensors(out if isinstance(out, (list, tuple)) else (out,)):
            self._mark(tensor)
        return out

    def _mark(self, tensor: Tensor) -> None:
        self._fake_storages.setdefault(storage_id(tensor), StorageWeakRef(tensor.untyped_storage()))
        if (
            len(self._fake_storages) > self._sweep_above
        ):  # what is left of dead storages lies between live ones and wastes memory
            self._fake_storages = {place: weak for place, weak in self._fake_storages.items() if not weak.expired()}
            self._sweep_above = 2 * len(self._fake_storages) + _SWEEP_AFTER

    def _takes_fake(self, name: str, args: tuple, kwargs: dict) -> bool:
        found = [t for t in _tensors((*args, *kwargs.values())) if storage_id(t) in self._fake_storages]
        if found and (name in _VALUE_READS or not all(t.is_floating_point() for t in found)):
            raise ValuesNeededError(name)
        return bool(found)

    def read(self, tensor: Tensor) -> None:
        """Raise `ValuesNeededError` if the model's code is about to read made-up values."""
        if storage_id(tensor) in self._fake_storages:
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
            made.append(torch.frombuffer(mmap.mmap(-1, size, **_COPY_ON_WRITE), dtype=like.dtype).view(shape))
    return made[0] if len(made) == 1 else tuple(made)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor
