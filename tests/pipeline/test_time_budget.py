"""Time budgets, group-sparse epochs and the comparison of heads, through whole runs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import yaml

import yoloprune
from tests.small_yolo import equal, put, shallow_weights, write_few_digits
from yoloprune import detectors
from yoloprune.demo import digits
from yoloprune.errors import UserError
from yoloprune.pipeline.data import with_data
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.prune import prune_once
from yoloprune.pipeline.time_budget import Allowed, TimeBudget
from yoloprune.pipeline.typed import parse_budget
from yoloprune.report import Record

SMALL = {
    "imgsz": 64, "batch": 16, "calibration_images": 8, "device": "cpu", "criterion": "l2", "max_pruning_ratio": 0.9,
}  # fmt: skip
TRAIN = {"plots": False, "workers": 0}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5H", 5400), ("1h 5m", 3900)]
)
def test_budgets_are_read(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30x", "0m", "-5m", "1h30"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UserError, match="is no time budget"):
        parse_budget(text)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by one second whenever it is read."""
    seconds = itertools.count()
    monkeypatch.setattr("yoloprune.pipeline.time_budget.time.perf_counter", lambda: float(next(seconds)))


def settled(data, **more) -> tuple:
    detector = detectors.load(digits.WEIGHTS)
    options = Options(target_ratio=0.7, data=str(data), epochs=1, **{**SMALL, **more})
    return detector, with_data(options, detector)


def test_fine_tuning_takes_what_is_left_after_all_else(all_digits, tmp_path, ticking) -> None:
    yolo, options = settled(all_digits, val=True, export="onnx")
    step = 1.25 / 4  # a second for each batch of four images, and the margin
    epoch = 512 * step * (1 + 1 / 3) + 128 * step / 3  # distilled, and validated

    def allowed(seconds: float, options=options, **more) -> Allowed | None:
        more = {"step": 1, "prune_seconds": 100.0, "validation_seconds": 50.0, **more}
        return TimeBudget(seconds, more.pop("spent", 0.0)).for_fine_tuning(yolo, options, **more)[0]

    one, two = allowed(10_000), allowed(20_000)
    assert two.seconds - one.seconds == pytest.approx(10_000)
    assert one.seconds == pytest.approx(10_000 - 6 * 50 - 10 - 15 - 10, abs=3)  # validations, latency, export, start
    assert one.epochs == int(one.seconds / epoch)
    assert allowed(12_000, spent=2_000).seconds == pytest.approx(one.seconds, abs=3)
    first = allowed(20_000, replace(options, steps=2))
    both = (20_000 - 100 - 8 * 50 - 10 - 15) / 2 - 10  # the second step prunes too
    assert first.seconds == pytest.approx(both, abs=3)
    tenth = allowed(10_000, replace(options, train={"fraction": 0.1}))
    assert tenth.epochs / one.epochs == pytest.approx(epoch / (epoch - 0.9 * 512 * step * 4 / 3), rel=0.03)


def test_an_epoch_that_cannot_pay_is_not_spent(all_digits, tmp_path, ticking) -> None:
    yolo, options = settled(all_digits, val=True)
    timing = {"step": 1, "prune_seconds": 1.0, "validation_seconds": 1.0}
    allowed, said = TimeBudget(1_000).for_fine_tuning(yolo, options, **timing)
    assert allowed is None
    assert "fewer than 5 epochs do harm" in said
    assert TimeBudget(1_200).for_fine_tuning(yolo, options, **timing)[0].epochs == 5


def test_too_little_time_is_said_and_nothing_is_left(all_digits, tmp_path):
    data = all_digits
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(
            digits.WEIGHTS, target_ratio=0.7, data=str(data), budget=0.01, project=tmp_path / "runs", name="a", **SMALL
        )
    assert not (tmp_path / "runs" / "a").exists()


def test_too_little_time_leaves_an_existing_folder_alone(all_digits, tmp_path):
    data = all_digits
    mine = tmp_path / "runs" / "a" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    where = {"project": tmp_path / "runs", "name": "a", "exist_ok": True}
    with pytest.raises(UserError, match=r"no state\.json"):
        yoloprune.prune(digits.WEIGHTS, target_ratio=0.7, data=str(data), budget=0.01, **where, **SMALL)
    assert mine.read_text() == "mine"


