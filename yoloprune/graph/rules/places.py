"""Operators that count places along a dimension: shifts, windows, borders and shuffles."""

from __future__ import annotations

import torch

from yoloprune.graph.labels import compact, lines_along, varying
from yoloprune.graph.meetings import FROZEN
from yoloprune.graph.rules.registry import Call, rule

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
    for layer in labels.layers:
        if counted & set(varying(layer)):
            call.ledger.freeze(layer, f"is counted by {call.name}")
    call.put_replayed(labels, wild=False)


@rule("roll")
def roll(call: Call) -> None:
    """A roll shifts by a fixed number: along channels nothing may go, elsewhere it changes no label."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    n = call.args[0].dim()
    dims = [d % n for d in call.arg("dims") or range(n)]
    for layer in labels.layers:
        if set(varying(layer)) & set(dims):
            call.ledger.freeze(layer, "is rolled by a fixed number of channels")
    call.put_replayed(labels, wild=False)


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
    for layer in labels.layers:
        if set(varying(layer)) & cut:
            call.ledger.freeze(layer, "is cut at a fixed position by a negative padding")
        if set(varying(layer)) & padded:
            out.append(torch.constant_pad_nd(layer, pads, FROZEN))
        else:
            out.append(compact(layer).expand(call.out.shape))
    call.put_layers(call.out, out, labels.zero and not call.arg("value", 0), labels.wild and not call.arg("value", 0))


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> None:
    """The channels that make up the positions of one channel go together."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    layers = [call.replay(layer) for layer in labels.layers]
    positions = (call.out.dim() - 2, call.out.dim() - 1)
    layers = [call.ledger.unite_along(layer, [d for d in positions if d in varying(layer)]) for layer in layers]
    call.put_layers(call.out, layers, labels.zero, labels.wild)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> None:
    """Groups of fixed number are interleaved: what stays is in order only if the same places of all groups go."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    for layer in labels.layers:
        if 1 in varying(layer):
            rows = lines_along(layer, 1).unflatten(1, (call.arg("groups"), -1))
            call.ledger.unite(rows, rows[:, :1])
    call.put_replayed(labels)
