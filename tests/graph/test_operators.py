"""The operator matrix: a pruned network equals the masked one, and channels stay prunable wherever they can go."""

from __future__ import annotations

import pytest
import torch

from tests.graph.exactness import prunable_share, randomise
from tests.graph.nets import CASES
from yoloprune.graph import Plan, mask_error, trace
from yoloprune.graph.exactness import Statistics, difference, masked, outputs


def _build(case) -> tuple[torch.nn.Module, tuple]:
    return randomise(case.build()), tuple(x.double() if x.is_floating_point() else x for x in case.inputs())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_pruned_equals_masked(case) -> None:
    model, inputs = _build(case)
    graph = trace(model, inputs)
    assert prunable_share(graph) == pytest.approx(case.share)
    for seed, ratio in enumerate((0.3, 0.5, 0.8)):
        plan = graph.random_plan(ratio, seed)
        assert mask_error(model, plan, inputs, allow_constant=case.constant) < 1e-9
        assert sum(p.numel() for p in plan.apply(model).parameters()) == plan.params()
    assert bool(graph.statistics) == case.statistics


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_as_much_can_go_in_float32(case) -> None:
    """PyTorch has fused operators for some dtypes only."""
    model, inputs = case.build().float(), tuple(x.float() if x.is_floating_point() else x for x in case.inputs())
    assert prunable_share(trace(model, inputs)) == pytest.approx(case.share)


@pytest.mark.parametrize("case", [c for c in CASES if c.share], ids=[c.name for c in CASES if c.share])
def test_a_wrong_index_is_seen(case) -> None:
    """With one index of one parameter off, the networks differ: the comparison above would notice."""
    model, inputs = _build(case)
    plan = trace(model, inputs).random_plan(0.7, 0)
    errors, masked_model = [], masked(model, plan)
    for name, dims in plan.keep.items():
        for dim, kept in dims.items():
            gone = sorted(set(range(plan.shapes[name][dim])) - set(kept))
            if not kept or not gone:
                continue
            keep = {n: {d: list(i) for d, i in own.items()} for n, own in plan.keep.items()}
            keep[name][dim] = sorted([*kept[1:], gone[0]])
            wrong = Plan(keep, plan.shapes, plan.macs(), plan.params())
            statistics = Statistics()
            pruned = outputs(wrong.apply(model), inputs, statistics)
            errors.append(difference(outputs(masked_model, inputs, Statistics(statistics.record)), pruned))
    assert max(errors) > 1e-4
    assert sum(e > 1e-9 for e in errors) >= 0.3 * len(errors)  # a softmax, say, hides a bias that all scores share
