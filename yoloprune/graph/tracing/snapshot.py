"""A forward pass that leaves no trace: whatever it changes in a model is restored afterwards."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import (
    Operator,
    default_generators,
    draws_random_numbers,
    has_own_memory,
    is_hook_container,
    operator_arguments,
    operator_name,
    storage_id,
)

__all__ = ["ModelSnapshot", "written_tensors"]


class ModelSnapshot:
    """Restores a model when its context ends, whether the forward pass succeeds or raises.

    That is every module's attributes (flags, counts, what is cached for the next pass), the values of all tensors that
    modules and inputs hold, and the state of the random generators that the pass draws from. Tensors and generators
    are copied just before the first operator changes them, so a model that changes nothing costs nothing.

    Args:
        modules: All modules of the model.
        given: The tensors among its inputs.
    """

    def __init__(self, modules: Collection[nn.Module], given: Iterable[Tensor]) -> None:
        self._attributes: list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]]]] = []
        self._given = list(given)
        for m in modules:
            kept = [v for k, v in vars(m).items() if isinstance(v, (dict, list)) and not is_hook_container(k)]
            self._attributes.append((vars(m), vars(m).copy(), [(v, copy.copy(v)) for v in kept]))

    def __enter__(self) -> ModelSnapshot:
        held = [*self._given]
        for _, attributes, containers in self._attributes:
            held += _tensors(attributes.values())
            for _, content in containers:
                held += _tensors(content.values() if isinstance(content, dict) else content)
        # a second tensor on the same memory, since the code may give the first one other memory
        self._held = [(t, t.detach()) for t in {id(t): t for t in held if has_own_memory(t)}.values()]
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
            for container, kept in containers:
                container.clear()
                (container.update if isinstance(container, dict) else container.extend)(kept)

    def before(self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Save what an operator is about to change."""
        for tensor in written_tensors(operator, args, kwargs):
            self.save(tensor)
        if draws_random_numbers(operator):
            chosen = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Generator)]
            for generator in chosen or default_generators():
                self._generators.setdefault(id(generator), (generator, generator.get_state()))

    def save(self, tensor: Tensor) -> None:
        """Save the memory of a tensor, since somebody may change its values."""
        if self._storages and (place := storage_id(tensor)) in self._storages and place not in self._saved:
            self._saved[place] = self._storages[place].clone()  # type: ignore[no-untyped-call]  # torch's is untyped


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    return storage_id(tensor), tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def written_tensors(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Tensors that an operator writes into."""
    written, only_in_training = _written_arguments(operator)
    if not written:
        return []
    given = dict(zip((a.name for a in operator_arguments(operator)), args, strict=False)) | dict(kwargs)
    if only_in_training and not given.get("training", True):
        return []
    values = [given.get(name) for name in written]
    return _tensors(t for v in values for t in (v if isinstance(v, (list, tuple)) else (v,)))


@functools.cache
def _written_arguments(operator: Operator) -> tuple[tuple[str, ...], bool]:
    """Names of the arguments that an operator may write into, and whether it does so in training only."""
    norm = "batch_norm" in operator_name(operator)  # most of these do not say in their schemas what they write
    arguments = operator_arguments(operator)
    written = [a.name for a in arguments if a.written or (norm and a.name in ("running_mean", "running_var"))]
    return tuple(written), norm and any(a.name == "training" for a in arguments)
