"""Constant fills, and copies into existing memory."""

from __future__ import annotations

from torch import Tensor

from yoloprune.graph.labels import Labels
from yoloprune.graph.rules.registry import Call, rule

__all__: list[str] = []


@rule(
    "zeros",
    "ones",
    "full",
    "empty",
    "scalar_tensor",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "fill",
    "zero",
)
def fill(call: Call) -> None:
    """A constant has no channels of its own."""
    call.put(call.out, Labels(wild=True))


@rule("copy")
def copy(call: Call) -> None:
    """Writing into a whole tensor hands over labels; into a part of one it cannot be followed."""
    target, source = call.args[0], call.args[1]
    mine, theirs = call.labels(target), call.labels(source)
    if target._is_view() and not (mine and mine.layers):
        call.ledger.freeze_all(theirs, "is copied into a part of another tensor")
        return
    operands: list[tuple[Tensor, Labels | None]] = [(source.shape, theirs)]
    if mine and mine.layers:
        operands.append((target.shape, mine))
    layers = call.ledger.merge(target.shape, operands, "copy_", strict=False)
    call.put(call.out, Labels(layers, bool(theirs and theirs.zero)))
