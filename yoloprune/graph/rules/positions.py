"""Operators that count positions along a dimension: shifts, windows, padding and shuffles."""

from __future__ import annotations

import torch

from yoloprune.graph.labels import compact, lines_along, varying_dims
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.union_find import FROZEN

__all__: list[str] = []


@rule("tril", "triu", "diagonal", "unfold")
def positions(call: Call) -> None:
    """Diagonals and windows count positions along some dimensions, which must not shift; the others pass."""
    source = call.args[0]
    labels = call.labels(source)
    if labels is None:
        return
    n = source.dim()
    if call.name == "unfold":
        counted = {call.arg("dimension") % n}
    else:
        counted = {call.arg("dim1", -2) % n, call.arg("dim2", -1) % n}
    for plane in labels.planes:
        if counted & set(varying_dims(plane)):
            call.ledger.freeze(plane, f"is counted by {call.name}")
    call.put_replayed(labels, channel_free=False)


@rule("roll")
def roll(call: Call) -> None:
    """A roll shifts by a fixed number: along channels all must stay, elsewhere it changes no label."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    n = call.args[0].dim()
    dims = [d % n for d in call.arg("dims") or range(n)]
    for plane in labels.planes:
        if set(varying_dims(plane)) & set(dims):
            call.ledger.freeze(plane, "is rolled by a fixed number of channels")
    call.put_replayed(labels, channel_free=False)


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> None:
    """Padded channels are constants that stay; padding elsewhere changes no label."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    pads = call.args[1]
    n = call.args[0].dim()
    padded = {n - 1 - i // 2 for i, p in enumerate(pads) if p}
    cut = {n - 1 - i // 2 for i, p in enumerate(pads) if p < 0}
    out = []
    for plane in labels.planes:
        if set(varying_dims(plane)) & cut:
            call.ledger.freeze(plane, "is cut at a fixed position by a negative padding")
        if set(varying_dims(plane)) & padded:
            out.append(torch.constant_pad_nd(plane, pads, FROZEN))
        else:
            out.append(compact(plane).expand(call.out.shape))
    call.put_planes(
        call.out, out, labels.zero and not call.arg("value", 0), labels.channel_free and not call.arg("value", 0)
    )


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> None:
    """The channels that make up the positions of one channel go together."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    planes = [call.replay(plane) for plane in labels.planes]
    positions = (call.out.dim() - 2, call.out.dim() - 1)
    planes = [call.ledger.unite_along(plane, [d for d in positions if d in varying_dims(plane)]) for plane in planes]
    call.put_planes(call.out, planes, labels.zero, labels.channel_free)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> None:
    """Groups of fixed number are interleaved: what stays is in order only if the same positions of all groups go."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    for plane in labels.planes:
        if 1 in varying_dims(plane):
            lines = lines_along(plane, 1)
            rows = lines.reshape(len(lines), call.arg("groups"), -1)
            call.ledger.unite(rows, rows[:, :1])
    call.put_replayed(labels)
