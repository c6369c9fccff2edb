"""Batch norm statistics of a pruned network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..calibration import collect, evaluation, forward, full_precision
from ..errors import UserError
from ..exclusive import exclusive

__all__ = ["recalibrate_bn"]


@exclusive
def recalibrate_bn(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running statistics of every batch norm by the average over calibration batches, in place.

    Removing channels shifts what later layers see, and batch norms keep statistics of the unpruned network.
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
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluation(model), full_precision():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # cumulative average
                norm.train()
            with torch.no_grad():
                for batch in given:
                    forward(model, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "A calibration batch has one value per channel and so no variance; give batches of two images or more."
            ) from error
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return len(norms)
