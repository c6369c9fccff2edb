"""Normalisation: a channel, its affine pair and its running statistics are one."""

from __future__ import annotations

from torch import Tensor

from yoloprune.graph.labels import Labels, shrinking, varying
from yoloprune.graph.rules.contraction import vector
from yoloprune.graph.rules.registry import Call, rule
from yoloprune.graph.widths import fixed

__all__: list[str] = []


def _channel_norm(call: Call, x: Tensor, own: list[Tensor | None]) -> Tensor | None:
    """Unite the labels of dimension 1 with those of per-channel tensors; returns the label vector."""
    channels = vector(call, x, 1)
    labels = call.labels(x)
    for tensor in own:
        v = vector(call, tensor, 0)
        if v is None:
            if tensor is not None and channels is not None and tensor.numel() > 1:
                call.ledger.freeze(channels, f"meets values without prunable channels in {call.name}")
        elif channels is None:
            if not (labels and labels.wild):
                call.ledger.freeze(v, f"normalises values without prunable channels in {call.name}")
        else:
            call.ledger.unite(channels, v)
    layers = labels.layers if labels else ()
    zero = any(t is not None for t in own[:2]) or bool(labels and labels.zero)
    call.put(call.outs[0], Labels(layers, zero and all(shrinking(layer) == 1 for layer in layers)))
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
    if call.arg("training") and any(set(varying(layer)) - {1} for layer in call.layers(call.args[0])):
        call.ledger.statistics.add(call.name)
    _channel_norm(call, call.args[0], [a for a in call.args[1:5] if a is None or isinstance(a, Tensor)])


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> None:
    """GroupNorm: channels of each group share statistics, groups stay equally large."""
    x = call.args[0]
    weight, bias, groups = call.arg("weight"), call.arg("bias"), call.arg("group") or call.arg("num_groups")
    channels = _channel_norm(call, x, [weight, bias])
    if channels is not None and groups < x.shape[1]:
        call.ledger.statistics.add(call.name)
        call.ledger.tie(channels.view(groups, -1))


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(call: Call) -> None:
    """LayerNorm and RMSNorm: statistics over the normalised dimensions, affine per element."""
    x, out = call.args[0], call.outs[0]
    own = [a for a in call.args[2:4] if isinstance(a, Tensor)]
    normalised = set(range(x.dim() - len(call.args[1]), x.dim()))
    labels = call.labels(x)
    asked = call.request.normalised() if call.request else None
    if asked and not own:
        for layer in labels.layers if labels else ():
            if any(d in varying(layer) and fixed(asked[d - x.dim()]) for d in normalised):
                call.ledger.freeze(layer, "is normalised at a fixed size, with nothing that would follow")
    if any(set(varying(layer)) & normalised for layer in (labels.layers if labels else ())):
        call.ledger.statistics.add(call.name)
    layers = call.ledger.merge(out.shape, [(x.shape, labels)] + [(t.shape, call.labels(t)) for t in own], call.name)
    call.put(out, Labels(layers, bool(own)))


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> None:
    """Direction times length: a weight with the labels of its direction and its length."""
    v, g = call.args[:2]
    out = call.outs[0]
    layers = call.ledger.merge(out.shape, [(t.shape, call.labels(t)) for t in (v, g)], call.name)
    call.put(out, Labels(layers, zero=True))
