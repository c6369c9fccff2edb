"""Data movement: the very same call is applied to the labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yoloprune.graph.labels import FROZEN, Labels, compact, shrinking, varying
from yoloprune.graph.rules.fill import along
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.widths import Count, Width, fixed

__all__: list[str] = []


def _put(call: Call, out: Tensor, layers: list[Tensor], zero: bool, wild: bool = False) -> None:
    layers = [call.ledger.recompact(layer) if len(varying(layer)) > 1 else layer for layer in layers]
    layers = [layer for layer in layers if varying(layer)]
    for layer in layers:
        call.ledger.rectangle(layer)
    call.put(out, Labels(tuple(layers), zero, wild))


@rule("alias", "detach", "clone", "contiguous", "lift_fresh", "lift", "_to_copy", "dropout", "view_of")
def same(call: Call) -> None:
    """The same elements in the same places; strides of the labels are kept since they tell the storage order."""
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
    "numpy_t",
)
def move(call: Call) -> None:
    """Any movement that neither cuts nor merges a labelled dimension at a fixed place."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    layers = [call.replay(layer) for layer in labels.layers]
    _put(call, call.out, layers, labels.zero, labels.wild)


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
    target = call.request.view(call.args[0].shape) if call.request else None
    if target is not None and len(target) != call.out.dim():
        target = None
    out = []
    for layer in labels.layers:
        dims = varying(layer)
        if len(dims) > 1:
            for run in _merged_dims(layer.shape, call.out.shape):
                inside = [d for d in run if d in dims]
                for k, d in enumerate(inside[1:], 1):
                    if any(layer.stride(e) < layer.stride(d) for e in inside[:k]):
                        call.ledger.unite(compact(layer), compact(layer).narrow(d, 0, 1))
        layer = layer.reshape(call.out.shape)
        if len(varying(layer)) > 1:
            layer = call.ledger.recompact(layer)
        out.append(_fit(call, layer, target))
    _put(call, call.out, out, labels.zero, labels.wild)


def _fit(call: Call, layer: Tensor, target: tuple | None) -> Tensor:
    """Let only those dimensions of a view shrink whose sizes the code does not fix.

    The dimensions that are faster in memory than the one that shrinks go as a whole, the slower ones lose equally many.
    """
    dims = varying(layer)
    if target is None or not dims:
        return layer
    if any(isinstance(size, Count) for size in target):  # whole heads go, where the code can count them
        free = [d for d in dims if isinstance(target[d], Count)]
    else:
        free = [d for d in dims if call.follows or not fixed(target[d])]
    if not free:
        call.ledger.freeze(layer, f"is given a fixed size by {call.name}")
        return layer
    shrinks = min(free, key=lambda d: layer.stride(d))
    layer = call.ledger.unite_along(layer, [d for d in dims if layer.stride(d) < layer.stride(shrinks)])
    for d in free:
        if isinstance(target[d], Width):
            if d == shrinks:
                target[d].meet(_lines(layer, d))
            else:
                target[d].used_as_number()
    return layer


@rule("expand", "repeat")
def expand(call: Call) -> None:
    """A copy per place of a new or longer dimension, which has the channels of the width that its size came from."""
    source = call.args[0]
    labels = call.labels(source) or Labels()
    target = call.request.view(source.shape) if call.request else None
    layers = [call.replay(layer) for layer in labels.layers]
    if target is not None and len(target) == call.out.dim():
        offset = call.out.dim() - source.dim()
        for d, size in enumerate(target):
            before = source.shape[d - offset] if d >= offset else 1
            if before == 1 and isinstance(size, Width):
                layers.append(along(call.out, d, size))
            elif before > 1 and call.name == "expand" and fixed(size) and not call.follows:
                for layer in layers:
                    if d in varying(layer):
                        call.ledger.freeze(layer, "is given a fixed size by expand")
            elif before > 1 and call.name == "repeat" and isinstance(size, Width):
                size.used_as_number()
    # a kernel expands to the shape of what it meets: that size follows
    follows = call.name == "expand" and target is None
    _put(call, call.out, [layer for layer in layers if layer is not None], labels.zero, labels.wild or follows)


def _lines(layer: Tensor, dim: int) -> Tensor:
    """The layer as lines along `dim`, int64 (lines, size)."""
    return compact(layer).movedim(dim, -1).reshape(-1, layer.shape[dim])


