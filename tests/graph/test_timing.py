"""Seconds of operators, on layers whose time is known because they sleep."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from yoloprune.criteria import score
from yoloprune.graph import operator_seconds, trace

NAP = 0.02


class Sleeper(nn.Conv2d):
    def forward(self, x):
        time.sleep(NAP)
        return super().forward(x)


class Outer(nn.Module):
    """An operator of its own around a layer that sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Sleeper(8, 8, 1)
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", self.inner(x), self.weight)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 1), Sleeper(16, 8, 1), Outer(), nn.Dropout(), nn.Conv2d(8, 2, 1)).train()


def by_operator(graph, seconds: np.ndarray) -> dict[str, float]:
    return {term.module: value for term, value in zip(graph.cost.terms, seconds, strict=True)}


def test_each_operator_gets_its_own_time() -> None:
    model, x = net(), torch.randn(2, 3, 8, 8)
    seconds = operator_seconds(trace(model, x), model, x, repeats=3)
    found = by_operator(trace(model, x), seconds)
    assert set(found) == {"0", "1", "2", "2.inner", "4"}
    assert all(value > 0 for value in found.values())
    assert min(found["1"], found["2.inner"]) >= NAP
    assert max(found["0"], found["2"], found["4"]) < NAP  # of "2" only the einsum


def test_operators_of_one_module_share_its_time_by_their_macs() -> None:
    model, x = nn.MultiheadAttention(16, 4, batch_first=True), torch.randn(1, 5, 16)
    graph = trace(model, (x, x, x))
    seconds = operator_seconds(graph, model, (x, x, x), repeats=2)
    own = [i for i, term in enumerate(graph.cost.terms) if term.module == graph.cost.terms[0].module]
    assert len(own) > 1
    rates = seconds[own] / [graph.cost.terms[i].macs for i in own]
    np.testing.assert_allclose(rates, rates[0])


def test_scores_are_divided_by_the_time_that_removal_saves() -> None:
    model, x = net(), torch.randn(2, 3, 8, 8)
    graph = trace(model, x)
    groups = {group.name: group.components for group in graph.groups if not group.frozen}
    plain = score(graph, model, "l2", relative=False)
    seconds = np.array([term.macs * 3e-9 for term in graph.cost.terms])
    scores = score(graph, model, "l2", relative=False, seconds=seconds)
    for components in groups.values():
        np.testing.assert_allclose(scores[components], plain[components] / (3e-9 * graph.cost.savings()[components]))
    slow = np.array([1.0 if term.module == "1" else 0.0 for term in graph.cost.terms])
    scores = score(graph, model, "l2", relative=False, seconds=slow)
    ratio = {name: scores[components] / plain[components] for name, components in groups.items()}
    np.testing.assert_allclose(ratio["0.weight"], 16)  # each saves a sixteenth of the slow layer's second
    np.testing.assert_allclose(ratio["1.weight"], 8)
    assert (ratio["2.inner.weight"] >= 1e5).all()  # what saves no time is kept, and stays finite
    assert np.isfinite(scores).all()


def test_the_model_is_left_alone() -> None:
    model, x = net(), torch.randn(2, 3, 8, 8)
    operator_seconds(trace(model, x), model, x, repeats=1)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
