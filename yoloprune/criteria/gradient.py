"""Criteria from the loss on calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .labels import component_sums, slice_sums, weights
from .registry import Inputs, criterion

__all__ = ["hessian", "taylor"]


@criterion("taylor", needs_batches=True, needs_loss=True)
def taylor(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """First-order change of the loss: Σ_slices |Σ_{w∈slice} w · ∂L/∂w|, averaged over the batches.

    Molchanov et al., CVPR 2019, equation 8, over the whole group, batch norms and biases included. The absolute value
    is taken batch by batch, since at a minimum the gradients of many batches cancel.
    """
    values = weights(graph, model)
    total = np.zeros(graph.n_components)
    for gradients in _gradients(graph, model, inputs):
        products = {name: values[name].float() * g.float() for name, g in gradients.items()}
        total += component_sums(graph, ((start, np.abs(v)) for start, v in slice_sums(graph, products)))
    return total / len(inputs.batches)


@criterion("hessian", needs_batches=True, needs_loss=True)
def hessian(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Second-order change of the loss with a diagonal Hessian: ½ Σ_w h_w w².

    h_w is the mean squared gradient over all batches, the empirical Fisher information (LeCun et al., Optimal Brain
    Damage, 1989). A batch counts as one sample, so batches of one image give the exact figure.
    """
    values = weights(graph, model)
    squared = {name: torch.zeros(w.shape, dtype=torch.float32, device=w.device) for name, w in values.items()}
    for gradients in _gradients(graph, model, inputs):
        for name, gradient in gradients.items():
            squared[name].addcmul_(gradient.float(), gradient.float(), value=0.5 / len(inputs.batches))
    return component_sums(graph, slice_sums(graph, {n: squared[n] * w.float().square() for n, w in values.items()}))


def _gradients(graph, model: nn.Module, inputs: Inputs) -> Iterator[dict[str, Tensor]]:
    """Yield the loss gradients of each batch by parameter name; parameters that the loss does not reach are left out.

    The model is in evaluation mode meanwhile, so that batch norm statistics stay.
    """
    parameters = {name: t for name, t in graph.parameters(model).items() if isinstance(t, nn.Parameter)}
    with _differentiable(model, list(parameters.values())):
        for number, batch in enumerate(inputs.batches):
            with torch.enable_grad():
                value = _loss_value(inputs.loss, model, batch, number)
                gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            yield {n: g.detach() for n, g in zip(parameters, gradients, strict=True) if g is not None}


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
def _differentiable(model: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode, `parameters` open to gradients; modes and requires_grad are put back at the end."""
    modes = {module: module.training for module in model.modules()}
    required = [p.requires_grad for p in parameters]
    try:
        model.eval()
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in zip(parameters, required, strict=True):
            p.requires_grad_(flag)
        for module, mode in modes.items():
            module.training = mode
