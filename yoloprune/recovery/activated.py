"""The rest of a layer's fit: least squares behind the activation, where most of what is negative does not count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Activated", "fit_activated"]

_LONGER, _SHORTER = 1.2, 0.4  # what a step is multiplied by after one that helped, and one that did not


class Activated:
    """What follows a layer, number by number: an affine map for each output, then an activation.

    Args:
        activation: A module that maps each number for itself.
        scale: float32 (outputs,).
        offset: float32 (outputs,).
    """

    def __init__(self, activation: nn.Module, scale: Tensor, offset: Tensor) -> None:
        self._activation, self._scale, self._offset = activation, scale, offset

    def __call__(self, y: Tensor) -> Tensor:
        """What comes out for a layer's outputs, (samples, outputs)."""
        with torch.no_grad():
            return self._activation(y * self._scale + self._offset)

    def with_slope(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its derivative by `y`."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            out = self._activation(y * self._scale + self._offset)
            return out.detach(), torch.autograd.grad(out.sum(), y)[0]


def fit_activated(
    x: Tensor,
    y: Tensor,
    counts: Tensor,
    weight: Tensor,
    shift: Tensor,
    behind: Activated,
    *,
    ridge: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Go on from a layer's least squares towards what comes out of the activation behind it.

    Lowers E|φ(y) - φ(W x + b)|² for each output by Gauss-Newton steps that share one matrix, the inputs' covariance,
    each as long as it helps that output: a step is kept only where the error falls. Pre-activations far below zero vary
    much and mean nothing, which least squares before the activation cannot know. (The nonlinear reconstruction of
    Zhang et al., TPAMI 2016, without its auxiliary variables.)

    Args:
        x: Inputs, float32 (samples, inputs).
        y: Wanted outputs, float32 (samples, outputs).
        counts: What each sample counts, float32 (samples,).
        weight: W to start from, float32 (outputs, inputs).
        shift: b, float32 (outputs,).
        behind: φ.
        ridge: Damping, relative to the mean variance of the inputs.
        steps: How many steps at most.

    Returns:
        W and b.
    """
    share = (counts / counts.sum())[:, None]
    mean = (x * share).sum(0)
    x = x - mean
    shared = (x * share).T
    covariance = (shared @ x).double()
    damping = ridge * covariance.diagonal().mean() + 1e-12
    root = torch.linalg.cholesky(covariance + damping * torch.eye(len(covariance)).to(covariance))
    wanted, centre = behind(y), shift + weight @ mean
    length = torch.ones_like(centre)

    def at(weight: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, slope = behind.with_slope(x @ weight.T + centre)
        left = wanted - out
        return left, slope, (left.square() * share).sum(0)

    left, slope, error = at(weight, centre)
    for _ in range(steps):
        curvature = (slope.square() * share).sum(0).clamp_min(1e-8)
        pull = slope * left
        gradient = (shared @ pull) / curvature
        step = torch.cholesky_solve(gradient.double(), root).T.to(weight) * length[:, None]
        trial = weight + step, centre + length * (pull * share).sum(0) / curvature
        new_left, new_slope, new_error = at(*trial)
        better = new_error < error
        weight, centre = torch.where(better[:, None], trial[0], weight), torch.where(better, trial[1], centre)
        left, slope = torch.where(better, new_left, left), torch.where(better, new_slope, slope)
        error = torch.where(better, new_error, error)
        length = length * torch.where(better, _LONGER, _SHORTER)
    return weight, centre - weight @ mean
