"""Operators that cut a dimension into pieces, or take one piece of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from yoloprune.graph.labels import lines_along, shrinking_dim, varying_dims
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.tracing.symbolic_sizes import SymbolicSize

__all__: list[str] = []


def _cut(call: Call, plane: Tensor, dim: int, sizes: list[int], requested: tuple[Any, ...] | None) -> None:
    """A labelled dimension is cut into pieces.

    A piece whose size is written in the code stays as it is, one whose size follows a width keeps its proportion to
    it, and where the code gives no sizes, equal pieces lose equally many and unequal ones stay.
    """
    if len([s for s in sizes if s]) < 2 or shrinking_dim(plane) != dim:
        return
    lines = lines_along(plane, dim)
    if requested is not None and (
        not call.handler_updates_sizes or any(isinstance(wanted, SymbolicSize) for wanted in requested)
    ):
        start = 0
        for size, wanted in zip(sizes, requested, strict=True):
            piece = lines[:, start : start + size]
            start += size
            if isinstance(wanted, SymbolicSize):
                _keep_proportion(call, lines, piece, wanted)
            elif wanted is not None:
                call.ledger.freeze(piece, f"is a piece of fixed size {size} in {call.name}")
    elif len(set(sizes)) == 1:
        for line in lines:
            call.ledger.tie(line.view(len(sizes), -1))
    elif not (call.resizes_splits and "sizes" in call.name):
        call.ledger.freeze(plane, f"is cut at fixed positions {sizes} by {call.name}")


def _keep_proportion(call: Call, lines: Tensor, piece: Tensor, width: SymbolicSize) -> None:
    if torch.isin(piece, width.labels).all():  # a share of its own width: every part of the line loses equally many
        part = math.gcd(lines.shape[1], piece.shape[1])
        for line in lines:
            call.ledger.tie(line.reshape(-1, part))
    else:
        call.ledger.keep_proportion(piece, width.labels)


@rule("split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_split_with_sizes", "split_copy")
def split(call: Call) -> None:
    """Chunk and split."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    dim = call.arg("dim", 0) % call.args[0].dim()
    sizes = [t.shape[dim] for t in call.out]
    requested = call.python_call.split_sizes(len(sizes)) if call.python_call else None
    for plane in labels.planes:
        _cut(call, plane, dim, sizes, requested)
    for i, out in enumerate(call.out):
        pieces = [plane.narrow(dim, sum(sizes[:i]), sizes[i]) for plane in labels.planes]
        call.put_planes(out, pieces, labels.zero, labels.channel_free)


@rule("slice", "narrow")
def slice_(call: Call) -> None:
    """A contiguous slice cuts the dimension; a strided one needs whole periods to go together."""
    source = call.args[0]
    labels = call.labels(source)
    if labels is None:
        return
    dim = call.arg("dim", 0) % source.dim()
    n, step = source.shape[dim], call.arg("step", 1) or 1
    start = call.arg("start", 0) or 0
    start = min(start + n if start < 0 else start, n)
    for plane in labels.planes:
        if shrinking_dim(plane) != dim:
            continue
        if step > 1:
            whole = call.arg("end") is None or call.arg("end") >= n
            if n % step == 0 and start < step and whole:
                rows = lines_along(plane, dim).reshape(-1, n // step, step)
                call.ledger.unite(rows, rows[..., :1])
            else:
                call.ledger.freeze(plane, f"is sliced with step {step}, which does not take whole periods of all {n}")
            continue
        bounds = call.python_call.slice_bounds(dim) if call.python_call else None
        if bounds is None:
            length = call.out.shape[dim]
            _cut(call, plane, dim, [start, length, n - start - length], None)
            continue
        for bound in bounds:
            if bound is not None and 0 < abs(bound) < n:
                before = int(bound) % n
                requested = (bound, None) if bound > 0 else (None, bound)
                _cut(call, plane, dim, [before, n - before], requested)
    call.put_replayed(labels)


@rule("select", "unbind")
def select(call: Call) -> None:
    """Taking one index out of a labelled dimension keeps what lies between it and the end that it counts from."""
    source = call.args[0]
    labels = call.labels(source)
    if labels is None:
        return
    dim = call.arg("dim", 0) % source.dim()
    at = call.arg("index", 0)
    for plane in labels.planes:
        if shrinking_dim(plane) == dim:
            lines = lines_along(plane, dim)
            if call.name == "select":
                lines = lines[:, : at + 1] if at >= 0 else lines[:, at:]
            call.ledger.freeze(lines, f"is read at a fixed index by {call.name}")
    if call.name == "unbind":
        for i, out in enumerate(call.out):
            call.put_planes(out, [plane.select(dim, i) for plane in labels.planes], labels.zero, labels.channel_free)
    else:
        call.put_replayed(labels)


@rule("glu")
def glu(call: Call) -> None:
    """One half times the sigmoid of the other: the halves are united element by element."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    dim = call.arg("dim", -1) % call.args[0].dim()
    planes = []
    for plane in labels.planes:
        first, second = plane.chunk(2, dim)
        if dim in varying_dims(plane):
            call.ledger.unite(first, second)
        planes.append(first)
    call.put_planes(call.out, planes, labels.zero)
