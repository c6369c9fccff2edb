"""What is left of a limit after a first pruning, on a net with answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from yoloprune.graph import trace
from yoloprune.graph.budget import cheapest
from yoloprune.graph.per_step_limit import per_step_limit


class Parts(nn.Module):
    """One layer's output in two parts of different widths, 8 and 16, each for a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 24, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        split = x.shape[1] // 3
        return self.a(x[:, :split]), self.b(x[:, split:])


def test_each_part_keeps_its_share_of_the_original() -> None:
    model, x = Parts(), torch.zeros(1, 3, 4, 4)
    original = trace(model, x)
    removed = np.zeros(original.n_components, bool)
    for group in original.groups:
        if not group.frozen:
            removed[group.components[: group.size // 4]] = True  # 2 of 8, 4 of 16
    first = original.plan(removed)
    pruned = first.apply(model)
    graph = trace(pruned, x)
    left = per_step_limit(0.5, graph, original, first)
    assert {round(float(left[g.components[0]]), 6) for g in graph.groups if not g.frozen} == {round(1 / 3, 6)}
    last = graph.plan(cheapest(graph, 1, left)).apply(pruned)
    assert (last.a.in_channels, last.b.in_channels, last.stem.out_channels) == (4, 8, 12)


def test_what_was_not_pruned_may_lose_all_of_the_limit() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 4, 4)
    original = trace(model, x)
    first_layer = next(g for g in original.groups if g.name == "0.weight")
    removed = np.zeros(original.n_components, bool)
    removed[first_layer.components[:2]] = True
    first = original.plan(removed)
    graph = trace(first.apply(model), x)
    left = per_step_limit(0.5, graph, original, first)
    shares = {g.name: float(left[g.components[0]]) for g in graph.groups if not g.frozen}
    assert shares == {"0.weight": pytest.approx(1 / 3), "1.weight": pytest.approx(0.5)}
