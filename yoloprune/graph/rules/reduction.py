"""Reductions, and operators that compare the entries of one dimension."""

from __future__ import annotations

from torch import Tensor

from yoloprune.graph.labels import Labels, shrinking_dim, varying_dims
from yoloprune.graph.rules.pointwise import pointwise
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []

_SUMS = frozenset(["sum", "linalg_vector_norm", "norm"])  # a norm of negative order is a minimum
_STATISTICS = frozenset(["mean", "var", "std", "var_mean", "std_mean"])


def _order(call: Call) -> float:
    order = call.arg("ord" if call.name == "linalg_vector_norm" else "p")
    return 2.0 if order is None else float(order)


def _dims(call: Call, x: Tensor) -> set[int]:
    dim = call.arg("dim")
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return set(range(x.dim()))
    return {d % x.dim() for d in ([dim] if isinstance(dim, int) else dim)} if x.dim() else set()


@rule(
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "prod",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "norm",
    "linalg_vector_norm",
    "argmax",
    "argmin",
    "logsumexp",
    "any",
    "all",
    "median",
    "count_nonzero",
)
def reduce(call: Call) -> None:
    """Labels along reduced dimensions only disappear; if they also run along others, they are united."""
    x = call.args[0]
    if call.name in ("max", "min") and len(call.args) > 1 and isinstance(call.args[1], Tensor):
        pointwise(call)
        return
    labels = call.labels(x)
    if labels is None:
        return
    dims, keepdim = _dims(call, x), bool(call.arg("keepdim", False))
    planes = []
    for plane in labels.planes:
        own = set(varying_dims(plane))
        if own and shrinking_dim(plane) in dims:
            if call.name in _STATISTICS:
                call.ledger.statistics.add(call.name)
            elif call.name in _SUMS and labels.zero and not _order(call) < 0:
                pass
            else:
                call.ledger.freeze(plane, f"is compared with other channels by {call.name}")
            continue
        plane = call.ledger.unite_along(plane, sorted(own & dims))
        for d in sorted(dims, reverse=True):
            plane = plane.narrow(d, 0, 1) if keepdim else plane.select(d, 0)
        planes.append(plane)
    for out in call.outs:
        call.put(out, Labels(tuple(planes), labels.zero and call.name not in ("prod", "var", "logsumexp")))


@rule(
    "_softmax",
    "_log_softmax",
    "softmax",
    "log_softmax",
    "_safe_softmax",
    "cumsum",
    "cumprod",
    "sort",
    "topk",
    "kthvalue",
    "argsort",
    "logcumsumexp",
    "cummax",
)
def compare(call: Call) -> None:
    """Entries of one dimension are weighed against each other: labels along it must stay, others pass."""
    x = call.args[0]
    labels = call.labels(x)
    if labels is None:
        return
    dim = call.arg("dim", -1) % max(x.dim(), 1)
    planes = []
    for plane in labels.planes:
        if shrinking_dim(plane) == dim:
            call.ledger.freeze(plane, f"is weighed against other channels by {call.name}")
        else:
            planes.append(call.ledger.unite_along(plane, [dim]).narrow(dim, 0, 1))
    for out in call.outs:
        call.put(out, Labels(tuple(plane.expand(out.shape) for plane in planes), False))
