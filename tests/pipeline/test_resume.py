"""Runs that a full disk stopped, or whose files were damaged, before they are resumed."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import yoloprune
from tests.small_yolo import put, shallow_weights
from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.pipeline.folder import RunFolder, remove
from yoloprune.pipeline.interrupt import where_it_stands
from yoloprune.pipeline.options import Options
from yoloprune.report import Measure, Record, StepRow

WEIGHTS = shallow_weights()
ONE_STEP = Options(target_ratio=0.6)
ALONE = {"criterion": "l2", "recover": False}  # by the weights alone


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two steps that only prune."""
    folder = tmp_path_factory.mktemp("runs")
    yoloprune.prune(WEIGHTS, **ALONE, target_ratio=0.6, steps=2, project=folder, name="run")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def cut(run) -> Path:
    """The run as it was after its first step."""
    return _cut(run)


def _cut(run: Path) -> Path:
    record = Record.load(run / "results.json")
    record.after, record.steps = None, record.steps[:1]
    put(run, "results.json", record.save)
    for name in ("pruned.pt", "plan.json", "steps/2"):
        remove(run / name)
    return run


def refused(run: Path, **options: Any) -> str:
    """What resuming a run is refused with, one sentence."""
    with pytest.raises(UserError) as caught:
        yoloprune.prune(resume=run, **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


def _resumed(run: Path, finished: Path) -> None:
    yoloprune.prune(resume=run)
    assert (run / "plan.json").read_bytes() == (finished / "plan.json").read_bytes()
    assert Record.load(run / "results.json").finished


@pytest.mark.parametrize("name", ["pruned.pt", "plan.json"])
def test_finished_run_without_its_result_makes_it_again(run, finished, name) -> None:
    (run / name).unlink()
    _resumed(run, finished)


@pytest.mark.parametrize("name", ["steps/1/plan.json", "steps/1/pruned.pt", "results.json"])
@pytest.mark.parametrize("harm", ["emptied", "cut", "swapped"])
def test_changed_file_is_named(cut, finished, name, harm) -> None:
    content = (cut / name).read_bytes()
    other = (finished / name.replace("1", "2")).read_bytes()
    (cut / name).write_bytes({"emptied": b"", "cut": content[: len(content) // 2], "swapped": other}[harm])
    said = f"'{cut / name}' is not as the run wrote it; remove it and resume again: it is then made anew."
    assert refused(cut) == said


@pytest.mark.parametrize("name", ["steps/1/plan.json", "steps/1/pruned.pt", "results.json"])
def test_removed_file_is_made_anew(cut, finished, name) -> None:
    (cut / name).unlink()
    _resumed(cut, finished)


@pytest.mark.parametrize("name", ["pruned.pt", "plan.json", "steps/1/plan.json", "results.json"])
def test_changed_file_of_a_finished_run_is_named(run, name) -> None:
    (run / name).write_bytes(b"")
    assert f"'{run / name}' is not as the run wrote it" in refused(run)


def test_what_is_for_people_may_be_edited(run) -> None:
    for name in ("results.csv", "report.html", "report/widths.png"):
        (run / name).write_text("mine")
    assert yoloprune.prune(resume=run).report.finished


@pytest.mark.parametrize("edit", [{"steps": 3}, {"epochs": 5}, {"data": "other.yaml"}, {"trust": True}])
def test_edited_options_are_named(cut, edit) -> None:
    args = yaml.safe_load((cut / "args.yaml").read_text())
    (cut / "args.yaml").write_text(yaml.safe_dump(args | edit, sort_keys=False))
    assert refused(cut) == (
        f"'{cut / 'args.yaml'}' is not what the run was started with; put it back as it was, or start a new run with "
        "other options."
    )


def test_missing_network_of_a_step_is_made_again_from_the_one_before(run, finished) -> None:
    record = Record.load(run / "results.json")
    record.after = None
    put(run, "results.json", record.save)
    remove(run / "steps" / "2")
    (run / "plan.json").unlink()
    _resumed(run, finished)


@pytest.mark.parametrize("content", ["weights: [", "- 1", "weights: a.pt\nfingerprint: b\ncolour: red"])
def test_options_that_are_none(cut, content) -> None:
    put(cut, "args.yaml", lambda path: _write(path, content))
    assert refused(cut) == f"'{cut / 'args.yaml'}' is missing or damaged; start the run anew."


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[" * 100_000,
        '{"spent": 0, "folders": {}, "files": {"../thesis.txt": []}}',
        '{"spent": 0, "folders": {"/etc": "images"}, "files": {}}',
        '{"spent": 0, "folders": {"steps": "trash"}, "files": {}}',
        '{"spent": "long", "folders": {}, "files": {}}',
    ],
)
def test_damaged_list_of_files(cut, content) -> None:
    (cut / "state.json").write_text(content)
    assert refused(cut) == f"'{cut / 'state.json'}' is missing or damaged; start the run anew."


def _write(path: Path, content: str) -> None:
    with atomic(path) as tmp:
        tmp.write_text(content)


@pytest.mark.parametrize("name", ["results.json", "pruned.pt", "plan.json", "steps/1/pruned.pt"])
def test_full_disk(finished, tmp_path, monkeypatch, name) -> None:
    run = tmp_path / "my runs" / "run"
    rename = os.replace
    words = {"model": WEIGHTS, **ALONE, "target_ratio": 0.6, "steps": 2, "project": run.parent, "name": run.name}
    if not name.startswith("steps/1"):  # it comes later, so that the run may as well go on after its first step
        words = {"resume": _cut(Path(shutil.copytree(finished, run)))}

    def full(source, target) -> None:
        if Path(target) == run / name:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError) as caught:
        yoloprune.prune(**words)
    said = str(caught.value)
    full = "cannot be written (No space left on device); make room, then continue with: "
    assert said.startswith(f"'{run / name}' {full}")
    assert said.endswith(f" --resume '{run}'")
    monkeypatch.undo()
    _resumed(run, finished)


@pytest.mark.parametrize("name", ["state.json", "args.yaml"])
def test_full_disk_before_there_is_anything_to_resume(tmp_path, monkeypatch, name) -> None:
    rename = os.replace

    def full(source, target) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="make room, then start the run again"):
        yoloprune.prune(WEIGHTS, **ALONE, target_ratio=0.6, project=tmp_path, name="run")
    assert not list(tmp_path.iterdir())


def test_the_command_that_goes_on_can_be_pasted(tmp_path) -> None:
    record = Record("a.pt", "v8", "detect", 640, Measure(8.0, 1))
    said = where_it_stands(RunFolder(tmp_path / "my runs"), record, ONE_STEP)
    assert shlex.split(said.partition("continue with: ")[2])[-1] == str(tmp_path / "my runs")


def test_an_interrupted_run_says_what_is_finished(tmp_path) -> None:
    folder, record = RunFolder(tmp_path), Record("a.pt", "v8", "detect", 640, Measure(8.0, 1))
    assert "(nothing finished yet)" in where_it_stands(folder, record, ONE_STEP)
    table = folder.train(1) / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("epoch,time\n1,2.0\n")
    assert "(1 epoch of fine-tuning finished)" in where_it_stands(folder, record, ONE_STEP)
    three = replace(ONE_STEP, steps=3)
    record.steps.append(StepRow(1, 6.0, 6.0, 1, 0.0))
    assert "(1 of 3 steps finished)" in where_it_stands(folder, record, three)
    table = folder.train(2) / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_text("epoch,time\n1,2.0\n2,4.0\n")
    assert "(1 of 3 steps and 2 epochs of fine-tuning finished)" in where_it_stands(folder, record, three)
