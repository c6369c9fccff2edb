"""Tiny networks for the operator matrix, one pattern each, by kind."""

from __future__ import annotations

from tests.graph.nets import (
    attention,
    constraints,
    convolution,
    detectors,
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
        detectors,
        constraints,
        sizes,
        traps,
    )
    for case in module.CASES
]
