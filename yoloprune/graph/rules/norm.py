"""Normalisation: a channel, its affine pair and its running statistics are one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yoloprune.graph.labels import Labels, shrinking_dim, varying_dims
from yoloprune.graph.rules.contraction import label_vector
from yoloprune.graph.rules.registry import Call, composite, rule
from yoloprune.graph.tracing.python_calls import PythonCall
from yoloprune.graph.tracing.symbolic_sizes import SymbolicSize, is_fixed

__all__: list[str] = []


def _channel_norm(call: Call, x: Tensor, own: list[Tensor | None]) -> Tensor | None:
    """Unite the labels of dimension 1 with those of per-channel tensors; returns the label vector."""
    channels = label_vector(call, x, 1)
    labels = call.labels(x)
    for tensor in own:
        v = label_vector(call, tensor, 0)
        if v is None:
            if tensor is not None and channels is not None and tensor.numel() > 1:
                call.ledger.freeze(channels, f"meets values without prunable channels in {call.name}")
        elif channels is None:
            if not (labels and labels.channel_free):
                call.ledger.freeze(v, f"normalises values without prunable channels in {call.name}")
        else:
            call.ledger.unite(channels, v)
    planes = labels.planes if labels else ()
    zero = any(t is not None for t in own[:2]) or bool(labels and labels.zero)
    call.put(call.outs[0], Labels(planes, zero and all(shrinking_dim(plane) == 1 for plane in planes)))
    return channels


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
    "batch_norm",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "miopen_batch_norm",
)
def batch_norm(call: Call) -> None:
    """BatchNorm: per channel; in training (of a weight, say) with statistics over whatever runs along the others."""
    if call.arg("training") and any(set(varying_dims(plane)) - {1} for plane in call.planes(call.args[0])):
        call.ledger.statistics.add(call.name)
    _channel_norm(call, call.args[0], [a for a in call.args[1:5] if a is None or isinstance(a, Tensor)])


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> None:
    """GroupNorm: channels of each group share statistics, groups stay equally large."""
    x = call.args[0]
    weight, bias, groups = call.arg("weight"), call.arg("bias"), call.arg("group") or call.arg("num_groups")
    channels = _channel_norm(call, x, [weight, bias])
    requested = call.python_call.groups() if call.python_call else None
    if (
        channels is not None
        and groups == x.shape[1] > 1
        and not (call.handler_updates_sizes and weight is not None)
        and is_fixed(requested)
    ):
        call.ledger.freeze(channels, "has its number fixed by the groups of a norm")
    if channels is not None and groups < x.shape[1]:
        if isinstance(requested, SymbolicSize):
            requested.to_plain_int()
        call.ledger.statistics.add(call.name)
        call.ledger.tie(channels.view(groups, -1))


@rule("native_layer_norm")
def layer_norm(call: Call) -> None:
    """LayerNorm: statistics over the normalised dimensions, affine per element."""
    requested = call.python_call.normalized_shape() if call.python_call else None
    _normalise(call, call.args[0], requested, len(call.args[1]), [a for a in call.args[2:4] if isinstance(a, Tensor)])


@composite("rms_norm")
def rms_norm(call: Call) -> None:
    """RMSNorm, before PyTorch decomposes it."""
    python_call = PythonCall(call.name, call.args, call.kwargs)
    requested, weight = python_call.normalized_shape() or (), python_call.weight()
    _normalise(call, call.args[0], requested, len(requested), [] if weight is None else [weight])


def _normalise(call: Call, x: Tensor, requested: tuple[Any, ...] | None, dims: int, own: list[Tensor]) -> None:
    """The last dimensions share statistics and have their size fixed where the code writes it."""
    normalised = set(range(x.dim() - dims, x.dim()))
    labels = call.labels(x) or Labels()
    for plane in labels.planes if requested else ():
        if requested and any(d in varying_dims(plane) and is_fixed(requested[d - x.dim()]) for d in normalised):
            call.ledger.freeze(plane, f"is given a fixed size by {call.name}")
    if any(set(varying_dims(plane)) & normalised for plane in labels.planes):
        call.ledger.statistics.add(call.name)
    out = call.outs[0]
    planes = call.ledger.merge(out.shape, [(x.shape, labels)] + [(t.shape, call.labels(t)) for t in own], call.name)
    scaled = bool(own) and all(shrinking_dim(plane) in normalised for plane in planes)
    call.put(out, Labels(planes, scaled or (labels.zero and call.name == "rms_norm")))


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> None:
    """Direction times length: a weight with the labels of its direction and its length."""
    v, g = call.args[:2]
    out = call.outs[0]
    planes = call.ledger.merge(out.shape, [(t.shape, call.labels(t)) for t in (v, g)], call.name)
    call.put(out, Labels(planes, zero=True))
