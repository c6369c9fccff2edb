"""Data movement: the very same call is applied to the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, lines_along, varying_dims
from yoloprune.graph.rules.fill import along
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.tracing.symbolic_sizes import SymbolicCount, SymbolicSize, is_fixed

__all__: list[str] = []

_MEETING = frozenset(["broadcast_tensors", "cosine_similarity", "normalize"])


@rule("alias", "detach", "clone", "contiguous", "lift_fresh", "lift", "_to_copy", "dropout", "view_of")
def same(call: Call) -> None:
    """The same elements at the same positions; strides of the labels are kept, since they hold the storage order."""
    labels = call.labels(call.args[0])
    if labels:
        call.put(call.out, labels)


@rule(
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "movedim",
    "swapaxes",
    "numpy_T",
    "flip",
    "pixel_unshuffle",
)
def move(call: Call) -> None:
    """Any movement that neither cuts nor merges a labelled dimension at a fixed position."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    call.put_replayed(labels)


def _merged_dims(source: torch.Size, target: torch.Size) -> list[list[int]]:
    """Runs of source dimensions that a view merges with each other (equal products of sizes)."""
    runs, i, j = [], 0, 0
    while i < len(source) or j < len(target):
        run, a, b = [], 1, 1
        while True:
            if a <= b and i < len(source):
                a *= source[i]
                run.append(i)
                i += 1
            elif j < len(target):
                b *= target[j]
                j += 1
            else:
                break
            if a == b and run:
                break
        runs.append(run)
    return runs


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def view(call: Call) -> None:
    """A view may cut a labelled dimension in two (the result must stay a rectangle) or merge two.

    Merging dimensions whose order differs from the order in memory interleaves them (channel shuffle); what is kept
    stays in order only if whole columns go, so the rows are united.
    """
    labels = call.labels(call.args[0])
    if labels is None:
        return
    target = call.python_call.view_sizes(call.args[0].shape) if call.python_call else None
    if target is not None and len(target) != call.out.dim():
        call.ledger.freeze_all(labels, f"is viewed at sizes that are not its own by {call.name}")  # torch.vmap
        target = None
    out = []
    for plane in labels.planes:
        dims = varying_dims(plane)
        if len(dims) > 1:
            for run in _merged_dims(plane.shape, call.out.shape):
                inside = [d for d in run if d in dims]
                for k, d in enumerate(inside[1:], 1):
                    if any(plane.stride(e) < plane.stride(d) for e in inside[:k]):
                        call.ledger.unite(compact(plane), compact(plane).narrow(d, 0, 1))
        plane = plane.reshape(call.out.shape)
        if len(varying_dims(plane)) > 1:
            plane = call.ledger.rebroadcast(plane)
        out.append(_fit(call, plane, target))
    call.put_planes(call.out, out, labels.zero, labels.channel_free)


def _fit(call: Call, plane: Tensor, target: tuple[Any, ...] | None) -> Tensor:
    """Let only those dimensions of a view shrink whose sizes the code does not fix.

    The dimensions that are faster in memory than the one that shrinks go as a whole, the slower ones lose equally many.
    """
    dims = varying_dims(plane)
    if target is None or not dims:
        return plane
    if any(isinstance(size, SymbolicCount) for size in target):  # whole heads go, where the code can count them
        free = [d for d in dims if isinstance(target[d], SymbolicCount)]
    else:
        free = [d for d in dims if call.handler_updates_sizes or not is_fixed(target[d])]
    if not free:
        call.ledger.freeze(plane, f"is given a fixed size by {call.name}")
        return plane
    shrinks = min(free, key=lambda d: plane.stride(d))
    plane = call.ledger.unite_along(plane, [d for d in dims if plane.stride(d) < plane.stride(shrinks)])
    for d in free:
        if isinstance(target[d], SymbolicSize):
            if d == shrinks:
                target[d].bind(lines_along(plane, d))
            else:
                target[d].to_plain_int()
    return plane


@rule("expand", "repeat")
def expand(call: Call) -> None:
    """A copy per index of a new or longer dimension, which has the channels that its size was derived from."""
    source = call.args[0]
    labels = call.labels(source) or Labels()
    target = call.python_call.view_sizes(source.shape) if call.python_call else None
    planes: list[Tensor | None] = [call.replay(plane) for plane in labels.planes]
    if target is not None and len(target) == call.out.dim():
        offset = call.out.dim() - source.dim()
        for d, size in enumerate(target):
            before = source.shape[d - offset] if d >= offset else 1
            if before == 1 and isinstance(size, SymbolicSize):
                planes.append(along(call.out, d, size))
            elif before > 1 and call.name == "expand" and is_fixed(size) and not call.handler_updates_sizes:
                for plane in planes:
                    if plane is not None and d in varying_dims(plane):
                        call.ledger.freeze(plane, "is given a fixed size by expand")
            elif before > 1 and call.name == "repeat" and isinstance(size, SymbolicSize):
                size.to_plain_int()
    # operands that are broadcast to one shape follow each other
    broadcast = call.name == "expand" and call.python_call is not None and call.python_call.name in _MEETING
    call.put_planes(
        call.out, [plane for plane in planes if plane is not None], labels.zero, labels.channel_free or broadcast
    )


@rule("as_strided")
def as_strided(call: Call) -> None:
    """Other strides for the same shape, as kernels ask for another memory format; anything else cannot be followed."""
    source = call.args[0]
    labels = call.labels(source)
    if labels is None:
        return
    if call.out.shape == source.shape and call.out.storage_offset() == source.storage_offset():
        call.put(call.out, labels)
    else:
        call.ledger.report_unsupported(call.name, [labels])


@rule("view_as_complex", "view_as_real")
def complex_pairs(call: Call) -> None:
    """The last dimension holds real and imaginary parts: both go."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    if call.name == "view_as_real":
        planes = [plane.unsqueeze(-1).expand(call.out.shape) for plane in labels.planes]
    else:
        planes = [call.ledger.unite_along(plane, [plane.dim() - 1]).select(-1, 0) for plane in labels.planes]
    call.put_planes(call.out, planes, labels.zero)
