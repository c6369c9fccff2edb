"""Gradients of a loss on calibration batches, whatever state the network is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..execution import evaluation
from .registry import Inputs

__all__ = ["differentiable", "gradients"]


def gradients(graph, model: nn.Module, inputs: Inputs) -> Iterator[dict[str, Tensor]]:
    """Yield the loss gradients of each batch by parameter name; parameters that the loss does not reach are left out.

    The model is in evaluation mode meanwhile, so that batch norm statistics stay.
    """
    parameters = {name: t for name, t in graph.parameters(model).items() if isinstance(t, nn.Parameter)}
    with differentiable(model, list(parameters.values())):
        for number, batch in enumerate(inputs.batches):
            with torch.enable_grad():
                value = _loss_value(inputs.loss, model, batch, number)
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            inputs.tell(number + 1, len(inputs.batches))
            yield {n: g.detach() for n, g in zip(parameters, found, strict=True) if g is not None}


def _loss_value(loss: Callable[[nn.Module, object], Tensor], model: nn.Module, batch: object, number: int) -> Tensor:
    value = loss(model, batch)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"loss(model, batch) returned {got} for batch {number}; it must return a scalar tensor.")
    if not value.requires_grad:
        raise UserError(
            f"loss(model, batch) does not depend on the weights for batch {number}; compute it without torch.no_grad()."
        )
    if not torch.isfinite(value):
        raise UserError(f"The loss is {value.item()} for batch {number}; check the inputs and the labels.")
    return value


@contextmanager
def differentiable(model: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode, `parameters` open to gradients; modes and requires_grad are put back at the end."""
    required = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        with evaluation(model):
            yield
    finally:
        for p, flag in zip(parameters, required, strict=True):
            p.requires_grad_(flag)
