"""What criteria and recovery share: running a network on calibration batches, and looking into its layers.

A calibration batch is a tensor, a tuple or list of positional, or a dict of keyword arguments of the network's
forward. Labels are never needed. Batches may differ in shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.graph.tracing.internals import BatchNorm, ConvNd, ConvTransposeNd, padding_of

from .errors import UserError

__all__ = [
    "Order",
    "call_order",
    "collect",
    "contractions",
    "groups_of",
    "patches",
]


_ELEMENTWISE = (
    nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.GELU, nn.Mish, nn.ELU, nn.Hardtanh, nn.Sigmoid, nn.Tanh,
)  # fmt: skip


def collect(batches: Iterable[Any] | None, purpose: str) -> tuple[Any, ...]:
    """Return the batches as a tuple, since they are gone over more than once.

    Raises:
        UserError: If there are none.
    """
    given = () if batches is None else tuple(batches)
    if not given:
        raise UserError(f"{purpose} looks at data, but no batches were given; pass batches=[...] with a few images.")
    return given


def contractions(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions of any dimension and linear layers that own their weight, by name.

    Left out are transposed convolutions, weights that several modules share and weights that a parametrization
    computes: none of them can be described or solved layer by layer.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (ConvNd, nn.Linear)) and not isinstance(module, ConvTransposeNd)
        if isinstance(module._parameters.get("weight"), nn.Parameter)
    }
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return {name: module for name, module in found.items() if uses[id(module.weight)] == 1}


def groups_of(module: nn.Module) -> int:
    """Number of groups of a convolution; 1 for a linear layer."""
    return module.groups if isinstance(module, ConvNd) else 1


def patches(module: nn.Module, x: Tensor, chosen: Tensor) -> Tensor:
    """What a layer sees at some of its output positions.

    Args:
        module: Convolution or linear layer.
        x: Its input.
        chosen: Flat indices into the layer's output positions (batch first, then space), int64 (positions,).

    Returns:
        Tensor (positions, groups, inputs per group · kernel size), columns ordered as `weight.flatten(1)`.
    """
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])[chosen].unsqueeze(1)
    space = len(module.kernel_size)
    x = x if x.dim() == space + 2 else x.unsqueeze(0)
    pad = padding_of(module)
    if any(pad):
        x = F.pad(x, pad, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    for d in range(space):
        reach = (module.kernel_size[d] - 1) * module.dilation[d] + 1
        x = x.unfold(2 + d, reach, module.stride[d])[..., :: module.dilation[d]]
    x = x.movedim(1, 1 + space)  # (batch, *space, channels, *kernel): a view, the choice below is what copies
    index = torch.unravel_index(chosen, x.shape[: 1 + space])
    return x[index].reshape(len(chosen), module.groups, -1)


class Order(NamedTuple):
    """How a network calls its layers.

    Attributes:
        names: Layers that are called exactly once, in order.
        norms: Name of the batch norm that takes a layer's output as it is, by the layer's name.
        activations: Module that takes what comes out of layer and batch norm as it is and maps each number for itself,
            by the layer's name.
    """

    names: list[str]
    norms: dict[str, str]
    activations: dict[str, nn.Module]


def call_order(model: nn.Module, layers: dict[str, nn.Module], run: Callable[[], Any]) -> Order:
    """Run the model and note in which order layers are called, and which batch norm and activation follows each.

    Args:
        model: The network, in evaluation mode.
        layers: Layers by name.
        run: Executes the model once.
    """
    calls: dict[str, int] = {}
    norms: dict[str, str] = {}
    activations: dict[str, nn.Module] = {}
    last: tuple[str, Tensor] | None = None

    def note(name: str, out: Tensor) -> None:
        nonlocal last
        calls[name] = calls.get(name, 0) + 1
        last = (name, out)

    def follow(name: str, x: Tensor, out: Tensor) -> None:
        nonlocal last
        if last is not None and last[1] is x:
            norms[last[0]] = name
            last = (last[0], out)

    def activate(module: nn.Module, x: Tensor) -> None:
        if last is not None and last[1] is x:
            activations[last[0]] = module

    handles = [m.register_forward_hook(lambda m, args, out, name=name: note(name, out)) for name, m in layers.items()]
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            handles.append(module.register_forward_hook(lambda m, args, out, name=name: follow(name, args[0], out)))
        elif isinstance(module, _ELEMENTWISE):
            handles.append(module.register_forward_pre_hook(lambda m, args: activate(m, args[0])))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return Order([name for name, count in calls.items() if count == 1], norms, activations)