def _cut(call: Call, layer: Tensor, dim: int, sizes: list[int], asked: tuple | None) -> None:
    """A labelled dimension is cut into pieces.

    A piece whose size is written in the code stays as it is, one whose size follows a width keeps its proportion to
    it, and without a word from the code equal pieces lose equally many and unequal ones stay.
    """
    if len([s for s in sizes if s]) < 2 or shrinking(layer) != dim:
        return
    lines = _lines(layer, dim)
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
        _put(
            call,
            out,
            [layer.narrow(dim, sum(sizes[:i]), sizes[i]) for layer in labels.layers],
            labels.zero,
            labels.wild,
        )


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
            if n % step == 0 and start < step:
                rows = _lines(layer, dim).reshape(-1, n // step, step)
                call.ledger.unite(rows, rows[..., :1])
            else:
                call.ledger.freeze(layer, f"is sliced with step {step}, which does not divide {n}")
            continue
        bounds = call.request.bounds(dim, source.dim()) if call.request else None
        if bounds is None:
            length = call.out.shape[dim]
            _cut(call, layer, dim, [start, length, n - start - length], None)
            continue
        for bound in bounds:
            if bound is not None and 0 < abs(bound) < n:
                before = bound % n
                asked = (bound, None) if bound > 0 else (None, bound)
                _cut(call, layer, dim, [before, n - before], asked)
    _put(
        call,
        call.out,
        [call.replay(layer) for layer in labels.layers],
        labels.zero,
        labels.wild,
    )


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
            lines = _lines(layer, dim)
            if call.name == "select":
                lines = lines[:, : at + 1] if at >= 0 else lines[:, at:]
            call.ledger.freeze(lines, f"is read at a fixed index by {call.name}")
    if call.name == "unbind":
        for i, out in enumerate(call.out):
            _put(call, out, [layer.select(dim, i) for layer in labels.layers], labels.zero, labels.wild)
    else:
        _put(
            call,
            call.out,
            [call.replay(layer) for layer in labels.layers],
            labels.zero,
            labels.wild,
        )


def _aligned(layers: list[Tensor], dims: set[int]) -> Tensor | None:
    return next((layer for layer in layers if set(varying(layer)) & dims), None)


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
                pieces.append(torch.full(size, FROZEN))
        out.append(torch.cat(pieces, dim).expand(call.out.shape))
    zero = all(labels and labels.zero for labels in all_labels)
    _put(call, call.out, out, bool(zero))


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
            piece = torch.full(small, FROZEN) if layer is None else compact(layer, dims)
            pieces.append(piece)
        # laid out with the new dimension slowest: it is another dimension that shrinks
        out.append(torch.stack(pieces).movedim(0, dim).expand(call.out.shape))
    _put(call, call.out, out, all(labels and labels.zero for labels in all_labels))


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
    _put(call, call.out, [call.replay(layer) for layer in labels.layers], labels.zero)


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
        call.ledger.unknown(call.name, [labels])


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> None:
    """The channels that make up the positions of one channel go together."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    layers = [call.replay(layer) for layer in labels.layers]
    positions = (call.out.dim() - 2, call.out.dim() - 1)
    layers = [call.ledger.unite_along(layer, [d for d in positions if d in varying(layer)]) for layer in layers]
    _put(call, call.out, layers, labels.zero, labels.wild)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> None:
    """Groups of fixed number are interleaved: what stays is in order only if the same places of all groups go."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    for layer in labels.layers:
        if 1 in varying(layer):
            rows = _lines(layer, 1).unflatten(1, (call.arg("groups"), -1))
            call.ledger.unite(rows, rows[:, :1])
    _put(call, call.out, [call.replay(layer) for layer in labels.layers], labels.zero, labels.wild)


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
    _put(call, call.out, [call.replay(layer) for layer in labels.layers], labels.zero)


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> None:
    """Padded channels are constants that stay; padding elsewhere changes no label."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    pads = call.args[1]
    n = call.args[0].dim()
    padded = {n - 1 - i // 2 for i, p in enumerate(pads) if p}
    out = []
    for layer in labels.layers:
        if set(varying(layer)) & padded:
            out.append(torch.constant_pad_nd(layer, pads, FROZEN))
        else:
            out.append(compact(layer).expand(call.out.shape))
    _put(call, call.out, out, labels.zero and not call.arg("value", 0), labels.wild and not call.arg("value", 0))


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
    _put(call, call.out, layers, labels.zero)


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
    _put(call, data, layers, labels.zero)


@rule("view_as_complex", "view_as_real")
def complex_pairs(call: Call) -> None:
    """The last dimension holds real and imaginary parts: both go."""
    labels = call.labels(call.args[0])
    if labels is None:
        return
    if call.name == "view_as_real":
        layers = [layer.unsqueeze(-1).expand(call.out.shape) for layer in labels.layers]
    else:
        layers = [call.ledger.unite_along(layer, [layer.dim() - 1]).select(-1, 0) for layer in labels.layers]
    _put(call, call.out, layers, labels.zero)
