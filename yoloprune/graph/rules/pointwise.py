"""Element-wise arithmetic: labels of the same element are united."""

from __future__ import annotations

from torch import Tensor

from yoloprune.graph.labels import Labels, shrinking_dim
from yoloprune.graph.rules.registry import Call, rule

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
        "softsign",
        "clone",
        "_to_copy",
        "dropout",
        "native_dropout",
        "_prelu_kernel",
        "softshrink",
        "hardshrink",
        "tanhshrink",
    ]
)


def _stays_zero(call: Call, operands: list[Tensor], planes: tuple[Tensor, ...]) -> bool:
    """Whether the result is zero wherever one of its channels is: each of its dimensions is considered separately."""

    def zero(tensor: Tensor, dim: int) -> bool:
        labels = call.labels(tensor)
        if labels is None or not labels.zero:
            return False
        constant = labels.channel_free and not labels.planes
        return constant or any((shrinking_dim(plane) or 0) - tensor.dim() == dim for plane in labels.planes)

    dims = [(shrinking_dim(plane) or 0) - plane.dim() for plane in planes]
    if call.name == "mul":
        return all(any(zero(t, d) for t in operands) for d in dims)
    if call.name == "div":
        return all(isinstance(call.args[0], Tensor) and zero(call.args[0], d) for d in dims)
    if call.name in ("add", "sub"):
        both = all(isinstance(a, Tensor) for a in call.args[:2])
        return both and all(zero(t, d) for t in operands for d in dims)
    return _keeps_zero(call) and all(zero(operands[0], d) for d in dims)


def _keeps_zero(call: Call) -> bool:
    """Whether the function of the first operand is zero where that is."""
    if call.name == "pow":
        base, exponent = call.args[:2]
        return isinstance(base, Tensor) and not isinstance(exponent, Tensor) and exponent > 0
    if call.name in ("clamp", "clamp_min", "clamp_max", "hardtanh"):
        suffix = "_val" if call.name == "hardtanh" else ""
        low, high = (call.arg(end + suffix) for end in ("min", "max"))
        fits = not isinstance(low, Tensor) and not isinstance(high, Tensor)
        return fits and (low is None or low <= 0) and (high is None or high >= 0)
    return call.name in _ZERO_PRESERVING


# element-wise operators without PyTorch's tag: at all, up to 2.11, and in place
@rule("_prelu_kernel", "complex", "hardswish", "log_sigmoid_forward", "masked_fill", "rrelu_with_noise")
@rule("celu", "elu", "hardsigmoid", "hardtanh", "leaky_relu", "selu")
@rule("eq", "ge", "gt", "le", "lt", "ne")
@rule("abs", "copysign", "gcd", "gelu", "heaviside", "lcm", "mish", "threshold", "xlogy")
def pointwise(call: Call) -> None:
    """Operators that PyTorch tags as point-wise, in place or not, and those that lack the tag."""
    operands = [a for a in (*call.args, *call.kwargs.values()) if isinstance(a, Tensor)]
    operands += [t for a in call.args if isinstance(a, (list, tuple)) for t in a if isinstance(t, Tensor)]
    out = call.outs[0]
    planes = call.ledger.merge(out.shape, [(t.shape, call.labels(t)) for t in operands], call.name)
    channel_free = bool(operands) and all((labels := call.labels(t)) and labels.channel_free for t in operands)
    labels = Labels(planes, _stays_zero(call, operands, planes), channel_free)
    for plane in planes:
        call.ledger.keep_rectangular(plane)
    for t in call.outs:
        if t.shape == out.shape:
            call.put(t, labels)
