"""Constant fills, and copies into existing memory."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, varying_dims
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.tracing.internals import view_base
from yoloprune.graph.tracing.symbolic_sizes import SymbolicSize

__all__ = ["along"]


def along(out: Tensor, dim: int, width: SymbolicSize) -> Tensor | None:
    """A plane for a dimension of this size, None (and frozen) where its labels are not exactly as many."""
    if len(width.labels) != out.shape[dim]:
        width.to_plain_int()
        return None
    return width.labels.view([-1 if d == dim else 1 for d in range(out.dim())]).expand(out.shape)


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
def fill_like(call: Call) -> None:
    """A constant with the extents, and so the channels, of another tensor."""
    labels = call.labels(call.args[0])
    if labels:
        call.put(call.out, Labels(labels.planes, call.name == "zeros_like", labels.channel_free))


@rule(
    "zeros",
    "ones",
    "rand",
    "randn",
    "full",
    "empty",
    "scalar_tensor",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "fill",
    "zero",
)
def fill(call: Call) -> None:
    """A constant has the channels that its sizes were derived from, or none of its own."""
    zero = "zero" in call.name
    if call.name in ("fill", "zero"):
        labels = call.labels(call.args[0])
        call.put(call.out, Labels(labels.planes if labels else (), zero, bool(labels and labels.channel_free)))
        return
    sizes = call.python_call.fill_sizes() if call.python_call and not call.handler_updates_sizes else None
    if sizes is None or len(sizes) != call.out.dim():
        call.put(call.out, Labels(zero=zero, channel_free=True))
        return
    planes = [along(call.out, d, n) for d, n in enumerate(sizes) if isinstance(n, SymbolicSize)]
    call.put(call.out, Labels(tuple(plane for plane in planes if plane is not None), zero))


@rule("copy")
def copy(call: Call) -> None:
    """Writing into a tensor hands over labels, also into a part of one along dimensions that are written in full."""
    target, source = call.args[0], call.args[1]
    mine, theirs = call.labels(target), call.labels(source)
    base = view_base(target)
    if base is not None and not (mine and mine.planes):
        _copy_into_part(call, target, base, theirs)
        return
    operands: list[tuple[torch.Size, Labels | None]] = [(source.shape, theirs)]
    if mine and mine.planes:
        operands.append(
            (target.shape, Labels(mine.planes, channel_free=True))
        )  # it is overwritten, so it fits any channels
    planes = call.ledger.merge(target.shape, operands, "copy_")
    call.put(call.out, Labels(planes, bool(theirs and theirs.zero)))


def _copy_into_part(call: Call, target: Tensor, base: Tensor, theirs: Labels | None) -> None:
    own = call.labels(base)
    found = []
    for plane in theirs.planes if theirs else ():
        plane = plane.expand(target.shape)
        dims = varying_dims(plane)
        matching = [
            d
            for d in range(base.dim())
            if len(dims) == 1 and base.shape[d] == target.shape[dims[0]] and base.stride(d) == target.stride(dims[0])
        ]
        if len(matching) != 1 or not (own and own.channel_free):
            call.ledger.freeze(plane, "is copied into a part of another tensor")
            continue
        line = compact(plane).reshape(-1)
        found.append(line.view([-1 if d == matching[0] else 1 for d in range(base.dim())]).expand(base.shape))
    operands = [*((base.shape, Labels((plane,))) for plane in found), (base.shape, own)]
    planes = call.ledger.merge(base.shape, operands, "copy_", strict=False)
    call.put(base, Labels(planes, bool(own and own.zero and theirs and theirs.zero), bool(own and own.channel_free)))
