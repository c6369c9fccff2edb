"""An execution almost without arithmetic and activations: labels need shapes, and hardly ever values."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from yoloprune.graph.rules.registry import RuleError
from yoloprune.graph.tracing.internals import (
    Operator,
    StorageRef,
    has_dynamic_shape,
    is_mutable,
    storage_id,
)
from yoloprune.graph.tracing.output_shapes import CONTRACTIONS, KEYWORDS, MEMORY_BOUND, ShapeRule, Shapes
from yoloprune.graph.tracing.snapshot import written_tensors

__all__ = ["FakeExecution", "ValuesNeededError"]

_VALUE_READS = frozenset(["_local_scalar_dense", "equal"])
# their results depend on no argument's values
_FACTORIES = frozenset(["empty", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"])
_FACTORIES |= {"empty_like", "full_like", "ones_like", "zeros_like"}

_SWEEP_AFTER = 16  # fake storages between two searches for dead ones, at least
_LARGE = 1 << 16  # bytes from which zeros get pages of their own, which take no memory until somebody writes there
# shared pages would take it when they are read
_COPY_ON_WRITE: dict[str, int] = {} if os.name == "nt" else {"access": mmap.ACCESS_COPY}


class ValuesNeededError(Exception):
    """Something depends on a value that was not computed."""


class FakeExecution:
    """Runs operators; contractions give zeros of the right shape, and whatever is computed from these is fake too.

    Norms, activations and sums of fake values are not computed either, they are zeros again.

    Where a fake value could decide anything - as an index or a mask, as a number in the model's code, as the size of a
    result - it raises `ValuesNeededError`: the execution has to be repeated with values.

    Attributes:
        used: Whether anything was faked yet.
    """

    def __init__(self) -> None:
        self.used = False
        # storages that hold fake values; a weak reference keeps the address of a freed one from coming back
        self._fake_storages: dict[int, StorageRef] = {}
        self._sweep_above = _SWEEP_AFTER

    def run(self, name: str, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an ATen operator.

        Args:
            name: Its name without namespace and overload.
            operator: The operator.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            ValuesNeededError: See above.
            RuleError: The rule for the shapes of the operator's results has a fault.
        """
        if name in CONTRACTIONS and not kwargs and (shapes := _shapes(CONTRACTIONS[name], operator, args, kwargs)):
            self.used = True
            return self._mark_fake(_zeros(args, shapes))
        if not self._fake_storages or name in _FACTORIES or not self._takes_fake(name, args, kwargs):
            return operator(*args, **kwargs)
        if has_dynamic_shape(operator):
            raise ValuesNeededError(name)
        in_place = is_mutable(operator)
        rule = MEMORY_BOUND.get(name[:-1] if in_place else name)
        large = rule is not None and kwargs.keys() <= KEYWORDS and next(_tensors(args)).nbytes >= _LARGE
        if rule and large and (shapes := _shapes(rule, operator, args, kwargs)):
            return self._mark_fake(args[0] if in_place else _zeros(args, shapes))
        self._mark_fake(written_tensors(operator, args, kwargs))
        return self._mark_fake(operator(*args, **kwargs))

    def _mark_fake(self, out: Any) -> Any:
        for tensor in _tensors(out if isinstance(out, (list, tuple)) else (out,)):
            self._mark(tensor)
        return out

    def _mark(self, tensor: Tensor) -> None:
        if (place := storage_id(tensor)) not in self._fake_storages:
            self._fake_storages[place] = StorageRef(tensor)
        if len(self._fake_storages) > self._sweep_above:  # dead storages lie between live ones and waste memory
            self._fake_storages = {place: weak for place, weak in self._fake_storages.items() if not weak.is_dead()}
            self._sweep_above = 2 * len(self._fake_storages) + _SWEEP_AFTER

    def _takes_fake(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        found = [t for t in _tensors((*args, *kwargs.values())) if storage_id(t) in self._fake_storages]
        if found and (name in _VALUE_READS or not all(t.is_floating_point() for t in found)):
            raise ValuesNeededError(name)
        return bool(found)

    def read(self, tensor: Tensor) -> None:
        """Raise `ValuesNeededError` if the model's code is about to read fake values."""
        if storage_id(tensor) in self._fake_storages:
            raise ValuesNeededError("read by the model's code")


def _shapes(rule: ShapeRule, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shapes | None:
    try:
        return rule(*args, **kwargs)
    except Exception as error:
        operator(*args, **kwargs)  # if it raises as well, the model's call is what is wrong
        raise RuleError(operator, "shapes", error) from error


def _zeros(args: Iterable[Any], shapes: Iterable[Sequence[int]]) -> Tensor | tuple[Tensor, ...]:
    """Results of these shapes, one or several, of the type and on the device of the first tensor."""
    like = next(_tensors(args))
    results: list[Tensor] = []
    for shape in shapes:
        size = math.prod(shape) * like.element_size()
        if size < _LARGE or like.device.type != "cpu":
            results.append(like.new_zeros(shape))
        else:
            results.append(torch.frombuffer(mmap.mmap(-1, size, **_COPY_ON_WRITE), dtype=like.dtype).view(shape))
    return results[0] if len(results) == 1 else tuple(results)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor
