"""Kernels that do the work of several operators, written out in these, for which there are rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["decomposition"]


def _lstm_cell(
    from_input: Tensor, from_hidden: Tensor, c: Tensor, input_bias: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of an LSTM as CUDA computes it (Hochreiter and Schmidhuber, 1997; gates in PyTorch's order i, f, g, o)."""
    gates = _sum(from_input, input_bias) + _sum(from_hidden, bias)
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c, gates


def _gru_cell(
    from_input: Tensor, from_hidden: Tensor, h: Tensor, input_bias: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A step of a GRU as CUDA computes it (Cho et al., 2014; gates in PyTorch's order r, z, n)."""
    given, kept = _sum(from_input, input_bias), _sum(from_hidden, bias)
    (r, z, n), (kept_r, kept_z, kept_n) = given.chunk(3, 1), kept.chunk(3, 1)
    n = (n + (r + kept_r).sigmoid() * kept_n).tanh()
    return n + (z + kept_z).sigmoid() * (h - n), given


def _sum(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

_CELLS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._thnn_fused_lstm_cell.default: _lstm_cell,
    torch.ops.aten._thnn_fused_gru_cell.default: _gru_cell,
}


@functools.cache
def decomposition(func: Any) -> Callable[..., Any] | None:
    """What does the work of an operator by other operators, None where it is one of these.

    Workspaces for gradients aside, which nobody here reads. Operators that PyTorch writes out itself arrive whole only
    where there is no autograd: in inference mode, and of tensors that were made in it.
    """
    if func in _CELLS:
        return _CELLS[func]
    # not `func.decompose`, which prefers decompositions in Python, is slow and has them of batch norms too
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
        return functools.partial(func._op_dk, _COMPOSITE)
    return None
