"""Second moments of a layer's inputs and wanted outputs, and the least squares that they define."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments"]


class Moments:
    """Sums over samples of x xᵀ, x yᵀ and y², for each group of a layer.

    Samples are centred on the mean of the first batch before they are multiplied in float32, so that large means do
    not eat the digits; sums are float64.
    """

    def __init__(self, x: Tensor, y: Tensor, intercept: bool) -> None:
        self.intercept = intercept
        self._x0 = x.mean(0) if intercept else torch.zeros_like(x[0])  # (groups, inputs)
        self._y0 = y.mean(0) if intercept else torch.zeros_like(y[0])  # (groups, outputs)
        groups, inputs, outputs = x.shape[1], x.shape[2], y.shape[2]
        new = {"dtype": torch.float64, "device": x.device}
        self.count = 0.0
        self._x, self._y = torch.zeros(groups, inputs, **new), torch.zeros(groups, outputs, **new)
        self._xx = torch.zeros(groups, inputs, inputs, **new)
        self._xy = torch.zeros(groups, inputs, outputs, **new)
        self._yy = torch.zeros(groups, outputs, **new)

    def add(self, x: Tensor, y: Tensor, weight: float) -> None:
        """Add samples x (samples, groups, inputs) and y (samples, groups, outputs), each counted `weight` times."""
        x, y = (x - self._x0).transpose(0, 1), (y - self._y0).transpose(0, 1)  # group first
        self.count += weight * x.shape[1]
        self._x += x.sum(1, dtype=torch.float64) * weight
        self._y += y.sum(1, dtype=torch.float64) * weight
        self._yy += y.square().sum(1, dtype=torch.float64) * weight
        self._xx += (x.mT @ x).double() * weight
        self._xy += (x.mT @ y).double() * weight

    def solve(self, old: Tensor, ridge: float) -> tuple[Tensor, Tensor, float]:
        """Weights and intercept that minimise the mean squared error, drawn towards the old weights.

        Minimises E|y − W x − b|² + ridge · mean(diag cov x) · |W − W_old|² for each group.

        Args:
            old: Present weights (groups, outputs, inputs).
            ridge: Strength, relative to the mean variance of the inputs.

        Returns:
            float64 weights (groups, outputs, inputs), intercept (groups, outputs), and the error that is left,
            relative to the variance of y.
        """
        mx, my = self._x / self.count, self._y / self.count
        cov = self._xx / self.count
        cross = self._xy / self.count
        var = self._yy / self.count
        if self.intercept:
            cov = cov - mx.unsqueeze(2) * mx.unsqueeze(1)
            cross = cross - mx.unsqueeze(2) * my.unsqueeze(1)
            var = var - my.square()
        w = old.double().mT  # (groups, inputs, outputs)
        scale = cov.diagonal(dim1=1, dim2=2).mean(1)
        # inputs that never vary leave nothing to solve for; the floor keeps the system regular and W at its old value
        lam = (ridge * scale).clamp_min(1e-12) + 1e-12 * scale
        system = cov + lam.view(-1, 1, 1) * torch.eye(cov.shape[1], dtype=cov.dtype, device=cov.device)
        w = w + torch.cholesky_solve(cross - cov @ w, torch.linalg.cholesky(system))
        left = var - 2 * (w * cross).sum(1) + (w * (cov @ w)).sum(1)
        shift = torch.zeros_like(my)
        if self.intercept:
            mean_x, mean_y = self._x0.double() + mx, self._y0.double() + my
            shift = mean_y - (mean_x.unsqueeze(1) @ w).squeeze(1)
        return w.mT, shift, float(left.sum().clamp_min(0) / var.sum().clamp_min(1e-300))