def test_the_embedded_data_have_budgets_too(tmp_path):
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(digits.WEIGHTS, target_ratio=0.7, data="digits", budget=0.01, project=tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_budget_is_what_the_run_ends_by_and_what_it_remembers(all_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(
        TimeBudget, "for_fine_tuning", lambda *args, **more: (Allowed(500, 3.0), "three seconds are left")
    )
    data = all_digits
    train = {**TRAIN, "fraction": 0.1}
    where = {"project": tmp_path, "name": "a"}
    result = yoloprune.prune(shallow_weights(), target_ratio=0.7, data=data, budget="1m", **where, **train, **SMALL)
    assert yaml.safe_load((tmp_path / "a" / "args.yaml").read_text())["budget"] == 60
    assert 1 <= result.report.steps[0].epochs < 500
    assert result.report.steps[0].train_seconds < 20  # three, a validation and what starting takes
    assert "three seconds are left" in (tmp_path / "a" / "report.html").read_text()


def test_a_run_without_time_for_fine_tuning_is_pruned_all_the_same(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(TimeBudget, "for_fine_tuning", lambda *args, **more: (None, "too little is left"))
    data = few_digits
    result = yoloprune.prune(
        shallow_weights(), target_ratio=0.7, data=data, budget=60, project=tmp_path, name="a", **SMALL
    )
    assert result.report.steps[0].epochs == 0
    assert result.report.notes.count("too little is left") == 1
    assert not (tmp_path / "a" / "steps" / "1" / "train").exists()


@pytest.mark.slow
def test_sparse_training_that_harms_is_not_kept(tmp_path):
    data = write_few_digits(tmp_path / "digits", train=48, val=24)
    more = {"sparse_epochs": 1, "val": True, "lr0": 0.3, "optimizer": "SGD", "rollback": False}
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.7, data=data, project=tmp_path, name="a", **more, **TRAIN, **SMALL
    )
    (row,) = result.report.trainings
    assert not row.kept
    assert row.metrics["mAP50-95"] < 0.5 * result.metrics["before"]["mAP50-95"]
    assert any("Group-sparse training cost too much" in note for note in result.report.notes)
    assert "(not kept)" in str(result.report)
    assert result.metrics["after"]["mAP50-95"] > 0.5 * result.metrics["before"]["mAP50-95"]


def test_group_sparse_epochs_come_before_pruning(few_digits, tmp_path):
    data = few_digits
    result = yoloprune.prune(
        shallow_weights(), target_ratio=0.7, data=str(data), sparse_epochs=1, sparsity=0.01,
        project=tmp_path, name="a",
        **TRAIN, **SMALL,
    )  # fmt: skip
    assert (tmp_path / "a" / "steps" / "sparse" / "train" / "sparsity.csv").is_file()
    assert (tmp_path / "a" / "steps" / "sparse.pt").is_file()
    assert result.report.seconds["sparse"] > 0
    assert result.report.after.gflops <= 0.7 * result.report.before.gflops
    run = tmp_path / "a"  # as it was when the only step was done and nothing else
    record = Record.load(run / "results.json")
    record.after = None
    put(run, "results.json", record.save)
    (run / "pruned.pt").unlink()
    resumed = yoloprune.prune(resume=run)
    assert resumed.plan.keep == result.plan.keep
    assert equal(resumed.model.model, result.model.model)


def test_heads_are_compared_on_the_network_that_is_pruned(few_digits, tmp_path, monkeypatch):
    data = few_digits
    started: list[torch.nn.Module] = []

    def watched(detector, target, options, **more):
        started.append(detector.network)
        return prune_once(detector, target, options, **more)

    for place in ("steps", "heads"):
        monkeypatch.setattr(f"yoloprune.pipeline.{place}.prune_once", watched)
    yoloprune.prune(
        shallow_weights(), target_ratio=0.7, data=str(data), sparse_epochs=1, sparsity=0.01, val=True,
        compare_heads=True, project=tmp_path, name="a", **TRAIN, **SMALL,
    )  # fmt: skip
    one, two = started
    assert equal(one, two)


@pytest.mark.slow
def test_both_heads_are_measured_where_one_is_kept(tmp_path):
    data = write_few_digits(tmp_path / "digits", train=32, val=48)
    more = {
        "val": True,
        "compare_heads": True,
        "data": str(data),
        "project": tmp_path,
        **SMALL,
        "imgsz": 96,
        "calibration_images": 16,
    }
    result = yoloprune.prune(digits.WEIGHTS, target_ratio=0.6, name="kept", **more)
    kept, pruned = result.report.head
    assert kept == pytest.approx(result.metrics["after"]["mAP50-95"])
    said = [note for note in result.report.notes if "Keeping the head costs" in note]
    assert bool(said) is (pruned - kept > 0.02)
    if said:
        assert f"{kept:.3f}" in said[0]
        assert f"{pruned:.3f}" in said[0]
    assert Record.load(tmp_path / "kept" / "results.json").head == [kept, pruned]
    other = yoloprune.prune(digits.WEIGHTS, target_ratio=0.6, name="pruned", prune_head=True, **more)
    assert not other.report.head
    assert other.metrics["after"]["mAP50-95"] == pytest.approx(pruned, abs=5e-3)  # of the file, rounded to float16
