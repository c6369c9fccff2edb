"""The operator matrix: a pruned network equals the masked one, and channels stay prunable wherever they can go."""

from __future__ import annotations

import pytest
import torch

from tests.graph.exactness import mask_error, prunable_share, randomise
from tests.graph.nets import CASES
from yoloprune.graph import Plan, trace


def _build(case) -> tuple[torch.nn.Module, tuple]:
    return randomise(case.build()), tuple(x.double() if x.is_floating_point() else x for x in case.inputs())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_pruned_equals_masked(case) -> None:
    model, inputs = _build(case)
    graph = trace(model, inputs)
    assert prunable_share(graph) == pytest.approx(case.share)
    for seed, ratio in enumerate((0.3, 0.5, 0.8)):
        plan = graph.random_plan(ratio, seed)
        assert mask_error(model, plan, inputs) < 1e-9
        assert sum(p.numel() for p in plan.apply(model).parameters()) == plan.params()
    assert bool(graph.statistics) == case.statistics
