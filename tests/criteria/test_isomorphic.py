"""Classes of groups with the same structure, and percentiles within them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from yoloprune.criteria import score
from yoloprune.criteria.isomorphic import isomorphic
from yoloprune.graph import trace


def chain(*widths: int) -> nn.Sequential:
    """3 × 3 convolutions of these widths between a first and a last one of 1 × 1."""
    sizes = [3, *widths, 2]
    kernels = [1, *[3] * (len(widths) - 1), 1]
    return nn.Sequential(
        *(
            nn.Conv2d(a, b, k, padding=k // 2, bias=False)
            for a, b, k in zip(sizes[:-1], sizes[1:], kernels, strict=True)
        )
    )


def live(graph) -> dict[str, np.ndarray]:
    return {group.name: group.components for group in graph.groups if not group.frozen}


def image() -> torch.Tensor:
    return torch.zeros(1, 3, 8, 8)


def test_groups_of_the_same_structure_are_ranked_together_whatever_their_width() -> None:
    net = chain(4, 6, 10, 8)  # 1-3, then 3-3 and 3-3, then 3-1
    graph = trace(net, image())
    groups = live(graph)
    scores = np.zeros(graph.n_components)
    scores[groups["1.weight"]] = np.arange(6)
    scores[groups["2.weight"]] = 100 + np.arange(10)
    scores[groups["0.weight"]] = 1000
    out = isomorphic(graph, net, scores)
    np.testing.assert_allclose(out[groups["1.weight"]], (np.arange(6) + 0.5) / 16)
    np.testing.assert_allclose(out[groups["2.weight"]], (np.arange(6, 16) + 0.5) / 16)
    np.testing.assert_allclose(out[groups["0.weight"]], 0.5)  # alone in its class, and all equal
    np.testing.assert_allclose(out[graph.frozen], 1)


@pytest.mark.parametrize("grouped", [1, 6, 3])
def test_depthwise_and_grouped_convolutions_make_another_structure(grouped) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=grouped), nn.Conv2d(6, 4, 1),
        nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    graph = trace(net, image())
    groups = live(graph)
    scores = np.zeros(graph.n_components)
    scores[groups["3.weight"]] = 1
    out = isomorphic(graph, net, scores)
    together = grouped == 6  # depthwise as the other is, though its groups are 6 and the other's 8
    np.testing.assert_allclose(out[groups["3.weight"]], 10 / 14 if together else 0.5)


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(2, 12), min_size=3, max_size=6),
    share=st.floats(0.05, 0.95),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_each_class_loses_the_same_share_and_keeps_its_order(widths, share, scale, seed) -> None:
    net = chain(*widths)
    graph = trace(net, image())
    names = live(graph)
    classes = {"first": ["0.weight"], "inner": [], "last": []}
    for name in names:
        if name != "0.weight":
            classes["last" if name == f"{len(widths) - 1}.weight" else "inner"].append(name)
    scores = np.random.default_rng(seed).random(graph.n_components)
    scores[names["0.weight"]] *= scale
    out = isomorphic(graph, net, scores)
    for members in filter(None, classes.values()):
        own = np.concatenate([names[name] for name in members])
        assert abs((out[own] < share).mean() - share) <= 1 / len(own)
        assert (np.argsort(out[own]) == np.argsort(scores[own])).all()


def test_score_ranks_last_of_all() -> None:
    net = chain(4, 6, 10, 8)
    graph = trace(net, image())
    plain = score(graph, net, "l2", per_mac=1)
    np.testing.assert_array_equal(score(graph, net, "l2", per_mac=1, isomorphic=True), isomorphic(graph, net, plain))
