"""Operators that cut a dimension into pieces, or take one piece of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yoloprune.graph.labels import lines_along, shrinking, varying
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.widths import Width

__all__: list[str] = []


def _cut(call: Call, layer: Tensor, dim: int, sizes: list[int], asked: tuple | None) -> None:
    """A labelled dimension is cut into pieces.

    A piece whose size is written in the code stays as it is, one whose size follows a width keeps its proportion to
    it, and without a word from the code equal pieces lose equally many and unequal ones stay.
    """
    if len([s for s in sizes if s]) < 2 or shrinking(layer) != dim:
        return
    lines = lines_along(layer, dim)
    if asked is not None and (not call.follows or any(isinstance(wanted, Width) for wanted in asked)):
        start = 0
        for size, wanted in zip(sizes, asked, strict=True):
            piece = lines[:, start : start + size]
            start += size
            if isinstance(wanted, Width):
                _keep_proportion(call, lines, piece, wanted)
            elif wanted is not None:
                call.ledger.freeze(piece, f"is a piece of fixed size {size} in {call.name}")
    elif len(set(sizes)) == 1:
        for line in lines:
            call.ledger.tie(line.view(len(sizes), -1))
    elif not (call.resizes_splits and "sizes" in call.name):
        call.ledger.freeze(layer, f"is cut at fixed positions {sizes} by {call.name}")


def _keep_proportion(call: Call, lines: Tensor, piece: Tensor, width: Width) -> None:
    if torch.isin(piece, width.labels).all():  # a share of its own width: every part of the line loses equally many
        part = math.gcd(lines.shape[1], piece.shape[1])
        for line in lines:
            call.ledger.tie(line.reshape(-1, part))
    else:
        call.ledger.follow(piece, width.labels)


@rule("split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_split_with_sizes", "split_copy")
def split(call: Call) -> None:
    """Chunk and split."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    dim = call.arg("dim", 0) % call.args[0].dim()
    sizes = [t.shape[dim] for t in call.out]
    asked = call.request.pieces(len(sizes)) if call.request else None
    for layer in labels.layers:
        _cut(call, layer, dim, sizes, asked)
    for i, out in enumerate(call.out):
        pieces = [layer.narrow(dim, sum(sizes[:i]), sizes[i]) for layer in labels.layers]
        call.put_layers(out, pieces, labels.zero, labels.wild)


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
    for layer in labels.layers:
        if shrinking(layer) != dim:
            continue
        if step > 1:
            whole = call.arg("end") is None or call.arg("end") >= n
            if n % step == 0 and start < step and whole:
                rows = lines_along(layer, dim).reshape(-1, n // step, step)
                call.ledger.unite(rows, rows[..., :1])
            else:
                call.ledger.freeze(layer, f"is sliced with step {step}, which does not take whole periods of all {n}")
            continue
        bounds = call.request.bounds(dim) if call.request else None
        if bounds is None:
            length = call.out.shape[dim]
            _cut(call, layer, dim, [start, length, n - start - length], None)
            continue
        for bound in bounds:
            if bound is not None and 0 < abs(bound) < n:
                before = int(bound) % n
                asked = (bound, None) if bound > 0 else (None, bound)
                _cut(call, layer, dim, [before, n - before], asked)
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
    for layer in labels.layers:
        if shrinking(layer) == dim:
            lines = lines_along(layer, dim)
            if call.name == "select":
                lines = lines[:, : at + 1] if at >= 0 else lines[:, at:]
            call.ledger.freeze(lines, f"is read at a fixed index by {call.name}")
    if call.name == "unbind":
        for i, out in enumerate(call.out):
            call.put_layers(out, [layer.select(dim, i) for layer in labels.layers], labels.zero, labels.wild)
    else:
        call.put_replayed(labels)


@rule("glu")
def glu(call: Call) -> None:
    """A half times the sigmoid of the other: halves meet element by element."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    dim = call.arg("dim", -1) % call.args[0].dim()
    layers = []
    for layer in labels.layers:
        first, second = layer.chunk(2, dim)
        if dim in varying(layer):
            call.ledger.unite(first, second)
        layers.append(first)
    call.put_layers(call.out, layers, labels.zero)
