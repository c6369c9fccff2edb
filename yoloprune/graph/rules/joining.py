"""Operators that put tensors, or parts of one, behind each other."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, varying
from yoloprune.graph.meetings import FROZEN, LABEL
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


@rule("cat", "concat")
def cat(call: Call) -> None:
    """Labels along the joined dimension are joined; along the other dimensions they meet."""
    tensors = [t for t in call.args[0] if t.dim() == call.out.dim()]
    dim = call.arg("dim", 0) % call.out.dim()
    all_labels = [call.labels(t) for t in tensors]
    if not any(labels and labels.layers for labels in all_labels):
        if all(labels and labels.wild for labels in all_labels):
            call.put(call.out, Labels(wild=True))
        return
    across, along = [], []
    for t, labels in zip(tensors, all_labels, strict=False):
        layers = labels.layers if labels else ()
        along.append([layer for layer in layers if dim in varying(layer)])
        rest = tuple(layer.narrow(dim, 0, 1) for layer in layers if dim not in varying(layer))
        shape = [1 if d == dim else n for d, n in enumerate(t.shape)]
        across.append((shape, Labels(rest, wild=bool(labels and labels.wild))))
    # an operand whose only labels run along `dim` still has the other dimensions' channels to itself
    joint = [(size, Labels(own.layers, wild=own.wild or bool(along[i]))) for i, (size, own) in enumerate(across)]
    shape = [1 if d == dim else n for d, n in enumerate(call.out.shape)]
    out = [layer.expand(call.out.shape) for layer in call.ledger.merge(shape, joint, "cat")]
    if any(along):
        dims = {d for layers in along for layer in layers for d in varying(layer)}
        pieces = []
        for t, layers in zip(tensors, along, strict=False):
            size = [t.shape[d] if d in dims or d == dim else 1 for d in range(t.dim())]
            if layers:
                for extra in layers[1:]:
                    call.ledger.unite(compact(layers[0], dims), compact(extra, dims))
                pieces.append(layers[0][tuple(slice(0, s) for s in size)])
            else:
                pieces.append(torch.full(size, FROZEN, dtype=LABEL, device="cpu"))
        out.append(torch.cat(pieces, dim).expand(call.out.shape))
    zero = all(labels and labels.zero for labels in all_labels)
    call.put_layers(call.out, out, bool(zero))


@rule("stack")
def stack(call: Call) -> None:
    """A new dimension whose entries keep their own labels."""
    tensors = call.args[0]
    all_labels = [call.labels(t) for t in tensors]
    if not any(labels and labels.layers for labels in all_labels):
        return
    dim = call.arg("dim", 0) % call.out.dim()
    names: list[set[int]] = []
    for labels in all_labels:
        for layer in labels.layers if labels else ():
            if not any(set(varying(layer)) & dims for dims in names):
                names.append(set(varying(layer)))
    out = []
    for dims in names:
        pieces = []
        for t, labels in zip(tensors, all_labels, strict=False):
            layer = _aligned(list(labels.layers) if labels else [], dims)
            small = [t.shape[d] if d in dims else 1 for d in range(t.dim())]
            piece = torch.full(small, FROZEN, dtype=LABEL, device="cpu") if layer is None else compact(layer, dims)
            pieces.append(piece)
        # laid out with the new dimension slowest: it is another dimension that shrinks
        out.append(torch.stack(pieces).movedim(0, dim).expand(call.out.shape))
    call.put_layers(call.out, out, all(labels and labels.zero for labels in all_labels))


def _aligned(layers: list[Tensor], dims: set[int]) -> Tensor | None:
    return next((layer for layer in layers if set(varying(layer)) & dims), None)


@rule("_pack_padded_sequence")
def pack(call: Call) -> None:
    """Sequences of a batch one after the other: features stay what they are."""
    x, data = call.args[0], call.outs[0]
    labels = call.labels(x)
    if labels is None:
        return
    layers = []
    for layer in labels.layers:
        layer = call.ledger.unite_along(layer, (0, 1))
        layers.append(layer[0, 0].expand(data.shape))
    call.put_layers(data, layers, labels.zero)
