"""Batch norm statistics of a pruned network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import BatchNorm

from ..calibration import collect
from ..errors import UserError
from ..exclusive import exclusive
from ..execution import evaluation, forward, full_precision

__all__ = ["recalibrate_bn"]


@exclusive
def recalibrate_bn(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running statistics of every batch norm by the average over calibration batches, in place.

    Removing channels shifts what later layers see, while batch norms keep the statistics of the unpruned network.
    Everything else, dropout included, stays in evaluation mode. Not to be used after `reconstruct`, which keeps the
    original statistics valid.

    Args:
        model: The pruned network.
        batches: Calibration batches; larger ones estimate the variance better.

    Returns:
        Number of batch norms that were recalibrated.

    Raises:
        UserError: If there are no batches, or one is too small to have a variance.
    """
    given = collect(batches, "Batch norm recalibration")
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    checks = [norm.register_forward_pre_hook(_check_variance, with_kwargs=True) for norm in norms]
    with evaluation(model), full_precision():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # cumulative average
                norm.train()
            with torch.no_grad():
                for batch in given:
                    forward(model, batch)
        finally:
            for norm, momentum, check in zip(norms, momenta, checks, strict=True):
                norm.momentum = momentum
                check.remove()
    return len(norms)


def _check_variance(norm: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
    """Raise an error for an input of shape (batch, channels, …) with a single value per channel."""
    x = args[0] if args else kwargs["input"]
    if x.numel() == x.shape[1]:
        raise UserError(
            "A calibration batch has one value per channel and so no variance; give batches of two images or more."
        )
