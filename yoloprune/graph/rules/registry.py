"""The table from operator name to rule, and what a rule is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from yoloprune.graph.labels import Labels, Ledger, varying_dims
from yoloprune.graph.tracing.python_calls import PythonCall

__all__ = ["COMPOSITES", "RULES", "Call", "RuleError", "composite", "rule"]


class RuleError(Exception):
    """A rule of the core failed on an operator that ran: a fault here, not in the model.

    Args:
        operator: The operator.
        what: What the rule is for.
        error: What it raised.
    """

    def __init__(self, operator: Any, what: str, error: Exception) -> None:
        name = operator.name() if hasattr(operator, "_schema") else operator.__name__
        super().__init__(
            f"The rule for the {what} of the operator {name} failed ({type(error).__name__}: {error}); this is an "
            "error in yoloprune, please report it with this message."
        )


@dataclass
class Call:
    """One executed ATen operator, with access to the labels of its tensors."""

    name: str  # "convolution", without namespace and overload
    func: Any
    args: tuple
    kwargs: dict
    out: Any
    ledger: Ledger
    module: str  # dotted name of the module whose forward is running
    python_call: PythonCall | None  # the call in the model's code that led here
    handler_updates_sizes: bool  # whether that module's sizes are kept up to date by a handler
    resizes_splits: bool  # whether that module's handler updates the sizes of its splits
    labels: Callable[[Tensor], Labels | None]
    put: Callable[[Tensor, Labels], None]
    freeze_on_use: Callable[[Tensor, Tensor, str], None]  # freeze these labels for that reason once the tensor is used

    def arg(self, name: str, default: Any = None) -> Any:
        """The argument of that name in the operator's schema."""
        place, own = _arguments(self.func).get(name, (len(self.args), None))
        if place < len(self.args):
            return self.args[place]
        return self.kwargs.get(name, own.default_value if own and own.has_default_value() else default)

    @property
    def outs(self) -> tuple[Tensor, ...]:
        """Every tensor that the operator returned."""
        outs = self.out if isinstance(self.out, (tuple, list)) else (self.out,)
        return tuple(t for t in outs if isinstance(t, Tensor))

    def replay(self, plane: Tensor) -> Tensor:
        """The very same call, on a label layer in place of the first argument."""
        return self.func(plane, *self.args[1:], **self.kwargs)

    def put_planes(self, out: Tensor, planes: list[Tensor], zero: bool, channel_free: bool = False) -> None:
        """Label a tensor; layers that vary along several dimensions must be rectangles."""
        planes = [self.ledger.rebroadcast(plane) if len(varying_dims(plane)) > 1 else plane for plane in planes]
        planes = [plane for plane in planes if varying_dims(plane)]
        for plane in planes:
            self.ledger.keep_rectangular(plane)
        self.put(out, Labels(tuple(planes), zero, channel_free))

    def put_replayed(self, labels: Labels, channel_free: bool = True) -> None:
        """Label the output by the very same call on each layer of the input's labels."""
        planes = [self.replay(plane) for plane in labels.planes]
        self.put_planes(self.out, planes, labels.zero, channel_free and labels.channel_free)

    def planes(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Label layers of a tensor, none if it has no labels."""
        labels = self.labels(tensor)
        return labels.planes if labels else ()


@functools.cache
def _arguments(func: Any) -> dict[str, tuple[int, Any]]:
    """Each argument in an operator's schema, by name, with its place."""
    return {a.name: (i, a) for i, a in enumerate(func._schema.arguments)}


RULES: dict[str, Callable[[Call], None]] = {}
COMPOSITES: dict[str, Callable[[Call], None]] = {}


def rule(*names: str) -> Callable:
    """Register a rule for ATen operators by name (all overloads; in-place variants share it)."""

    def register(function: Callable[[Call], None]) -> Callable[[Call], None]:
        for name in names:
            RULES[name] = function
        return function

    return register


def composite(*names: str) -> Callable:
    """Register a rule for functions that the model's code calls, in place of the rules for what they are made of."""

    def register(function: Callable[[Call], None]) -> Callable[[Call], None]:
        for name in names:
            COMPOSITES[name] = function
        return function

    return register
