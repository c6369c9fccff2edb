"""Matrix products and convolutions without their arithmetic: labels need shapes, and hardly ever values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["MadeUp", "ValuesNeededError"]

_READS = frozenset(["_local_scalar_dense", "equal"])
_FRESH = frozenset(["empty", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"])
_FRESH |= {"empty_like", "full_like", "ones_like", "zeros_like"}  # their results hang on no argument's values

_AT_ONCE = 16  # made-up storages between two looks for dead ones, at least


class ValuesNeededError(Exception):
    """Something hangs on a value that was not computed."""


class MadeUp:
    """Runs operators; contractions give zeros of the right shape, and what is computed from these is made up too.

    Where a made-up value could decide anything - as an index or a mask, as a number in the model's code, as the size of
    a result, as what stays in the model - it raises `ValuesNeededError`: the execution has to be repeated with values.

    Args:
        lasting: Tensors that outlive the execution.
    """

    def __init__(self, lasting: Iterable[Tensor]) -> None:
        self._lasting = {_memory(t) for t in lasting}
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
        """
        shape = _SHAPES[name](*args) if name in _SHAPES and not kwargs else None
        if shape is not None:
            out = args[0].new_zeros(shape)
            self._note(out)
            return out
        made_up = self._places and name not in _FRESH and self._takes_made_up(name, args, kwargs)
        if made_up:
            grows = torch.Tag.dynamic_output_shape in func.tags
            if grows or (func._schema.is_mutable and _memory(args[0]) in self._lasting):
                raise ValuesNeededError(name)
        out = func(*args, **kwargs)
        if made_up:
            for tensor in _tensors(out if isinstance(out, (list, tuple)) else (out,)):
                self._note(tensor)
        return out

    def _note(self, tensor: Tensor) -> None:
        self._places.setdefault(_memory(tensor), StorageWeakRef(tensor.untyped_storage()))
        if len(self._places) > self._most:  # what is left of dead storages lies between live ones and wastes memory
            self._places = {place: weak for place, weak in self._places.items() if not weak.expired()}
            self._most = 2 * len(self._places) + _AT_ONCE

    def _takes_made_up(self, name: str, args: tuple, kwargs: dict) -> bool:
        found = [t for t in _tensors((*args, *kwargs.values())) if _memory(t) in self._places]
        if found and (name in _READS or not all(t.is_floating_point() for t in found)):
            raise ValuesNeededError(name)
        return bool(found)

    def read(self, tensor: Tensor) -> None:
        """Raise `ValuesNeededError` if the model's code is about to read made-up values."""
        if _memory(tensor) in self._places:
            raise ValuesNeededError("read by the model's code")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield tensor


def _alike(*tensors: Tensor) -> bool:
    """Whether these are plain tensors of one floating type, so that nothing but their shapes can make them unfit."""
    first = tensors[0]
    return all(
        type(t) in (Tensor, torch.nn.Parameter)
        and t.is_floating_point()
        and t.layout is torch.strided
        and (t.dtype, t.device) == (first.dtype, first.device)
        for t in tensors
    )


def _product(a: Tensor, b: Tensor) -> Sequence[int] | None:
    if not _alike(a, b) or not a.dim() == b.dim() >= 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return *a.shape[:-1], b.shape[-1]


def _product_with_bias(bias: Tensor, a: Tensor, b: Tensor) -> Sequence[int] | None:
    shape = _product(a, b)
    return shape if shape and _alike(bias, a) and bias.shape == shape[-1:] else None


def _convolution(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, output_padding: Sequence[int], groups: int,
) -> Sequence[int] | None:  # fmt: skip
    """Shape of a convolution (Dumoulin and Visin, 2016), None if it would fail or is no plain one."""
    taken, given = (w.shape[0], w.shape[1] * groups) if transposed else (w.shape[1] * groups, w.shape[0])
    fits = x.dim() == w.dim() and x.shape[1] == taken and w.shape[0] % groups == 0
    fits = fits and (bias is None or (bias.shape == (given,) and _alike(x, bias)))
    if not fits or not _alike(x, w) or not (x.is_contiguous() and w.is_contiguous()):  # else its output is not, either
        return None
    sizes = []
    for d, (length, kernel) in enumerate(zip(x.shape[2:], w.shape[2:], strict=True)):
        step, pad, spread, extra = (v[d % len(v)] for v in (stride, padding, dilation, output_padding))
        reach = spread * (kernel - 1) + 1
        if transposed:
            sizes.append((length - 1) * step - 2 * pad + reach + extra)
        else:
            sizes.append((length + 2 * pad - reach) // step + 1)
    return (x.shape[0], given, *sizes) if x.numel() and min(sizes, default=0) > 0 else None


_SHAPES: dict[str, Callable[..., Sequence[int] | None]] = {
    "mm": _product,
    "bmm": _product,
    "addmm": _product_with_bias,
    "convolution": _convolution,
}
