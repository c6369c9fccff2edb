"""Tiny networks for the operator matrix, one pattern each, by kind."""

from __future__ import annotations

from tests.graph.nets import (
    attention,
    constraints,
    convolution,
    elementwise,
    graphs,
    movement,
    normalisation,
    parameters,
    recurrent,
    sizes,
    traps,
)

CASES = [
    case
    for module in (
        convolution,
        movement,
        elementwise,
        normalisation,
        parameters,
        recurrent,
        attention,
        graphs,
        constraints,
        sizes,
        traps,
    )
    for case in module.CASES
]
