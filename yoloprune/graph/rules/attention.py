"""Attention as the model's code calls it, before PyTorch decomposes it: what kernels compute inside is invisible."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from yoloprune.graph.labels import CostTerm, Labels, compact, varying_dims
from yoloprune.graph.rules.contraction import label_vector, unite_summed
from yoloprune.graph.rules.registry import Call, composite

__all__: list[str] = []


@composite("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> None:
    """softmax(q kᵀ · scale) v for q (…, H, L, D), k (…, H, S, D), v (…, H, S, E).

    Where no scale is given, it is a function of D, which must stay then; heads may go as a whole.
    """
    given = dict(zip(("query", "key", "value", "attn_mask"), call.args, strict=False)) | call.kwargs
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    ledger, out = call.ledger, call.out
    sides = [[plane for plane in call.planes(t) if t.dim() - 1 in varying_dims(plane)] for t in (q, k)]
    if given.get("scale") is None or not (sides[0] and sides[1]):
        for plane in sides[0] + sides[1]:
            ledger.freeze(plane, "is a head's width, by which attention is scaled")
    else:
        a, b = (ledger.unite_along(s[0], [q.dim() - 2]).select(-2, 0) for s in sides)
        for s in sides:
            for extra in s[1:]:
                ledger.freeze(extra, "is a head's width twice")
        dims = set(varying_dims(a)) | set(varying_dims(b))
        ledger.unite(compact(a, dims), compact(b, dims))
    operands: list[tuple[Any, Labels | None]] = []
    for t, summed in ((q, (-1,)), (k, (-1, -2)), (v, (-2,)), (mask, (-1, -2))):
        if t is None:
            continue
        own = []
        for plane in call.planes(t):
            if (t is q or t is k) and t.dim() - 1 in varying_dims(plane):
                continue
            plane = ledger.unite_along(plane, [d % t.dim() for d in summed])
            if given.get("enable_gqa") and t.dim() > 2 and t.shape[-3] != q.shape[-3] and t is not mask:
                plane = plane.repeat_interleave(q.shape[-3] // t.shape[-3], -3)
            own.append(ledger.rebroadcast(plane))
        shape = list(t.shape)
        for d in summed:
            shape[d] = 1
        if t.dim() > 2:
            shape[-3] = out.shape[-3] if t is not mask else shape[-3]
        own = [plane[tuple(slice(0, n) for n in shape)] for plane in own]
        operands.append((shape, Labels(tuple(own))))
    planes = ledger.merge(out.shape, operands, "scaled_dot_product_attention")
    values = call.labels(v)
    call.put(out, Labels(planes, bool(values and values.zero)))
    for plane in planes:
        ledger.producers.append(compact(plane).reshape(-1))
    heads = [compact(v).reshape(-1) for v in planes if out.dim() - 1 not in varying_dims(v)]
    score = q.shape[:-1].numel() * k.shape[-2]
    left = [compact(s).reshape(-1) for s in sides[0][:1]]
    ledger.costs.append(CostTerm(call.module, "q kᵀ", score * q.shape[-1], tuple(left + heads)))
    results = tuple(compact(plane).reshape(-1) for plane in planes)
    ledger.costs.append(CostTerm(call.module, "a v", score * v.shape[-1], results))


def _labels_along(call: Call, tensor: Tensor, dim: int) -> Tensor:
    """Labels along a dimension of a parameter that has them, int32 (size,)."""
    line = label_vector(call, tensor, dim)
    if line is None:
        raise ValueError(f"a parameter of shape {tuple(tensor.shape)} has no labels along dimension {dim}")
    return line


@composite("multi_head_attention_forward")
def multi_head_attention(call: Call) -> None:
    """nn.MultiheadAttention: heads go as a whole, since scores are scaled by a head's width.

    A head is its rows in the three input projections and its columns in the output projection. The module needs an
    embedding of heads × head width, so for every head the embedding loses as many channels as the head has.
    """
    given = inspect.signature(functional.multi_head_attention_forward).bind(*call.args, **call.kwargs)
    given.apply_defaults()
    a = given.arguments
    query, key, value, heads = a["query"], a["key"], a["value"], a["num_heads"]
    ledger, width = call.ledger, a["embed_dim_to_check"]
    if a["use_separate_proj_weight"]:
        weights = [a["q_proj_weight"], a["k_proj_weight"], a["v_proj_weight"]]
    else:
        weights = [a["in_proj_weight"]]
    biases = [a[b] for b in ("in_proj_bias", "out_proj_bias", "bias_k", "bias_v") if a[b] is not None]
    labelled = all(len(call.planes(w)) == 2 for w in (*weights, a["out_proj_weight"]))
    if not labelled or not all(call.planes(b) for b in biases):
        for tensor in (*call.args, *call.kwargs.values()):
            if isinstance(tensor, Tensor):
                ledger.freeze_all(call.labels(tensor), "meets attention with weights that are not parameters")
        return
    inner = [_labels_along(call, w, 1) for w in weights] * (3 // len(weights))
    rows = torch.cat([_labels_along(call, w, 0) for w in weights])
    for tensor, own in zip((query, key, value), inner, strict=True):
        unite_summed(call, label_vector(call, tensor, tensor.dim() - 1), own)
    if a["in_proj_bias"] is not None:
        ledger.unite(_labels_along(call, a["in_proj_bias"], 0), rows)
    ledger.producers.append(rows)
    parts = [rows.view(3, heads, -1), _labels_along(call, a["out_proj_weight"], 1).view(1, heads, -1)]
    parts += [_labels_along(call, a[b], 2).view(1, heads, -1) for b in ("bias_k", "bias_v") if a[b] is not None]
    head = parts[0][0, :, 0]
    for part in parts:
        ledger.unite(part, head.view(1, heads, 1))
    outer = _labels_along(call, a["out_proj_weight"], 0)
    ledger.producers.append(outer)
    if a["out_proj_bias"] is not None:
        ledger.unite(_labels_along(call, a["out_proj_bias"], 0), outer)
    ledger.tie(torch.cat([inner[0].view(heads, -1).T, outer.view(heads, -1).T, head.view(1, -1)]))
    out, scores = call.out
    call.put(out, Labels((outer.expand(out.shape),), zero=True))
    if scores is not None:
        if a["average_attn_weights"]:
            call.freeze_on_use(scores, head, "is averaged with the other heads")
        else:
            call.put(scores, Labels((head.view(-1, 1, 1).expand(scores.shape),)))
    tokens, keys = query.numel() // width, key.numel() // key.shape[-1]
    pairs = tokens * key.shape[0]
    for name, macs, vectors in (
        ("q", tokens * width * width, (inner[0], rows[:width])),
        ("k", keys * width * key.shape[-1], (inner[1], rows[width : 2 * width])),
        ("v", keys * width * value.shape[-1], (inner[2], rows[2 * width :])),
        ("q kᵀ", pairs * width, (head,)),
        ("a v", pairs * width, (head,)),
        ("out", tokens * width * width, (head, outer)),
    ):
        ledger.costs.append(CostTerm(call.module, name, macs, vectors))
