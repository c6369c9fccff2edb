"""Names of a model's parameters and buffers."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

__all__ = ["named_tensors", "owners"]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a shared tensor appears once, under its first name."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    named.update(model.named_buffers())
    return named


def owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """For each name of `named_tensors`, every (module, attribute) that holds that tensor."""
    first = {id(t): name for name, t in reversed(named_tensors(model).items())}
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        parameters = module.named_parameters(recurse=False, remove_duplicate=False)
        buffers = module.named_buffers(recurse=False, remove_duplicate=False)
        for attribute, tensor in itertools.chain(parameters, buffers):
            if id(tensor) in first:
                found.setdefault(first[id(tensor)], []).append((module, attribute))
    return found
