"""The table from operator name to rule, and what a rule is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from yoloprune.graph.labels import Labels, Ledger, varying_dims
from yoloprune.graph.tracing.internals import Argument, Operator, operator_arguments, qualified_name
from yoloprune.graph.tracing.python_calls import PythonCall

__all__ = ["COMPOSITES", "RULES", "Call", "RuleError", "composite", "rule"]


class RuleError(Exception):
    """A rule of the core failed on an operator that ran: a fault here, not in the model.

    Args:
        operator: The operator.
        what: What the rule is for.
        error: What it raised.
    """

    def __init__(self, operator: Callable[..., Any], what: str, error: Exception) -> None:
        name = qualified_name(operator)
        super().__init__(
            f"The rule for the {what} of the operator {name} failed ({type(error).__name__}: {error}); this is an "
            "error in yoloprune, please report it with this message."
        )


@dataclass
class Call:
    """One executed operator, as a rule is given it.

    Attributes:
        name: Its name without namespace and overload, as "convolution"; that of an in-place variant without "_".
        func: The operator, or the function that a composite rule is for.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: What it returned: a tensor or a tuple.
        ledger: Where the rule records what unites, is frozen, is tied or costs MACs.
        module: Dotted name of the module whose forward is running.
        python_call: The call in the model's code that led here, if one did.
        handler_updates_sizes: Whether an attribute handler keeps that module's sizes up to date.
        resizes_splits: Whether that handler updates the sizes of the module's splits.
        labels: Labels of a tensor, None if it has none.
        put: Labels a tensor that the operator returned.
        freeze_on_use: Freezes labels, for a reason, once a tensor is used: (tensor, labels, reason).
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    ledger: Ledger
    module: str
    python_call: PythonCall | None
    handler_updates_sizes: bool
    resizes_splits: bool
    labels: Callable[[Tensor], Labels | None]
    put: Callable[[Tensor, Labels], None]
    freeze_on_use: Callable[[Tensor, Tensor, str], None]

    def arg(self, name: str, default: Any = None) -> Any:
        """The argument of that name, or its default in the operator's schema, or else `default`."""
        assert isinstance(self.func, Operator)  # a function has no schema
        position, own = _arguments(self.func).get(name, (len(self.args), None))
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, own.default if own and own.has_default else default)

    @property
    def outs(self) -> tuple[Tensor, ...]:
        """Every tensor that the operator returned."""
        outs = self.out if isinstance(self.out, (tuple, list)) else (self.out,)
        return tuple(t for t in outs if isinstance(t, Tensor))

    def replay(self, plane: Tensor) -> Tensor:
        """The same call with a label plane in place of the first argument."""
        replayed: Tensor = self.func(plane, *self.args[1:], **self.kwargs)
        return replayed

    def put_planes(self, out: Tensor, planes: list[Tensor], zero: bool, channel_free: bool = False) -> None:
        """Label a tensor; planes that vary along several dimensions must stay rectangles."""
        planes = [self.ledger.rebroadcast(plane) if len(varying_dims(plane)) > 1 else plane for plane in planes]
        planes = [plane for plane in planes if varying_dims(plane)]
        for plane in planes:
            self.ledger.keep_rectangular(plane)
        self.put(out, Labels(tuple(planes), zero, channel_free))

    def put_replayed(self, labels: Labels, channel_free: bool = True) -> None:
        """Label the output with the result of the same call on each plane of the input's labels."""
        planes = [self.replay(plane) for plane in labels.planes]
        self.put_planes(self.out, planes, labels.zero, channel_free and labels.channel_free)

    def planes(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Label planes of a tensor, none if it has no labels."""
        labels = self.labels(tensor)
        return labels.planes if labels else ()


@functools.cache
def _arguments(operator: Operator) -> dict[str, tuple[int, Argument]]:
    """Each argument in an operator's schema, by name, with its position."""
    return {argument.name: (i, argument) for i, argument in enumerate(operator_arguments(operator))}


RuleFunction = Callable[[Call], None]
RULES: dict[str, RuleFunction] = {}
COMPOSITES: dict[str, RuleFunction] = {}


def rule(*names: str) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for ATen or custom operators, which says what they do to labels.

    An operator without a rule freezes every channel that it touches and is listed in `graph.unsupported`. A rule reads
    the labels of the arguments, records how they depend on each other, and labels what the operator returned.
    It may neither change tensors nor depend on their values, most of which are not computed.

    Args:
        names: Names without namespace and overload; all overloads and in-place variants share a rule.

    Examples:
        A custom operator `mylib::hard_mish(Tensor x) -> Tensor` that works element by element:

        >>> @rule("hard_mish")
        ... def hard_mish(call):
        ...     labels = call.labels(call.args[0])
        ...     if labels:
        ...         call.put(call.out, labels)  # the same channels in the same places, zero where they were zero
    """

    def register(function: RuleFunction) -> RuleFunction:
        for name in names:
            RULES[name] = function
        return function

    return register


def composite(*names: str) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for functions that the model's code calls, in place of the rules for what they are made of."""

    def register(function: RuleFunction) -> RuleFunction:
        for name in names:
            COMPOSITES[name] = function
        return function

    return register
