"""A forward pass that leaves no trace: what it changes in a model is put back afterwards."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["ModelSnapshot", "storage_id", "written_tensors"]


class ModelSnapshot:
    """Puts a model back as it was, whether its forward pass succeeds or raises.

    That is every module's attributes (flags, counts, what is kept for the next pass), the values of all tensors that
    modules and inputs hold, and the state of the random generators that the pass draws from. Copies of tensors and of
    generators are made when the first operator is about to change them, so that a model that changes nothing costs
    nothing.

    Args:
        modules: All modules of the model.
        given: The tensors among its inputs.
    """

    def __init__(self, modules: Collection[nn.Module], given: Iterable[Tensor]) -> None:
        self._attributes: list[tuple[dict, dict, list[tuple[Any, Any]]]] = []
        self._given = list(given)
        for m in modules:
            kept = [v for k, v in vars(m).items() if isinstance(v, (dict, list)) and "hook" not in k]
            self._attributes.append((vars(m), vars(m).copy(), [(v, copy.copy(v)) for v in kept]))

    def __enter__(self) -> ModelSnapshot:
        held = [*self._given]
        for _, attributes, containers in self._attributes:
            held += _tensors(attributes.values())
            for _, content in containers:
                held += _tensors(content.values() if isinstance(content, dict) else content)
        # a second tensor on the same memory, since the code may give the first one other memory
        self._held = [(t, t.detach()) for t in {id(t): t for t in held if _has_memory(t)}.values()]
        self._storages = {storage_id(t): t.untyped_storage() for _, t in self._held}
        self._saved: dict[int, torch.UntypedStorage] = {}
        self._generators: dict[int, tuple[torch.Generator, Tensor]] = {}
        return self

    def __exit__(self, *_: object) -> None:
        for place, content in self._saved.items():
            storage = self._storages[place]
            if storage.nbytes() != content.nbytes():
                storage.resize_(content.nbytes())
            storage.copy_(content)
        for tensor, before in self._held:
            if _geometry(tensor) != _geometry(before):
                tensor.data = before
        for generator, state in self._generators.values():
            generator.set_state(state)
        for own, attributes, containers in self._attributes:
            own.clear()
            own.update(attributes)
            for container, content in containers:
                container.clear()
                (container.update if isinstance(container, dict) else container.extend)(content)

    def before(self, func: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Save what an operator is about to change."""
        for tensor in written_tensors(func, args, kwargs):
            self.save(tensor)
        if torch.Tag.nondeterministic_seeded in func.tags:
            chosen = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Generator)]
            for generator in chosen or (torch.default_generator, *torch.cuda.default_generators):
                self._generators.setdefault(id(generator), (generator, generator.get_state()))

    def save(self, tensor: Tensor) -> None:
        """Save the memory of a tensor, of which somebody may change values."""
        if self._storages and (place := storage_id(tensor)) in self._storages and place not in self._saved:
            self._saved[place] = self._storages[place].clone()


def storage_id(tensor: Tensor) -> int:
    """Identity of the memory that a tensor lies in."""
    return tensor.untyped_storage()._cdata


def _geometry(tensor: Tensor) -> tuple:
    return storage_id(tensor), tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not is_lazy(tensor) and not is_traceable_wrapper_subclass(tensor)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def written_tensors(func: Any, args: tuple, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Tensors that an operator writes into."""
    names, switch = _written_arguments(func)
    if not names:
        return []
    given = dict(zip(_names(func), args, strict=False)) | dict(kwargs)
    if switch and not given.get("training", True):
        return []
    values = [given.get(name) for name in names]
    return _tensors(t for v in values for t in (v if isinstance(v, (list, tuple)) else (v,)))


@functools.cache
def _names(func: Any) -> tuple[str, ...]:
    return tuple(a.name for a in func._schema.arguments)


@functools.cache
def _written_arguments(func: Any) -> tuple[tuple[str, ...], bool]:
    """Names of the arguments that an operator may write into, and whether it does so in training only."""
    norm = "batch_norm" in func._schema.name  # most of these do not say in their schemas what they write
    arguments = func._schema.arguments
    names = [
        a.name
        for a in arguments
        if (a.alias_info and a.alias_info.is_write) or (norm and a.name in ("running_mean", "running_var"))
    ]
    return tuple(names), norm and "training" in _names(func)
