"""Operators that concatenate or stack tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloprune.graph.labels import Labels, compact, varying_dims
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.union_find import FROZEN, LABEL_DTYPE

__all__: list[str] = []


@rule("cat", "concat")
def cat(call: Call) -> None:
    """Labels along the joined dimension are concatenated; along the other dimensions they are united."""
    tensors = [t for t in call.args[0] if t.dim() == call.out.dim()]
    dim = call.arg("dim", 0) % call.out.dim()
    all_labels = [call.labels(t) for t in tensors]
    if not any(labels and labels.planes for labels in all_labels):
        if all(labels and labels.channel_free for labels in all_labels):
            call.put(call.out, Labels(channel_free=True))
        return
    across, along = [], []
    for t, labels in zip(tensors, all_labels, strict=False):
        planes = labels.planes if labels else ()
        along.append([plane for plane in planes if dim in varying_dims(plane)])
        others = tuple(plane.narrow(dim, 0, 1) for plane in planes if dim not in varying_dims(plane))
        shape = [1 if d == dim else n for d, n in enumerate(t.shape)]
        across.append((shape, Labels(others, channel_free=bool(labels and labels.channel_free))))
    # an operand whose only labels run along `dim` still has the other dimensions' channels to itself
    joint = [
        (size, Labels(rest.planes, channel_free=rest.channel_free or bool(along[i])))
        for i, (size, rest) in enumerate(across)
    ]
    shape = [1 if d == dim else n for d, n in enumerate(call.out.shape)]
    out = [plane.expand(call.out.shape) for plane in call.ledger.merge(shape, joint, "cat")]
    if any(along):
        dims = {d for own in along for plane in own for d in varying_dims(plane)}
        pieces = []
        for t, own in zip(tensors, along, strict=False):
            size = [t.shape[d] if d in dims or d == dim else 1 for d in range(t.dim())]
            if own:
                for extra in own[1:]:
                    call.ledger.unite(compact(own[0], dims), compact(extra, dims))
                pieces.append(own[0][tuple(slice(0, s) for s in size)])
            else:
                pieces.append(torch.full(size, FROZEN, dtype=LABEL_DTYPE, device="cpu"))
        out.append(torch.cat(pieces, dim).expand(call.out.shape))
    zero = all(labels and labels.zero for labels in all_labels)
    call.put_planes(call.out, out, bool(zero))


@rule("stack")
def stack(call: Call) -> None:
    """A new dimension whose entries keep their own labels."""
    tensors = call.args[0]
    all_labels = [call.labels(t) for t in tensors]
    if not any(labels and labels.planes for labels in all_labels):
        return
    dim = call.arg("dim", 0) % call.out.dim()
    names: list[set[int]] = []
    for labels in all_labels:
        for plane in labels.planes if labels else ():
            if not any(set(varying_dims(plane)) & dims for dims in names):
                names.append(set(varying_dims(plane)))
    out = []
    for dims in names:
        pieces = []
        for t, labels in zip(tensors, all_labels, strict=False):
            own = _aligned(list(labels.planes) if labels else [], dims)
            small = [t.shape[d] if d in dims else 1 for d in range(t.dim())]
            constant = torch.full(small, FROZEN, dtype=LABEL_DTYPE, device="cpu")
            pieces.append(constant if own is None else compact(own, dims))
        # laid out with the new dimension slowest: it is another dimension that shrinks
        out.append(torch.stack(pieces).movedim(0, dim).expand(call.out.shape))
    call.put_planes(call.out, out, all(labels and labels.zero for labels in all_labels))


def _aligned(planes: list[Tensor], dims: set[int]) -> Tensor | None:
    return next((plane for plane in planes if set(varying_dims(plane)) & dims), None)


@rule("_pack_padded_sequence")
def pack(call: Call) -> None:
    """Sequences of a batch one after the other: features stay what they are."""
    x, data = call.args[0], call.outs[0]
    labels = call.labels(x)
    if labels is None:
        return
    planes = []
    for plane in labels.planes:
        plane = call.ledger.unite_along(plane, (0, 1))
        planes.append(plane[0, 0].expand(data.shape))
    call.put_planes(data, planes, labels.zero)
