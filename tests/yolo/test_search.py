"""The search of widths, and of a limit on them, on the embedded digits detector."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

import yoloprune
from yoloprune.criteria import score
from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints, digits
from yoloprune.yolo.planning.agreement import Disagreement, _hits, disagreement
from yoloprune.yolo.planning.budget import gflops, plan_for_target, reachable
from yoloprune.yolo.planning.change import PredictionChange
from yoloprune.yolo.planning.limit import Limited, best_limit
from yoloprune.yolo.planning.search import search_widths
from yoloprune.yolo.planning.trial import Trial
from yoloprune.yolo.run import pruning
from yoloprune.yolo.run.data import calibration_batches
from yoloprune.yolo.trace import trace_yolo


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(digits.write(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="module")
def case(data):
    """Search for half the GFLOPs from random scores, which leave room; takes `trials` and `unfinished`."""
    yolo = checkpoints.load(digits.WEIGHTS)
    network = yolo.model.eval()
    batches = calibration_batches(yolo, data, images=6, imgsz=64, batch=2, device=torch.device("cpu"))
    graph = trace_yolo(network, prune_head=True)
    target = gflops(network) / 2
    plan_of = partial(plan_for_target, graph, network, imgsz=640, target_gflops=target)
    scores = score(graph, network, "random", seed=0)

    def search(**options):
        return search_widths(graph, scores, plan_of, Trial(network, batches, 0), **options)

    return search, network, target


def test_a_better_plan_is_found_at_the_same_cost(case) -> None:
    search, network, target = case
    told = []
    found = search(trials=12, tell=lambda trial, error: told.append((trial, error)))
    assert found.error < found.start
    assert [trial for trial, _ in told] == list(range(1, 13))
    errors = [error for _, error in told]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == found.error
    assert 0.98 * target <= gflops(found.plan.apply(network)) <= target


def test_a_plan_that_was_tried_is_not_tried_again(case, monkeypatch) -> None:
    _, network, _ = case
    images = [{"img": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(i))} for i in range(3)]
    trial, tried = Trial(network, images, 0), []
    monkeypatch.setattr(
        "yoloprune.yolo.planning.trial.reconstruct", lambda pruned, *args, **options: tried.append(pruned)
    )
    graph = trace_yolo(network)
    errors = [trial(graph.random_plan(0.5, seed=seed)) for seed in (0, 1, 0, 1)]
    assert len(tried) == 2
    assert errors[:2] == errors[2:]


def test_an_interrupted_search_ends_where_an_uninterrupted_one_does(case, tmp_path) -> None:
    search, _, _ = case
    whole = search(trials=5)
    unfinished = tmp_path / "search.json"
    search(trials=3, unfinished=unfinished)
    assert len(json.loads(unfinished.read_text())["results"]) == 4
    trials = []
    resumed = search(trials=5, unfinished=unfinished, tell=lambda trial, error: trials.append(trial))
    assert trials == [4, 5]
    assert resumed.plan.keep == whole.plan.keep
    assert (resumed.start, resumed.error) == (whole.start, whole.error)


@pytest.mark.parametrize(("trials", "told"), [(1, [1]), (3, [1, 2, 3]), (12, [2, 4, 6, 8, 10, 12]), (55, [10, 55])])
def test_short_searches_are_told_of_too(trials, told) -> None:
    lines = [number for number in range(1, trials + 1) if pruning._worth_a_line(number, trials)]
    assert set(told) <= set(lines)
    assert len(lines) <= trials // 10 + 6


def test_a_damaged_search_starts_anew(case, tmp_path) -> None:
    search, _, _ = case
    unfinished, trials = tmp_path / "search.json", []
    unfinished.write_text('{"work": "1", "res')
    search(trials=1, unfinished=unfinished, tell=lambda trial, error: trials.append(trial))
    assert trials == [1]
    assert len(json.loads(unfinished.read_text())["results"]) == 2


def test_a_network_in_training_mode_is_searched_alike_and_left_alone(case) -> None:
    search, network, _ = case
    expected, before = search(trials=1), {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    try:
        found = search(trials=1)
        assert network.training
    finally:
        network.eval()
    assert (found.start, found.error) == (expected.start, expected.error)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_no_trials_leave_the_plan_of_the_scores(case) -> None:
    search, _, _ = case
    found = search(trials=0)
    assert found.error == found.start


def test_the_change_of_the_original_is_nothing_and_that_of_another_is_something(case) -> None:
    _, network, _ = case
    change = PredictionChange(network, [torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))])
    assert change(network) == pytest.approx(0.0, abs=1e-6)
    graph = trace_yolo(network, prune_head=True)
    halved = graph.budget_plan(np.random.default_rng(0).random(graph.n_components), target_macs=graph.macs() / 2)
    assert change(halved.apply(network)) > 0.1


def test_the_original_agrees_with_itself_and_a_halved_one_less(case, data) -> None:
    _, network, _ = case
    cpu = torch.device("cpu")
    batches = calibration_batches(checkpoints.load(digits.WEIGHTS), data, images=4, imgsz=160, batch=2, device=cpu)
    measure = disagreement(network, [batch["img"] for batch in batches])
    assert isinstance(measure, Disagreement)
    assert measure(network) < 0.01
    graph = trace_yolo(network, prune_head=True)
    halved = graph.budget_plan(np.random.default_rng(0).random(graph.n_components), target_macs=graph.macs() / 2)
    assert measure(halved.apply(network)) > 0.5


def test_where_nothing_is_detected_outputs_are_compared(case) -> None:
    _, network, _ = case
    assert isinstance(disagreement(network, [torch.zeros(1, 3, 64, 64)]), PredictionChange)


def test_each_true_box_is_found_once_and_by_the_best() -> None:
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.9, 1.0]])
    close, exact = torch.tensor([0.0, 0.0, 10.0, 9.2, 0.8, 1.0]), torch.tensor([0.0, 0.0, 10.0, 10.0, 0.3, 1.0])
    other = torch.tensor([0.0, 0.0, 10.0, 10.0, 0.9, 2.0])
    hits = _hits(torch.stack([close, exact, other]), truth)
    assert hits.tolist() == [[False] * 10, [True] * 10, [False] * 10]
    assert _hits(close[None], truth).tolist() == [[True] * 9 + [False]]


def test_a_run_searches_and_says_what_it_found(data, tmp_path) -> None:
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.6, data=data, search=2, imgsz=64, calibration_images=6, batch=2, device="cpu",
        project=tmp_path, name="a",
    )  # fmt: skip
    assert any(note.startswith("Search of widths: 2 plans") for note in result.report.notes)
    assert len(json.loads((tmp_path / "a" / "steps" / "1" / "search.json").read_text())["results"]) == 3


def test_the_limit_that_keeps_most_is_found() -> None:
    def plan_of(*, max_pruning_ratio):
        if max_pruning_ratio < 0.6:
            raise UserError("out of reach")
        return max_pruning_ratio

    asked = {0.7: 0.4, 0.85: 0.3, 1.0: 0.5}
    found = best_limit(plan_of, lambda plan: asked[round(plan, 6)], 0.25)  # layers of half their widths
    assert found == (pytest.approx(0.85), 0.3, 0.5)
    assert best_limit(plan_of, lambda plan: 1.0, 0.25).max_pruning_ratio == pytest.approx(0.7)
    with pytest.raises(UserError, match="out of reach"):
        best_limit(lambda max_pruning_ratio: plan_of(max_pruning_ratio=0.5), lambda plan: 1.0, 0.25)


def test_a_run_says_which_limit_it_found(monkeypatch) -> None:
    def limit(found):
        monkeypatch.setattr(pruning, "best_limit", lambda *args: found)
        notes: list[str] = []
        return pruning._limit(None, object(), 0.5, notes), notes

    ratio, (note,) = limit(Limited(0.7, 0.3, 0.5))
    assert ratio == 0.7
    assert note.startswith("No layer loses more than 70% of its channels: disagreement with the unpruned network 0.3, ")
    assert limit(Limited(0.7, 0.5, 0.5)) == (0.7, [])  # the plan is as good without it, or the same


def test_no_layer_loses_more_than_was_asked_for() -> None:
    result = yoloprune.prune(
        digits.WEIGHTS,
        target_ratio=0.55,
        criterion="l2",
        max_pruning_ratio=0.3,
        steps=2,
        round_to=1,
        prune_head=True,
    )
    before, after = checkpoints.load(digits.WEIGHTS).model.state_dict(), result.model.model.state_dict()
    shares = {name: after[name].shape[0] / before[name].shape[0] for name in before if name.endswith("conv.weight")}
    assert 0.7 <= min(shares.values()) < 0.75


def test_what_the_limit_allows_in_one_step_it_allows_in_several() -> None:
    limits = {"criterion": "l2", "max_pruning_ratio": 0.5, "prune_head": True}
    yolo = checkpoints.load(digits.WEIGHTS)
    least = reachable(trace_yolo(yolo.model, prune_head=True), yolo.model, imgsz=640, max_pruning_ratio=0.5).min_gflops
    result = yoloprune.prune(yolo, target_gflops=least * 1.001, steps=3, **limits)
    assert result.report.after.gflops == pytest.approx(least)
    shapes = {name: list(tensor.shape) for name, tensor in result.model.model.state_dict().items()}
    once = yoloprune.prune(yolo, target_gflops=least * 1.001, **limits).model.model
    assert shapes == {name: list(tensor.shape) for name, tensor in once.state_dict().items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"search": -1}, "search=-1"),
        ({"recover": False}, "recover=False"),
        ({"max_pruning_ratio": 1.2}, "max_pruning_ratio=1.2"),
    ],
)
def test_what_cannot_be_searched_is_refused(data, given, message) -> None:
    with pytest.raises(UserError, match=message):
        yoloprune.prune(digits.WEIGHTS, target_ratio=0.6, data=data, **{"search": 2, **given})
