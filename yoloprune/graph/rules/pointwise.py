"""Element-wise arithmetic: labels that meet in an element are one."""

from __future__ import annotations

from torch import Tensor

from yoloprune.graph.labels import Labels
from yoloprune.graph.rules.registry import Call

__all__ = ["pointwise"]

# f(0) = 0, so a channel that is zero stays zero
_ZERO_PRESERVING = frozenset(
    [
        "relu",
        "silu",
        "gelu",
        "mish",
        "tanh",
        "leaky_relu",
        "hardswish",
        "relu6",
        "elu",
        "celu",
        "selu",
        "prelu",
        "abs",
        "neg",
        "sqrt",
        "sin",
        "square",
        "sign",
        "pow",
        "softsign",
        "hardtanh",
        "clone",
        "_to_copy",
        "dropout",
        "native_dropout",
        "clamp_max",
        "_prelu_kernel",
        "softshrink",
        "hardshrink",
        "tanhshrink",
    ]
)


def _stays_zero(call: Call, operands: list[Tensor]) -> bool:
    zeros = [bool((labels := call.labels(t)) and labels.zero) for t in operands]
    if call.name == "mul":
        return any(zeros)
    if call.name == "div":
        return bool(zeros) and zeros[0]
    if call.name in ("add", "sub"):
        return all(zeros) and all(isinstance(a, Tensor) for a in call.args[:2])
    if call.name == "hardtanh":
        return zeros[0] and call.arg("min_val", -1) <= 0
    return call.name in _ZERO_PRESERVING and all(zeros)


def pointwise(call: Call) -> None:
    """Any operator that PyTorch tags as point-wise, in place or not."""
    operands = [a for a in (*call.args, *call.kwargs.values()) if isinstance(a, Tensor)]
    operands += [t for a in call.args if isinstance(a, (list, tuple)) for t in a if isinstance(t, Tensor)]
    out = call.outs[0]
    layers = call.ledger.merge(out.shape, [(t.shape, call.labels(t)) for t in operands], call.name)
    wild = bool(operands) and all((labels := call.labels(t)) and labels.wild for t in operands)
    labels = Labels(layers, _stays_zero(call, operands), wild)
    for layer in layers:
        call.ledger.rectangle(layer)
    for t in call.outs:
        call.put(t, labels)
