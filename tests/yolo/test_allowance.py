"""Time budgets, group-sparse epochs and the comparison of heads, through whole runs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import ultralytics
import yaml
from small_yolo import equal

import yoloprune
from yoloprune.errors import UserError
from yoloprune.report import Record
from yoloprune.yolo import digits
from yoloprune.yolo.run.allowance import epochs_within
from yoloprune.yolo.run.api import prepare
from yoloprune.yolo.run.data import with_data
from yoloprune.yolo.run.options import Options
from yoloprune.yolo.run.pruning import prune_once
from yoloprune.yolo.run.typed import parse_budget

SMALL = {"imgsz": 64, "batch": 16, "calibration_images": 8, "device": "cpu"}
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


def options(data, **more):
    yolo = ultralytics.YOLO(digits.WEIGHTS)
    return yolo, with_data(Options(target_ratio=0.7, data=str(data), epochs=1, **SMALL, **more), yolo)[0]


def test_twice_the_time_gives_about_twice_the_epochs(tmp_path, monkeypatch):
    yolo, given = options(digits.write(tmp_path))
    seconds = itertools.count()  # a clock that goes on by one second whenever it is read
    monkeypatch.setattr("yoloprune.yolo.run.allowance.time.perf_counter", lambda: float(next(seconds)))
    one, step = epochs_within(yolo, given, 100_000)
    two, _ = epochs_within(yolo, given, 200_000)
    assert step == pytest.approx(1.25 / 4)  # a second for each batch of four images, and the margin
    assert 2 <= two / one < 2.5  # what does not depend on the epochs is spent once


def test_the_time_of_a_search_is_reserved(tmp_path, monkeypatch):
    yolo, given = options(digits.write(tmp_path))
    seconds = itertools.count()
    monkeypatch.setattr("yoloprune.yolo.run.allowance.time.perf_counter", lambda: float(next(seconds)))
    free, step = epochs_within(yolo, given, 10_000)
    busy, _ = epochs_within(yolo, replace(given, search=int(5_000 / given.calibration_images / step)), 10_000)
    assert 0.4 < busy / free < 0.6


def test_group_sparse_epochs_and_the_share_of_the_images_count(tmp_path, monkeypatch):
    yolo, given = options(digits.write(tmp_path), distill=False)
    seconds = itertools.count()
    monkeypatch.setattr("yoloprune.yolo.run.allowance.time.perf_counter", lambda: float(next(seconds)))
    all_of_them, _ = epochs_within(yolo, given, 100_000)
    after_sparse, _ = epochs_within(yolo, replace(given, sparse_epochs=100), 100_000)
    assert 100 < all_of_them - after_sparse < 200  # an epoch of the unpruned network takes up to 1 / 0.7 of one
    tenth, _ = epochs_within(yolo, replace(given, train={"fraction": 0.1}), 100_000)
    assert (tenth, _) == epochs_within(yolo, replace(given, train={"fraction": 51}), 100_000)
    images = 512 * 0.7, 128 / 3  # of training and, forward alone, of validation, in training steps of one image
    assert tenth / all_of_them == pytest.approx(sum(images) / (images[0] / 10 + images[1]), rel=0.01)


def test_too_little_time_is_said_and_nothing_is_left(tmp_path):
    data = digits.write(tmp_path / "digits")
    with pytest.raises(UserError, match=r"too short.*replace --budget by --epochs 0"):
        yoloprune.prune(
            digits.WEIGHTS, target_ratio=0.7, data=str(data), budget=0.01, project=tmp_path / "runs", name="a", **SMALL
        )
    assert not (tmp_path / "runs" / "a").exists()


def test_too_little_time_leaves_an_existing_folder_alone(tmp_path):
    data = digits.write(tmp_path / "digits")
    mine = tmp_path / "runs" / "a" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    where = {"project": tmp_path / "runs", "name": "a", "exist_ok": True}
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(digits.WEIGHTS, target_ratio=0.7, data=str(data), budget=0.01, **where, **SMALL)
    assert mine.read_text() == "mine"


def test_the_embedded_data_have_budgets_too(tmp_path):
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(digits.WEIGHTS, target_ratio=0.7, data="digits", budget=0.01, project=tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_run_keeps_its_epochs_for_a_resumption(tmp_path, monkeypatch):
    monkeypatch.setattr("yoloprune.yolo.run.pipeline.epochs_within", lambda *args: (1, 0.5))
    data = digits.write(tmp_path / "digits")
    given = Options(
        target_ratio=0.7,
        data=str(data),
        budget=60.0,
        project=str(tmp_path),
        name="a",
        train={**TRAIN, "fraction": 0.1},
        **SMALL,
    )
    finished = prepare(digits.WEIGHTS, given).go()
    args = yaml.safe_load((tmp_path / "a" / "args.yaml").read_text())
    assert (args["epochs"], args["budget"]) == (1, None)
    assert finished.record.steps[0].epochs == 1
    assert finished.record.notes[0] == "Budget of 1 min: 1 step of 1 epochs (0.50 s per image and training step)."
    assert "Budget of 1 min" in (tmp_path / "a" / "report.html").read_text()


def test_group_sparse_epochs_come_before_pruning(tmp_path):
    data = digits.write(tmp_path / "digits")
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.7, data=str(data), sparse_epochs=1, sparsity=0.01, project=tmp_path, name="a",
        fraction=0.1, **TRAIN, **SMALL,
    )  # fmt: skip
    assert (tmp_path / "a" / "steps" / "sparse" / "train" / "sparsity.csv").is_file()
    assert (tmp_path / "a" / "steps" / "sparse.pt").is_file()
    assert result.report.seconds["sparse"] > 0
    assert result.report.after.gflops <= 0.7 * result.report.before.gflops
    run = tmp_path / "a"  # as it was when the only step was done and nothing else
    record = Record.load(run / "results.json")
    record.after = None
    record.save(run / "results.json")
    (run / "pruned.pt").unlink()
    resumed = yoloprune.prune(resume=run)
    assert resumed.plan.keep == result.plan.keep
    assert equal(resumed.model.model, result.model.model)


def test_heads_are_compared_on_the_network_that_is_pruned(tmp_path, monkeypatch):
    data = digits.write(tmp_path / "digits")
    started: list[torch.nn.Module] = []

    def watched(yolo, target, options, **more):
        started.append(yolo.model)
        return prune_once(yolo, target, options, **more)

    for place in ("steps", "heads"):
        monkeypatch.setattr(f"yoloprune.yolo.run.{place}.prune_once", watched)
    yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.7, data=str(data), sparse_epochs=1, sparsity=0.01, val=True, project=tmp_path,
        name="a", fraction=0.1, **TRAIN, **SMALL,
    )  # fmt: skip
    one, two = started
    assert equal(one, two)


def test_both_heads_are_measured_where_one_is_kept(tmp_path):
    data = digits.write(tmp_path / "digits")
    more = {"val": True, "data": str(data), "project": tmp_path, **SMALL, "imgsz": 160, "calibration_images": 32}
    result = yoloprune.prune(digits.WEIGHTS, target_ratio=0.6, name="kept", **more)
    kept, pruned = result.report.head
    assert kept == pytest.approx(result.metrics["after"]["mAP50-95"])
    said = [note for note in result.report.notes if "--prune-head" in note]
    assert bool(said) is (pruned - kept > 0.02)
    if said:
        assert f"{kept:.3f}" in said[0]
        assert f"{pruned:.3f}" in said[0]
    assert Record.load(tmp_path / "kept" / "results.json").head == [kept, pruned]
    other = yoloprune.prune(digits.WEIGHTS, target_ratio=0.6, name="pruned", prune_head=True, **more)
    assert not other.report.head
    assert other.metrics["after"]["mAP50-95"] == pytest.approx(pruned)
