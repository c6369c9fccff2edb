"""Kernels that do the work of several operators, decomposed into these, for which there are rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from yoloprune.graph.tracing.internals import GRU_CELL, LSTM_CELL, Operator, composite_kernel

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


_CELLS: dict[Operator, Callable[..., Any]] = {LSTM_CELL: _lstm_cell, GRU_CELL: _gru_cell}


@functools.cache
def decomposition(operator: Operator) -> Callable[..., Any] | None:
    """A function that computes what an operator does by other operators, None where it is elementary.

    Workspaces for gradients are left out, since nothing here reads them. Operators that PyTorch decomposes itself
    arrive undecomposed only where there is no autograd: in inference mode, and for tensors that were made in it.
    """
    return _CELLS[operator] if operator in _CELLS else composite_kernel(operator)
