"""What the layers take in and give that consume channels: the statistics behind `output_error` and its like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import ConvNd, ConvTransposeNd

from ..calibration import call_order, groups_of
from ..execution import evaluation, forward
from .loss import gradients
from .registry import Inputs

__all__ = ["Consumer", "Moments", "observed"]

_FLOOR = 1e-6  # of a layer's largest output variance: outputs that hardly vary must not decide


class Consumer(NamedTuple):
    """A layer that sums over channels.

    Attributes:
        name: Module name.
        module: The layer.
        moments: What it takes in and gives.
        consumed: Component of each of its input channels, int (inputs,).
        centred: Whether a bias or a batch norm takes up a lost mean.
    """

    name: str
    module: nn.Module
    moments: Moments
    consumed: np.ndarray
    centred: bool


def observed(
    graph,
    model: nn.Module,
    inputs: Inputs,
    watch: Callable[[str, nn.Module, Tensor, Tensor], None] = lambda name, module, x, y: None,
) -> Iterator[Consumer]:
    """Run the calibration batches, with gradients if there is a loss; yield the layers that consume components.

    Args:
        graph: The graph.
        model: The network.
        inputs: Batches and loss.
        watch: Is told at every call of such a layer its name, itself, its input and its output.
    """
    layers = {name: m for name, m in model.named_modules() if _sums_inputs(m)}
    moments = {name: Moments(m, inputs.influence if inputs.loss else 0.0) for name, m in layers.items()}
    with evaluation(model):
        norms = call_order(model, layers, lambda: _run(model, inputs, inputs.batches[0])).norms
        handles = [layers[name].register_forward_hook(moment.see) for name, moment in moments.items()]
        handles += [
            m.register_forward_hook(lambda m, args, out, name=name: watch(name, m, args[0].detach(), out.detach()))
            for name, m in layers.items()
        ]
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
    for name, moment in moments.items():
        consumed = components.get((names.get(id(layers[name].weight)), moment.dim))
        if consumed is not None and moment.x.count:
            yield Consumer(name, layers[name], moment, consumed, layers[name].bias is not None or name in norms)


def _run(model: nn.Module, inputs: Inputs, batch: object) -> None:
    if inputs.loss:
        inputs.loss(model, batch)
    else:
        forward(model, batch)


def _sums_inputs(module: nn.Module) -> bool:
    """Whether it is a layer that sums over input channels; a depthwise convolution hands each one on."""
    if isinstance(module, ConvNd):
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


class Moments:
    """What one layer takes in and gives, over all its calls."""

    def __init__(self, module: nn.Module, influence: float) -> None:
        self.module, self.influence = module, influence
        self.x, self.y = _Variance(), _Variance()
        self.squares: Tensor | float = 0.0  # Σ over positions of (∂L/∂y)², per output
        self.dim = 0 if isinstance(module, ConvTransposeNd) else 1  # of the weight, along the inputs

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

    def shares(self) -> Tensor:
        """What a squared error of each output counts, float64 (outputs,)."""
        given = self.y.variance
        share = 1 / given.clamp_min(_FLOOR * given.max().clamp_min(1e-300))
        if self.influence:
            squares = torch.as_tensor(self.squares, dtype=torch.float64, device=given.device).expand_as(given)
            share = share * (given * squares) ** self.influence
        return share

    def errors(self, centred: bool) -> np.ndarray:
        """Error that each input channel carries, float64 (inputs,)."""
        groups, weight = groups_of(self.module), self.module.weight.detach().double()
        if self.dim == 0:  # (inputs, outputs per group, *kernel) -> (groups, outputs, inputs)
            weight = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel()).transpose(1, 2)
        else:
            weight = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
        taken = self.x.variance if centred else self.x.variance + self.x.mean.square()
        energy = (weight.square().sum(3) * self.shares().reshape(groups, -1, 1)).sum(1)  # (groups, inputs)
        return (energy * taken.reshape(groups, -1)).reshape(-1).cpu().numpy()
