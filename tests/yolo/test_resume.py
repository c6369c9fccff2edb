"""Runs that a full disk stopped, or whose files were damaged, before they are resumed."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from pathlib import Path

import pytest

import yoloprune
from yoloprune.errors import UserError
from yoloprune.report import Measure, Record, StepRow
from yoloprune.yolo.digits import WEIGHTS, write
from yoloprune.yolo.run.folder import RunFolder, remove
from yoloprune.yolo.run.interrupt import where_it_stands


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two steps that only prune."""
    folder = tmp_path_factory.mktemp("runs")
    yoloprune.prune(WEIGHTS, target_ratio=0.6, steps=2, project=folder, name="run")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def cut(run) -> Path:
    """The run as it was after its first step."""
    record = Record.load(run / "results.json")
    record.after, record.steps = None, record.steps[:1]
    record.save(run / "results.json")
    for name in ("pruned.pt", "plan.json", "steps/2"):
        remove(run / name)
    return run


def _refused(run: Path, name: str) -> str:
    with pytest.raises(UserError) as caught:
        yoloprune.prune(resume=run)
    said = str(caught.value)
    assert said.startswith(f"'{run / name}' is missing or damaged; ")
    assert "\n" not in said
    return said


def _resumed(run: Path, finished: Path) -> None:
    yoloprune.prune(resume=run)
    assert (run / "plan.json").read_bytes() == (finished / "plan.json").read_bytes()


@pytest.mark.parametrize("name", ["pruned.pt", "plan.json"])
def test_finished_run_without_its_result(run, finished, name) -> None:
    (run / name).unlink()
    assert f"remove '{run / 'results.json'}'" in _refused(run, name)
    (run / "results.json").unlink()
    _resumed(run, finished)


@pytest.mark.parametrize("name", ["steps/1/plan.json", "steps/1/model.pt"])
def test_damaged_step(cut, finished, name) -> None:
    content = (cut / name).read_bytes()
    (cut / name).write_bytes(content[: len(content) // 2])
    assert f"remove the folder '{cut / 'steps' / '1'}'" in _refused(cut, name)
    remove(cut / "steps" / "1")
    _resumed(cut, finished)


def test_missing_network_of_a_step_is_made_again_from_the_one_before(run, finished) -> None:
    record = Record.load(run / "results.json")
    record.after = None
    record.save(run / "results.json")
    remove(run / "steps" / "2")
    (run / "plan.json").unlink()
    _resumed(run, finished)


def test_damaged_start_of_a_fine_tuning(tmp_path, monkeypatch) -> None:
    def interrupted(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    few = {"data": str(write(tmp_path / "digits")), "epochs": 1, "imgsz": 64, "fraction": 0.05, "val": False}
    monkeypatch.setattr("yoloprune.yolo.run.steps.fine_tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        yoloprune.prune(WEIGHTS, target_ratio=0.6, project=tmp_path, name="run", workers=0, device="cpu", **few)
    monkeypatch.undo()
    start = tmp_path / "run" / "steps" / "1" / "pruned.pt"
    start.write_bytes(start.read_bytes()[:1000])
    assert "remove it and resume again" in _refused(tmp_path / "run", "steps/1/pruned.pt")
    start.unlink()
    assert yoloprune.prune(resume=tmp_path / "run").plan


@pytest.mark.parametrize("content", ["weights: [", "- 1", "weights: a.pt\nfingerprint: b\ncolour: red"])
def test_damaged_options(cut, content) -> None:
    (cut / "args.yaml").write_text(content)
    assert "start the run anew" in _refused(cut, "args.yaml")


def test_damaged_record(cut) -> None:
    (cut / "results.json").write_text('{"finished": ')
    assert "remove it" in _refused(cut, "results.json")


@pytest.mark.parametrize("name", ["pruned.pt", "plan.json", "steps/1/model.pt"])
def test_full_disk(finished, tmp_path, monkeypatch, name) -> None:
    run = tmp_path / "my runs" / "run"
    replace = os.replace

    def full(source, target) -> None:
        if Path(target) == run / name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError) as caught:
        yoloprune.prune(WEIGHTS, target_ratio=0.6, steps=2, project=run.parent, name=run.name)
    said = str(caught.value)
    assert said.startswith(f"'{run / name}' cannot be written (No space left on device); make room, then go on with: ")
    assert said.endswith(f" --resume '{run}'")
    monkeypatch.undo()
    _resumed(run, finished)


def test_the_command_that_goes_on_can_be_pasted(tmp_path) -> None:
    record = Record("a.pt", "v8", "detect", 640, Measure(8.0, 1))
    said = where_it_stands(RunFolder(tmp_path / "my runs"), record, 1)
    assert shlex.split(said.partition("go on with: ")[2])[-1] == str(tmp_path / "my runs")


def test_an_interrupted_run_says_what_is_finished(tmp_path) -> None:
    folder, record = RunFolder(tmp_path), Record("a.pt", "v8", "detect", 640, Measure(8.0, 1))
    assert "(nothing finished yet)" in where_it_stands(folder, record, 1)
    table = folder.train(1) / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("epoch,time\n1,2.0\n")
    assert "(1 epoch of fine-tuning finished)" in where_it_stands(folder, record, 1)
    record.steps.append(StepRow(1, 6.0, 6.0, 1, 0.0))
    assert "(1 of 3 steps finished)" in where_it_stands(folder, record, 3)
    table = folder.train(2) / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("epoch,time\n1,2.0\n2,4.0\n")
    assert "(1 of 3 steps and 2 epochs of fine-tuning finished)" in where_it_stands(folder, record, 3)


def test_full_disk_before_there_is_anything_to_resume(tmp_path, monkeypatch) -> None:
    def full(self, data) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)  # of the checkpoint whose size is measured
    with pytest.raises(UserError, match="make room, then start the run again"):
        yoloprune.prune(WEIGHTS, target_ratio=0.6, project=tmp_path, name="run")
