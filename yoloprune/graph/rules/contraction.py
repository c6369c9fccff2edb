"""Convolutions, matrix products and attention: labels of the summed dimension are united, the others pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from yoloprune.errors import UserError
from yoloprune.graph.labels import CostTerm, Labels, compact, dim_from_end, varying_dims
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.tracing.symbolic_sizes import SymbolicSize

__all__ = ["label_vector", "unite_summed"]


def label_vector(call: Call, tensor: Tensor | None, dim: int) -> Tensor | None:
    """Labels along one dimension as a 1-D tensor; labels that also differ along others are united there."""
    if tensor is None:
        return None
    found = None
    for plane in call.planes(tensor):
        dims = varying_dims(plane)
        if dim in dims:
            plane = call.ledger.unite_along(plane, [d for d in dims if d != dim])
            line = compact(plane, (dim,)).reshape(-1)
            if found is None:
                found = line
            else:
                call.ledger.unite(found, line)
    return found


def _is_channel_free(call: Call, tensor: Tensor) -> bool:
    labels = call.labels(tensor)
    return bool(labels and labels.channel_free)


def unite_summed(
    call: Call, a: Tensor | None, b: Tensor | None, a_channel_free: bool = False, b_channel_free: bool = False
) -> None:
    """Unite two label vectors that are summed over together; one without a partner must stay."""
    if a is not None and b is not None:
        call.ledger.unite(a, b)
    elif a is not None and not b_channel_free:
        call.ledger.freeze(a, f"is summed in {call.name} against values without prunable channels")
    elif b is not None and not a_channel_free:
        call.ledger.freeze(b, f"is summed in {call.name} against values without prunable channels")


def _freeze_unless_zero(call: Call, x: Tensor, w: Tensor, source: Tensor | None) -> None:
    """Freeze channels that would still add to the sum when zeroed: neither values nor weights are zero then."""
    if source is not None and not any((labels := call.labels(t)) and labels.zero for t in (x, w)):
        call.ledger.freeze(source, f"is not zero when its slices are, and is summed in {call.name}")


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "convolution_overrideable")
def convolution(call: Call) -> None:
    """Plain, grouped, depthwise and transposed convolutions in any number of dimensions."""
    x, w, bias = call.args[0], call.args[1], call.args[2]
    transposed, groups = bool(call.arg("transposed", False)), call.arg("groups", 1)
    ledger = call.ledger
    channel = x.dim() - (w.dim() - 1)  # 1 with a batch dimension, else 0
    n_in, n_out = x.shape[channel], call.out.shape[channel]
    for plane in call.planes(w):
        if any(d > 1 for d in varying_dims(plane)):
            ledger.freeze(plane, "is a kernel size")
    source = label_vector(call, x, channel)
    first, second = label_vector(call, w, 0), label_vector(call, w, 1)
    channel_free = _is_channel_free(call, x)
    vectors: list[Tensor | None]
    per_in, per_out = n_in // groups, n_out // groups
    produces = True
    _freeze_unless_zero(call, x, w, source)
    requested = None if call.handler_updates_sizes or call.python_call is None else call.python_call.groups()
    if groups > 1 and requested is not None:
        if isinstance(requested, SymbolicSize):
            if per_in > 1:
                requested.to_plain_int()
        elif per_in == 1:
            for line in (source, first):
                if line is not None:
                    ledger.freeze(line, "has its number fixed by the groups of a convolution")
    if groups == 1:
        w_in, out = (first, second) if transposed else (second, first)
        if n_in > 1:
            unite_summed(call, source, w_in, a_channel_free=channel_free)
        vectors = [w_in, out]
    elif per_in == 1:
        # one input channel per group: input and output are the same channel
        per_channel = first.view(groups, -1) if first is not None else None
        if source is None:
            if first is not None and not channel_free:
                ledger.freeze(first, "is a depthwise layer over values without prunable channels")
        elif per_channel is not None:
            ledger.unite(per_channel, source.view(groups, 1))
        else:
            ledger.freeze(source, "meets a depthwise layer without labels")
        if transposed:
            if second is not None:
                ledger.freeze(second, "is the multiplier of a transposed depthwise layer")
            out = first.repeat_interleave(per_out) if first is not None else None
        else:
            out = first
        vectors, produces = [first], False
    else:
        if transposed:
            if source is not None and first is not None:
                ledger.unite(source, first)
            elif first is not None and not channel_free:
                ledger.freeze(first, "is summed against values without prunable channels")
            if first is not None:
                ledger.tie(first.view(groups, per_in))
            if second is not None:
                out = second.repeat(groups)
            else:
                out = None
        else:
            if source is not None and second is not None:
                ledger.unite(source.view(groups, per_in), second.view(1, per_in))
            else:
                unite_summed(call, source, second, a_channel_free=channel_free)
            out = first
            if out is not None and per_out > 0:
                ledger.tie(out.view(groups, per_out))
        vectors = [first, second]
    if bias is not None and (b := label_vector(call, bias, 0)) is not None:
        if out is None:
            ledger.freeze(b, "is the bias of a layer without prunable outputs")
        else:
            ledger.unite(b, out)
    planes = []
    if out is not None:
        shape = [n_out if d == channel else 1 for d in range(call.out.dim())]
        planes.append(out.view(shape).expand(call.out.shape))
        if produces:
            ledger.producers.append(out)
    for plane in call.planes(x):
        dims = varying_dims(plane)
        if channel and dims == (0,):  # labels along the batch dimension (heads folded into it) pass
            planes.append(plane[(slice(None), *[slice(0, 1)] * (x.dim() - 1))].expand(call.out.shape))
        elif channel not in dims:
            ledger.freeze(plane, "is a position of a convolution")
    call.put(call.out, Labels(tuple(planes), zero=len(planes) < 2))
    positions = (x.numel() // n_in) if transposed else call.out.numel() // n_out
    macs = positions * w.numel() if transposed else positions * n_out * per_in * math.prod(w.shape[2:])
    ledger.costs.append(CostTerm(call.module, call.name, macs, tuple(v for v in vectors if v is not None)))


def _product(call: Call, a: Tensor, b: Tensor, out_shape: torch.Size) -> tuple[tuple[Tensor, ...], bool]:
    """Label planes of a @ b for a (…, n, k), b (…, k, m) with equal batch dimensions."""
    ledger = call.ledger
    nd = a.dim()
    labels_a, labels_b = call.labels(a) or Labels(), call.labels(b) or Labels()
    k = a.shape[-1]

    def summed(labels: Labels, sum_dim: int, free_dim: int) -> list[Tensor]:
        found = []
        for plane in labels.planes:
            dims = varying_dims(plane)
            if sum_dim in dims:
                if not plane.shape[free_dim]:
                    raise UserError(
                        f"No values reach {call.module or 'the model'} with these example inputs, so what belongs "
                        "together there is not seen; give example inputs that reach it."
                    )
                plane = ledger.unite_along(plane, [free_dim])
                for d in dims:
                    if d not in (sum_dim, free_dim) and plane.stride(d) < plane.stride(sum_dim):
                        # the batch index runs faster in memory: what is kept stays in order only as whole rows
                        ledger.unite(compact(plane), compact(plane).narrow(d, 0, 1))
                found.append(plane.select(free_dim, 0))
        return found

    left, right = summed(labels_a, nd - 1, nd - 2), summed(labels_b, nd - 2, nd - 1)
    if k > 1:
        if left and right:
            for plane in left[1:] + right:
                dims = set(varying_dims(left[0])) | set(varying_dims(plane))
                ledger.unite(compact(left[0], dims), compact(plane, dims))
            if not (labels_a.zero or labels_b.zero):
                ledger.freeze(left[0], f"is not zero when its slices are, and is summed in {call.name}")
        elif left and not labels_b.channel_free:
            for plane in left:
                ledger.freeze(plane, f"is summed in {call.name} against values without prunable channels")
        elif right and not labels_a.channel_free:
            for plane in right:
                ledger.freeze(plane, f"is summed in {call.name} against values without prunable channels")
    rows = tuple(v.narrow(-1, 0, 1).expand(out_shape) for v in labels_a.planes if nd - 1 not in varying_dims(v))
    columns = tuple(v.narrow(-2, 0, 1).expand(out_shape) for v in labels_b.planes if nd - 2 not in varying_dims(v))
    planes = ledger.merge(out_shape, [(out_shape, Labels(rows)), (out_shape, Labels(columns))], call.name, strict=False)
    planes = tuple(plane for plane in planes if varying_dims(plane))
    for plane in planes:
        ledger.producers.append(compact(plane).reshape(-1))
        ledger.keep_rectangular(plane)
    vectors = [compact(v).reshape(-1) for v in (left or right)[:1]] + [compact(v).reshape(-1) for v in planes]
    ledger.costs.append(CostTerm(call.module, call.name, math.prod(out_shape) * k, tuple(vectors)))
    return planes, (not rows or labels_a.zero) and (not columns or labels_b.zero)


@rule("mm", "bmm", "matmul")
def product(call: Call) -> None:
    """Matrix products."""
    planes, zero = _product(call, call.args[0], call.args[1], call.out.shape)
    call.put(call.out, Labels(planes, zero))


@rule("mv", "dot", "addmv")
def vector_product(call: Call) -> None:
    """Matrix times vector: the summed dimension is united, rows pass and are united with those of a bias."""
    a, b = call.args[-2:]
    left, right = label_vector(call, a, a.dim() - 1), label_vector(call, b, 0)
    unite_summed(call, left, right, _is_channel_free(call, a), _is_channel_free(call, b))
    _freeze_unless_zero(call, a, b, right if left is None else left)
    rows = label_vector(call, a, 0) if a.dim() == 2 else None
    if rows is not None:
        call.ledger.producers.append(rows)
    if call.name == "addmv":
        unite_summed(
            call, rows, label_vector(call, call.args[0], 0), b_channel_free=_is_channel_free(call, call.args[0])
        )
    call.put(call.out, Labels((rows,) if rows is not None else (), zero=True))
    vectors = tuple(v for v in (rows, left if left is not None else right) if v is not None)
    call.ledger.costs.append(CostTerm(call.module, call.name, a.numel(), vectors))


@rule("addmm", "baddbmm")
def product_with_bias(call: Call) -> None:
    """Matrix products with a bias that is united with the result."""
    bias, a, b = call.args[:3]
    planes, zero = _product(call, a, b, call.out.shape)
    result = Labels(planes, zero)
    merged = call.ledger.merge(call.out.shape, [(call.out.shape, result), (bias.shape, call.labels(bias))], call.name)
    own = call.labels(bias)
    held = {dim_from_end(plane) for plane in (own.planes if own else ())}
    zero = zero and bool(own and own.zero) and all(dim_from_end(v) in held for v in merged)
    call.put(call.out, Labels(merged, zero))


@rule("linear")
def linear(call: Call) -> None:
    """Multiply by the transposed weight and add the bias, as one operator (some backends do not decompose it)."""
    x, w, bias = call.args[0], call.args[1], call.arg("bias")
    source, w_in, out = label_vector(call, x, x.dim() - 1), label_vector(call, w, 1), label_vector(call, w, 0)
    _freeze_unless_zero(call, x, w, source)
    if x.shape[-1] > 1:
        unite_summed(call, source, w_in, a_channel_free=_is_channel_free(call, x))
    planes = [v.narrow(-1, 0, 1).expand(call.out.shape) for v in call.planes(x) if x.dim() - 1 not in varying_dims(v)]
    if out is not None:
        call.ledger.producers.append(out)
        planes.append(out.expand(call.out.shape))
        if bias is not None and (b := label_vector(call, bias, 0)) is not None:
            call.ledger.unite(b, out)
    call.put(call.out, Labels(tuple(planes), zero=len(planes) < 2))
    macs = call.out.numel() * x.shape[-1]
    vectors = tuple(v for v in (w_in, out) if v is not None)
    call.ledger.costs.append(CostTerm(call.module, call.name, macs, vectors))


@rule("_cdist_forward")
def distances(call: Call) -> None:
    """Distances between rows: a feature that is zero on both sides adds nothing."""
    a, b = call.args[:2]
    left, right = label_vector(call, a, a.dim() - 1), label_vector(call, b, b.dim() - 1)
    unite_summed(call, left, right, _is_channel_free(call, a), _is_channel_free(call, b))
    for tensor, line in ((a, left), (b, right)):
        if line is not None and not ((own := call.labels(tensor)) and own.zero):
            call.ledger.freeze(line, "is not zero when its slices are, and is summed in a distance")


@rule("_trilinear")
def trilinear(call: Call) -> None:
    """Products of three broadcast operands, summed over some dimensions: nn.Bilinear."""
    operands = list(call.args[:3])
    summed = set(call.args[6])
    expanded = []
    for tensor, inserted in zip(operands, call.args[3:6], strict=True):
        labels, shape = call.labels(tensor) or Labels(), list(tensor.shape)
        planes = list(labels.planes)
        for d in sorted(inserted):
            shape.insert(d, 1)
            planes = [plane.unsqueeze(d) for plane in planes]
        expanded.append((shape, Labels(tuple(planes), channel_free=labels.channel_free)))
    shape = [max(sizes) for sizes in zip(*(own for own, _ in expanded), strict=True)]
    merged = call.ledger.merge(shape, expanded, call.name)
    planes = []
    for plane in merged:
        if not set(varying_dims(plane)) & summed:
            call.ledger.producers.append(compact(plane).reshape(-1))
            for d in sorted(summed, reverse=True):
                plane = plane.select(d, 0)
            planes.append(plane.expand(call.out.shape))
    call.put(call.out, Labels(tuple(planes), zero=True))
    vectors = tuple(compact(plane).reshape(-1) for plane in merged)
    call.ledger.costs.append(CostTerm(call.module, call.name, math.prod(shape), vectors))


@rule("deform_conv2d")
def deform_conv2d(call: Call) -> None:
    """A convolution that samples at positions from another layer; those stay, and so does what is grouped."""
    x, w, offset, mask, bias = call.args[:5]
    for tensor in (offset, mask):
        call.ledger.freeze_all(call.labels(tensor), "is a sampling place")
    source, w_in, out = label_vector(call, x, 1), label_vector(call, w, 1), label_vector(call, w, 0)
    if x.shape[1] != w.shape[1] or out is None:
        call.ledger.freeze_all(call.labels(x), "meets a grouped deformable convolution")
        call.ledger.freeze_all(call.labels(w), "is grouped and deformable")
    else:
        unite_summed(call, source, w_in)
    call.ledger.freeze_all(Labels(tuple(v for v in call.planes(w) if varying_dims(v)[0] > 1)), "is a kernel size")
    planes: tuple[Tensor, ...] = ()
    if out is not None:
        call.ledger.producers.append(out)
        planes = (out.view(1, -1, 1, 1).expand(call.out.shape),)
        if (own := label_vector(call, bias, 0)) is not None:
            call.ledger.unite(own, out)
    call.put(call.out, Labels(planes, zero=True))
    macs = call.out[:, :1].numel() * w.numel()
    call.ledger.costs.append(CostTerm(call.module, call.name, macs, tuple(v for v in (w_in, out) if v is not None)))
