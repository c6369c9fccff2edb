"""The paper's matrices on the cases of its Figure 2, against matrices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.graph.nets.case import Net, conv
from yoloprune.graph import trace


def _basic() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4))


def _residual() -> nn.Module:
    return Net(lambda net, x: net.c((y := net.a(x)) + net.b(y)), a=conv(3, 8), b=conv(8, 8), c=conv(8, 4))


def _concatenation() -> nn.Module:
    return Net(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), a=conv(3, 8), b=conv(3, 6), c=conv(14, 4))


def _reduction() -> nn.Module:
    return Net(lambda net, x: net.b(net.a(x).mean((2, 3))), a=conv(3, 8), b=nn.Linear(8, 4))


# for each case the related pairs: of the grouping matrix, and those of them that the dependency matrix has
CASES = {
    "basic": (
        _basic,
        [
            ("0.out", "1.in"),
            ("0.out", "1.out"),
            ("0.out", "3.in"),
            ("1.in", "1.out"),
            ("1.in", "3.in"),
            ("1.out", "3.in"),
        ],
        [("0.out", "1.in"), ("1.in", "1.out"), ("1.out", "3.in")],
    ),
    "residual": (
        _residual,
        [
            ("a.out", "b.in"),
            ("a.out", "b.out"),
            ("a.out", "c.in"),
            ("b.in", "b.out"),
            ("b.in", "c.in"),
            ("b.out", "c.in"),
        ],
        [("a.out", "b.in"), ("a.out", "c.in"), ("b.in", "b.out"), ("b.out", "c.in")],
    ),
    "concatenation": (
        _concatenation,
        [("a.out", "c.in"), ("b.out", "c.in")],
        [("a.out", "c.in"), ("b.out", "c.in")],
    ),
    "reduction": (_reduction, [("a.out", "b.in")], [("a.out", "b.in")]),
}


def _by_hand(names: tuple[str, ...], pairs: list[tuple[str, str]]) -> np.ndarray:
    values = np.eye(len(names), dtype=bool)
    for a, b in pairs:
        values[names.index(a), names.index(b)] = values[names.index(b), names.index(a)] = True
    return values


@pytest.mark.parametrize("case", CASES)
def test_matrices_by_hand(case) -> None:
    build, together, direct = CASES[case]
    graph = trace(build(), torch.zeros(1, 3, 4, 4))
    names, grouping = graph.grouping_matrix()
    assert (grouping == _by_hand(names, together)).all(), graph.grouping_matrix()
    assert (graph.dependency_matrix().values == _by_hand(names, direct)).all(), graph.dependency_matrix()


def test_the_closure_of_dependencies_is_the_grouping() -> None:
    graph = trace(_residual(), torch.zeros(1, 3, 4, 4))
    names, reach = graph.dependency_matrix()
    for _ in names:
        reach = reach | (reach @ reach)
    assert (reach == graph.grouping_matrix().values).all()
