"""Shapes of operators' results, for contiguous floating-point tensors, whose results are contiguous again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["CONTRACTIONS", "KEYWORDS", "MEMORY_BOUND", "ShapeRule", "Shapes"]

Shape = Sequence[int]
Shapes = list[Shape]  # one for each result of an operator
ShapeRule = Callable[..., "Shapes | None"]  # None: the operator has to be run

KEYWORDS = frozenset(
    ["alpha", "approximate", "memory_format", "rounding_mode"]
)  # all that operators of `MEMORY_BOUND` may be given


def _same_type(*tensors: Tensor) -> bool:
    """Whether these are plain tensors of one floating type, so that nothing but their shapes can make them unfit."""
    first = tensors[0]
    return all(
        type(t) in (Tensor, torch.nn.Parameter)
        and t.is_floating_point()
        and t.layout is torch.strided
        and (t.dtype, t.device) == (first.dtype, first.device)
        for t in tensors
    )


def _contiguous(*tensors: Tensor) -> bool:
    return _same_type(*tensors) and all(t.is_contiguous() for t in tensors)


def _product(a: Tensor, b: Tensor) -> Shapes | None:
    if (
        not _same_type(a, b)
        or not a.dim() == b.dim() >= 2
        or a.shape[:-2] != b.shape[:-2]
        or a.shape[-1] != b.shape[-2]
    ):
        return None
    return [(*a.shape[:-1], b.shape[-1])]


def _product_with_bias(bias: Tensor, a: Tensor, b: Tensor) -> Shapes | None:
    shapes = _product(a, b)
    return shapes if shapes and _same_type(bias, a) and bias.shape == shapes[0][-1:] else None


def _convolution(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Shape, padding: Shape, dilation: Shape,
    transposed: bool, output_padding: Shape, groups: int,
) -> Shapes | None:  # fmt: skip
    """Shape of a convolution (Dumoulin and Visin, 2016), None if it would fail or is no plain one."""
    taken, given = (w.shape[0], w.shape[1] * groups) if transposed else (w.shape[1] * groups, w.shape[0])
    fits = x.dim() == w.dim() and x.shape[1] == taken and w.shape[0] % groups == 0
    fits = fits and (bias is None or (bias.shape == (given,) and _same_type(x, bias)))
    if not fits or not _contiguous(x, w):
        return None
    sizes = []
    for d, (length, kernel) in enumerate(zip(x.shape[2:], w.shape[2:], strict=True)):
        step, pad, spread, extra = (v[d % len(v)] for v in (stride, padding, dilation, output_padding))
        reach = spread * (kernel - 1) + 1
        if transposed:
            sizes.append((length - 1) * step - 2 * pad + reach + extra)
        else:
            sizes.append((length + 2 * pad - reach) // step + 1)
    return [(x.shape[0], given, *sizes)] if x.numel() and min(sizes, default=0) > 0 else None


def _elementwise(x: Tensor, *others: Any, **_: Any) -> Shapes | None:
    """A function of one tensor and numbers, or of tensors of one shape."""
    tensors = [x, *(t for t in others if isinstance(t, Tensor))]
    numbers = all(n is None or isinstance(n, (int, float, str, Tensor)) for n in others)
    return [x.shape] if numbers and _contiguous(*tensors) and all(t.shape == x.shape for t in tensors) else None


def _softmax(x: Tensor, dim: int, to_float: bool) -> Shapes | None:
    return [x.shape] if not to_float and x.dim() and _contiguous(x) else None


def _clone(x: Tensor, *, memory_format: torch.memory_format = torch.preserve_format) -> Shapes | None:
    contiguous = memory_format is torch.contiguous_format or (
        memory_format is torch.preserve_format and x.is_contiguous()
    )
    return [x.shape] if contiguous and _same_type(x) else None


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Shapes | None:
    shapes = [list(t.shape) for t in tensors if t.dim() > 1]  # one without elements may have any number of dimensions
    if len(shapes) < len(tensors) or not _contiguous(*tensors):
        return None
    if any(t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        return None  # of one pixel or one channel, which are contiguous in both ways: the result may be channels-last
    whole = sum(shape.pop(dim) for shape in shapes)
    if any(shape != shapes[0] for shape in shapes):
        return None
    shape = list(tensors[0].shape)
    shape[dim] = whole
    return [shape]


def _layer_norm(x: Tensor, over: Shape, *affine: Any) -> Shapes | None:
    own = [t for t in affine if isinstance(t, Tensor)]
    outer = x.dim() - len(over)
    fits = _contiguous(x, *own) and x.dtype in (torch.float32, torch.float64)  # else its statistics have another type
    if not fits or any(list(shape) != list(over) for shape in (x.shape[outer:], *(t.shape for t in own))):
        return None
    statistics = (*x.shape[:outer], *[1] * len(over))
    return [x.shape, statistics, statistics]


def _batch_norm(x: Tensor, w: Any, b: Any, mean: Any, var: Any, training: bool, *_: float) -> Shapes | None:
    own = [t for t in (w, b, mean, var) if isinstance(t, Tensor)]
    fits = not training and mean is not None and x.dim() > 1 and x.numel() and _contiguous(x, *own)
    return [x.shape, (0,), (0,)] if fits and all(t.shape == x.shape[1:2] for t in own) else None


CONTRACTIONS: dict[str, ShapeRule] = {
    "mm": _product,
    "bmm": _product,
    "addmm": _product_with_bias,
    "convolution": _convolution,
}

# cheap themselves, but their results take memory
MEMORY_BOUND: dict[str, ShapeRule] = {
    "native_layer_norm": _layer_norm,
    "native_batch_norm": _batch_norm,
    "cat": _cat,
    "clone": _clone,
    "_softmax": _softmax,
    **dict.fromkeys(["add", "div", "mul", "sub"], _elementwise),
    **dict.fromkeys(
        ["elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu"], _elementwise
    ),
    **dict.fromkeys(["sigmoid", "silu", "tanh"], _elementwise),
}
