"""Whether a network's weights are numbers, and whether they still are in float16."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from yoloprune.errors import UserError
from yoloprune.graph.tracing.internals import NormBase

__all__ = ["check_finite", "unfit_for_float16"]

_LARGEST = torch.finfo(torch.float16).max
_LOST = 0.01  # share of a tensor's norm; rounding alone takes less than .0005, what is lost beyond it went to zero


def check_finite(network: nn.Module, what: str) -> None:
    """Check that the weights and the running statistics of a network are finite.

    Args:
        network: The network.
        what: What to call it in the message.

    Raises:
        UserError: Some are NaN or infinite: names the first tensor and says how many there are.
    """
    bad = {name: ~value.isfinite() for name, value in _weights(network) if not value.isfinite().all()}
    if not bad:
        return
    name, where = next(iter(bad.items()))
    others = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
    raise UserError(
        f"{what} holds NaN or infinite weights: {int(where.sum())} of {where.numel()} values of '{name}'{others}; "
        "give a checkpoint from before its training diverged."
    )


def unfit_for_float16(network: nn.Module) -> str | None:
    """Which weights of a network float16 cannot hold, and why: a clause, or None if it can hold all.

    Beyond its largest number float16 has infinity; below its smallest zero, which hurts where it is most of a weight
    matrix, and in variances unless the norm's epsilon hides it.
    """
    for name, value in _weights(network):
        beyond = value[value.half().isinf() & value.isfinite()].abs()
        if beyond.numel():
            return f"'{name}' reaches {float(beyond.max()):.2g}, and float16 ends at {_LARGEST:.0f}"
    for name, value in _judged(network):
        norm = value.norm()
        if norm > 0 and (value - value.half().float()).norm() > _LOST * norm:
            return f"'{name}' is below what float16 resolves"
    for name, module in network.named_modules():
        if isinstance(module, NormBase) and module.running_var is not None:
            exact, rounded = ((v.float() + module.eps).sqrt() for v in (module.running_var, module.running_var.half()))
            if ((exact - rounded).abs() > _LOST * exact).any():
                return f"'{name}.running_var' is below what float16 resolves"
    return None


def _judged(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weight matrices and kernels, whose scale a norm may bring back; a vector that goes to zero is zero in effect."""
    return ((name, value) for name, value in _weights(network) if value.ndim > 1)


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and running statistics in float32; other buffers, such as attention masks, may hold infinity."""
    for name, value in network.named_parameters():
        yield name, value.detach().float()
    for name, module in network.named_modules():
        if isinstance(module, NormBase) and module.track_running_stats:
            for statistic in ("running_mean", "running_var"):
                yield f"{name}.{statistic}", getattr(module, statistic).float()
