"""Gathers: reading at fixed places freezes the dimension that is read, the other dimensions pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, varying
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
    _read(call, call.args[0], read, lambda layer: call.func(layer, places))


@rule("index_select")
def index_select(call: Call) -> None:
    """Rows by number."""
    source, dim, places = call.args[:3]
    call.ledger.freeze_all(call.labels(places), "is used as an index")
    _read(call, source, {dim % source.dim()}, lambda layer: call.func(layer, dim, places))


@rule("gather", "take_along_dim")
def gather(call: Call) -> None:
    """One place per output element; labels of the other dimensions are read through."""
    source, dim, places = call.args[:3]
    call.ledger.freeze_all(call.labels(places), "is used as an index")
    _read(call, source, {dim % source.dim()}, lambda layer: layer.gather(dim, places))


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
            layers.append(layer[0].expand(call.out.shape))
            call.ledger.producers.append(layer[0])
    call.put(call.out, Labels(tuple(layers), zero=True))
