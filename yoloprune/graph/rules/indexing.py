"""Gathers: reading at fixed places freezes the dimension that is read, the other dimensions pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, shrinking, varying
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


def _read(call: Call, source: Tensor, read: set[int], apply: Callable[[Tensor], Tensor]) -> None:
    labels = call.labels(source)
    if labels is None:
        return
    layers = []
    for layer in labels.layers:
        if set(varying(layer)) & read:
            call.ledger.freeze(layer, f"is read at fixed places by {call.name}")
        layers.append(call.ledger.recompact(apply(layer)))
    layers = [layer for layer in layers if varying(layer)]
    for layer in layers:
        call.ledger.rectangle(layer)
    call.put(call.out, Labels(tuple(layers), labels.zero))


@rule("index")
def index(call: Call) -> None:
    """x[i, :, j]: advanced indexing."""
    places = call.args[1]
    read: set[int] = set()
    d = 0
    for place in places:
        if place is None:
            d += 1
            continue
        width = place.dim() if place.dtype == torch.bool else 1
        read |= set(range(d, d + width))
        d += width
        call.ledger.freeze_all(call.labels(place), "is used as an index")
    here = [place if place is None else place.cpu() for place in places]  # labels are on no other device
    _read(call, call.args[0], read, lambda layer: call.func(layer, here))


@rule("index_select")
def index_select(call: Call) -> None:
    """Rows by number."""
    source, dim, places = call.args[:3]
    call.ledger.freeze_all(call.labels(places), "is used as an index")
    _read(call, source, {dim % source.dim()}, lambda layer: call.func(layer, dim, places.cpu()))


@rule("gather", "take_along_dim")
def gather(call: Call) -> None:
    """One place per output element; labels of the other dimensions are read through."""
    source, dim, places = call.args[:3]
    dim %= source.dim()
    _meet_places(call, source, dim, places)
    _read(call, source, {dim}, lambda layer: layer.gather(dim, places.cpu()))


def _meet_places(call: Call, source: Tensor, dim: int, places: Tensor) -> None:
    """Places per element: along the other dimensions they and what they are for are the same channels."""
    for layer in call.layers(places):
        if dim in varying(layer):
            call.ledger.freeze(layer, "is used as an index")
            continue
        dims = set(varying(layer))
        for own in call.layers(source):
            if dims <= set(varying(own)) and shrinking(own) == shrinking(layer) and _as_long(own, layer, dims):
                call.ledger.unite(compact(own), compact(layer, varying(own)))
                break
        else:
            call.ledger.freeze(layer, "is used as an index")


def _as_long(a: Tensor, b: Tensor, dims: set[int]) -> bool:
    return all(a.shape[d] == b.shape[d] for d in dims)


@rule("index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce")
def scatter(call: Call) -> None:
    """Rows are written or added at places along one dimension; the other dimensions meet."""
    target, dim, places, source = call.args[:4]
    dim %= target.dim()
    if not isinstance(source, Tensor):
        _write_number(call, target, dim, places, source)
        return
    if places.dim() == target.dim():
        _meet_places(call, source, dim, places)
    _write(call, target, dim, source)


def _write_number(call: Call, target: Tensor, dim: int, places: Tensor, number: float) -> None:
    """One number at all places: channels along `dim` are written, the others must have places of their own."""
    _meet_places(call, target, dim, places)
    labels = call.labels(target) or Labels()
    placed = {d for layer in call.layers(places) for d in varying(layer)}
    for layer in labels.layers:
        for d in varying(layer):
            if d == dim or (places.dim() == target.dim() and places.shape[d] > 1 and d not in placed):
                call.ledger.freeze(layer, f"is written at places by {call.name}")
    zero = labels.zero and number == 0
    call.put(call.out, Labels(labels.layers, zero, labels.wild and places.dim() != target.dim()))


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: Call) -> None:
    """x[i] = y: rows are written, the other dimensions meet."""
    target, places, source = call.args[:3]
    if len(places) == 1 and places[0] is not None and places[0].dim() == 1 and source.dim() == target.dim():
        _write(call, target, 0, source)
    else:
        call.ledger.unknown(call.name, [labels for t in (target, source) if (labels := call.labels(t))])


@rule("nonzero", "nms")
def find(call: Call) -> None:
    """Places of values: what decides them must stay."""
    for tensor in call.args:
        if isinstance(tensor, Tensor):
            call.ledger.freeze_all(call.labels(tensor), f"decides places in {call.name}")


def _one(layer: Tensor, dim: int) -> Tensor:
    """The layer with one place along `dim`, along which it does not vary, even where it has none (no box was found)."""
    return layer.as_strided([1 if d == dim else n for d, n in enumerate(layer.shape)], layer.stride())


def _write(call: Call, target: Tensor, dim: int, source: Tensor) -> None:
    operands = []
    for tensor in (target, source):
        labels = call.labels(tensor) or Labels()
        for layer in labels.layers:
            if dim in varying(layer):
                call.ledger.freeze(layer, f"is written at places by {call.name}")
        rest = tuple(_one(layer, dim) for layer in labels.layers if dim not in varying(layer))
        operands.append(([1 if d == dim else n for d, n in enumerate(tensor.shape)], Labels(rest, wild=labels.wild)))
    if operands[0][0] != operands[1][0]:  # only a part is written
        for tensor in (target, source):
            call.ledger.freeze_all(call.labels(tensor), f"is partly written by {call.name}")
        return
    layers = call.ledger.merge(operands[0][0], operands, call.name)
    zero = all((labels := call.labels(t)) and labels.zero for t in (target, source))
    call.put(call.out, Labels(tuple(layer.expand(call.out.shape) for layer in layers), zero))


@rule("_embedding_bag_forward_only", "_embedding_bag")
def embedding_bag(call: Call) -> None:
    """Sums, means or maxima of rows of a vocabulary."""
    embedding(call)


@rule("embedding")
def embedding(call: Call) -> None:
    """The vocabulary stays, the embedding's width is a layer's output like any other."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    layers = []
    for layer in labels.layers:
        if varying(layer) == (0,):
            call.ledger.freeze(layer, "is a vocabulary")
        elif varying(layer) == (1,):
            layers.append(layer[0].expand(call.outs[0].shape))
            call.ledger.producers.append(layer[0])
    call.put(call.outs[0], Labels(tuple(layers), zero=True))
