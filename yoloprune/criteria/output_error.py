"""Importance from what removal does to the outputs of the layers behind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..calibration import call_order, evaluation, forward, groups_of
from .loss import gradients
from .registry import Inputs, criterion

__all__ = ["output_error"]

_FLOOR = 1e-6  # of a layer's largest output variance: outputs that hardly vary must not decide


@criterion("output_error", needs_batches=True, per_mac=1.0)
def output_error(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Error that removal causes in the layers that consume the channel: Σ_layers Σ_o Var(x_c) ‖W[o,c]‖² / Var(y_o).

    The variances are over all positions of the calibration batches; where neither a bias nor a batch norm takes up a
    lost mean, it counts too. This is the objective of Channel Pruning (He et al., ICCV 2017, equation 1) for a single
    channel, relative to the layer's own output. With a loss, the share of each output is weighted by
    (Var(y_o) Σ (∂L/∂y_o)²)^influence: what its change does behind the layer (the Fisher information of GroupFisher,
    Liu et al., ICML 2021, summed over positions). Channels that no convolution or linear layer consumes stay longest.
    """
    layers = {name: m for name, m in model.named_modules() if _sums_inputs(m)}
    moments = {name: _Moments(m, inputs.influence if inputs.loss else 0.0) for name, m in layers.items()}
    with evaluation(model):
        norms = call_order(model, layers, lambda: _run(model, inputs, inputs.batches[0]))[1]
        handles = [layers[name].register_forward_hook(moment.see) for name, moment in moments.items()]
        try:
            if inputs.loss:
                for _ in gradients(graph, model, inputs):
                    pass
            else:
                with torch.no_grad():
                    for number, batch in enumerate(inputs.batches, start=1):
                        forward(model, batch)
                        inputs.tell(number, len(inputs.batches))
        finally:
            for handle in handles:
                handle.remove()
    names = {id(t): name for name, t in graph.parameters(model).items()}
    components = {(s.parameter, s.dim): graph.components_of(s) for s in graph.slices}
    scores, met = np.zeros(graph.n_components), np.zeros(graph.n_components, bool)
    for name, moment in moments.items():
        consumed = components.get((names.get(id(layers[name].weight)), moment.dim))
        if consumed is None or not moment.x.count:
            continue
        errors = moment.errors(centred=layers[name].bias is not None or name in norms)
        np.add.at(scores, np.broadcast_to(consumed, (len(errors) // len(consumed), len(consumed))).ravel(), errors)
        met[consumed] = True
    scores[~met] = scores.max(initial=1.0) * np.maximum(graph.cost.savings()[~met], 1.0)
    return scores


def _run(model: nn.Module, inputs: Inputs, batch: object) -> None:
    if inputs.loss:
        inputs.loss(model, batch)
    else:
        forward(model, batch)


def _sums_inputs(module: nn.Module) -> bool:
    """Whether it is a layer that sums over input channels; a depthwise convolution hands each one on."""
    if isinstance(module, _ConvNd):
        return module.groups == 1 or module.in_channels > module.groups
    return isinstance(module, nn.Linear)


class _Variance:
    """Mean and variance per channel over batches of different sizes (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0, torch.zeros(()), torch.zeros(())

    def add(self, t: Tensor, channel: int) -> None:
        others = [d for d in range(t.dim()) if d != channel % t.dim()]
        n = t.numel() // t.shape[channel]
        variance, mean = torch.var_mean(t.detach().float(), dim=others, correction=0)
        variance, mean = variance.double(), mean.double()
        total = self.count + n
        delta = mean - self.mean.to(mean.device)
        self.m2 = self.m2.to(mean.device) + variance * n + delta.square() * (self.count * n / total)
        self.mean = self.mean.to(mean.device) + delta * (n / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.m2 / self.count


class _Moments:
    """What one layer takes in and gives, over all its calls."""

    def __init__(self, module: nn.Module, influence: float) -> None:
        self.module, self.influence = module, influence
        self.x, self.y = _Variance(), _Variance()
        self.squares: Tensor | float = 0.0  # Σ over positions of (∂L/∂y)², per output
        self.dim = 0 if isinstance(module, _ConvTransposeNd) else 1  # of the weight, along the inputs

    def _channel(self) -> int:
        if isinstance(self.module, nn.Linear):
            return -1
        return -1 - len(self.module.kernel_size)

    def see(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        """Forward hook."""
        self.x.add(args[0], self._channel())
        self.y.add(out, self._channel())
        if self.influence and out.requires_grad:
            channel = self._channel() % out.dim()
            others = [d for d in range(out.dim()) if d != channel]

            def see_gradient(gradient: Tensor) -> None:
                self.squares = self.squares + gradient.detach().double().square().sum(others)

            out.register_hook(see_gradient)

    def errors(self, centred: bool) -> np.ndarray:
        """Error that each input channel carries, float64 (inputs,)."""
        groups, weight = groups_of(self.module), self.module.weight.detach().double()
        if self.dim == 0:  # (inputs, outputs per group, *kernel) -> (groups, outputs, inputs)
            weight = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel()).transpose(1, 2)
        else:
            weight = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
        taken = self.x.variance if centred else self.x.variance + self.x.mean.square()
        given = self.y.variance
        share = 1 / given.clamp_min(_FLOOR * given.max().clamp_min(1e-300))
        if self.influence:
            squares = torch.as_tensor(self.squares, dtype=torch.float64, device=given.device).expand_as(given)
            share = share * (given * squares) ** self.influence
        energy = (weight.square().sum(3) * share.reshape(groups, -1, 1)).sum(1)  # (groups, inputs)
        return (energy * taken.reshape(groups, -1)).reshape(-1).cpu().numpy()
