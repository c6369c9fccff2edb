"""Gathers and scatters: indexing freezes the dimension that is indexed, and keeps the labels of the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, shrinking_dim, varying_dims
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


def _read(call: Call, source: Tensor, read: set[int], apply: Callable[[Tensor], Tensor]) -> None:
    labels = call.labels(source)
    if labels is None:
        return
    planes = []
    for plane in labels.planes:
        if set(varying_dims(plane)) & read:
            call.ledger.freeze(plane, f"is read at fixed places by {call.name}")
        planes.append(call.ledger.rebroadcast(apply(plane)))
    planes = [plane for plane in planes if varying_dims(plane)]
    for plane in planes:
        call.ledger.keep_rectangular(plane)
    call.put(call.out, Labels(tuple(planes), labels.zero))


@rule("index")
def index(call: Call) -> None:
    """x[i, :, j]: advanced indexing."""
    indices = call.args[1]
    read: set[int] = set()
    d = 0
    for entry in indices:
        if entry is None:
            d += 1
            continue
        width = entry.dim() if entry.dtype == torch.bool else 1
        read |= set(range(d, d + width))
        d += width
        call.ledger.freeze_all(call.labels(entry), "is used as an index")
    here = [entry if entry is None else entry.cpu() for entry in indices]  # labels are on the CPU
    _read(call, call.args[0], read, lambda plane: call.func(plane, here))


@rule("index_select")
def index_select(call: Call) -> None:
    """Rows by number."""
    source, dim, indices = call.args[:3]
    call.ledger.freeze_all(call.labels(indices), "is used as an index")
    _read(call, source, {dim % source.dim()}, lambda plane: call.func(plane, dim, indices.cpu()))


@rule("gather", "take_along_dim")
def gather(call: Call) -> None:
    """One index per output element; labels of the other dimensions are gathered as well."""
    source, dim, indices = call.args[:3]
    dim %= source.dim()
    _unite_with_indices(call, source, dim, indices)
    _read(call, source, {dim}, lambda plane: plane.gather(dim, indices.cpu()))


def _unite_with_indices(call: Call, source: Tensor, dim: int, indices: Tensor) -> None:
    """Unite indices per element with what they index: along the other dimensions both have the same channels."""
    for plane in call.planes(indices):
        if dim in varying_dims(plane):
            call.ledger.freeze(plane, "is used as an index")
            continue
        dims = set(varying_dims(plane))
        for own in call.planes(source):
            if (
                dims <= set(varying_dims(own))
                and shrinking_dim(own) == shrinking_dim(plane)
                and _as_long(own, plane, dims)
            ):
                call.ledger.unite(compact(own), compact(plane, varying_dims(own)))
                break
        else:
            call.ledger.freeze(plane, "is used as an index")


def _as_long(a: Tensor, b: Tensor, dims: set[int]) -> bool:
    return all(a.shape[d] == b.shape[d] for d in dims)


@rule("index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce")
def scatter(call: Call) -> None:
    """Rows are written or added at indices along one dimension; labels of the other dimensions are united."""
    target, dim, indices, source = call.args[:4]
    dim %= target.dim()
    if not isinstance(source, Tensor):
        _write_number(call, target, dim, indices, source)
        return
    if indices.dim() == target.dim():
        _unite_with_indices(call, source, dim, indices)
    _write(call, target, dim, source)


def _write_number(call: Call, target: Tensor, dim: int, indices: Tensor, number: float) -> None:
    """One number at all indices: channels along `dim` are written, the others must have indices of their own."""
    _unite_with_indices(call, target, dim, indices)
    labels = call.labels(target) or Labels()
    placed = {d for plane in call.planes(indices) for d in varying_dims(plane)}
    for plane in labels.planes:
        for d in varying_dims(plane):
            if d == dim or (indices.dim() == target.dim() and indices.shape[d] > 1 and d not in placed):
                call.ledger.freeze(plane, f"is written at places by {call.name}")
    zero = labels.zero and number == 0
    call.put(call.out, Labels(labels.planes, zero, labels.channel_free and indices.dim() != target.dim()))


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: Call) -> None:
    """x[i] = y: rows are written, labels of the other dimensions are united."""
    target, indices, source = call.args[:3]
    if len(indices) == 1 and indices[0] is not None and indices[0].dim() == 1 and source.dim() == target.dim():
        _write(call, target, 0, source)
    else:
        call.ledger.report_unsupported(call.name, [labels for t in (target, source) if (labels := call.labels(t))])


@rule("nonzero", "nms")
def find(call: Call) -> None:
    """Positions that depend on values, which must stay."""
    for tensor in call.args:
        if isinstance(tensor, Tensor):
            call.ledger.freeze_all(call.labels(tensor), f"decides places in {call.name}")


def _one(plane: Tensor, dim: int) -> Tensor:
    """The plane with size 1 along `dim`, along which it does not vary, even where its size is 0 (no box was found)."""
    return plane.as_strided([1 if d == dim else n for d, n in enumerate(plane.shape)], plane.stride())


def _write(call: Call, target: Tensor, dim: int, source: Tensor) -> None:
    operands = []
    for tensor in (target, source):
        labels = call.labels(tensor) or Labels()
        for plane in labels.planes:
            if dim in varying_dims(plane):
                call.ledger.freeze(plane, f"is written at places by {call.name}")
        rest = tuple(_one(plane, dim) for plane in labels.planes if dim not in varying_dims(plane))
        operands.append(
            ([1 if d == dim else n for d, n in enumerate(tensor.shape)], Labels(rest, channel_free=labels.channel_free))
        )
    if operands[0][0] != operands[1][0]:  # only a part is written
        for tensor in (target, source):
            call.ledger.freeze_all(call.labels(tensor), f"is partly written by {call.name}")
        return
    planes = call.ledger.merge(operands[0][0], operands, call.name)
    zero = all((own := call.labels(t)) and own.zero for t in (target, source))
    call.put(call.out, Labels(tuple(plane.expand(call.out.shape) for plane in planes), zero))


@rule("_embedding_bag_forward_only", "_embedding_bag")
def embedding_bag(call: Call) -> None:
    """Sums, means or maxima of rows of a vocabulary."""
    embedding(call)


@rule("embedding")
def embedding(call: Call) -> None:
    """The vocabulary stays; the embedding's width is a layer's output like any other."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    planes = []
    for plane in labels.planes:
        if varying_dims(plane) == (0,):
            call.ledger.freeze(plane, "is a vocabulary")
        elif varying_dims(plane) == (1,):
            planes.append(plane[0].expand(call.outs[0].shape))
            call.ledger.producers.append(plane[0])
    call.put(call.outs[0], Labels(tuple(planes), zero=True))
