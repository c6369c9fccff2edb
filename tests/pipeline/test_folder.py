"""The folder of a run: what is removed from it, who may work in it, and what a kill leaves there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

import yoloprune
from tests.small_yolo import shallow_weights
from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.pipeline.folder import RunFolder, make_folder
from yoloprune.pipeline.lock import LOCK, FolderLock
from yoloprune.pipeline.manifest import DIGITS_SET, TRAINING, Manifest
from yoloprune.pipeline.options import Options

WEIGHTS = shallow_weights()
ALONE = {"criterion": "l2", "recover": False, "target_ratio": 0.8}  # by the weights alone


def _options(path: Path, **more) -> Options:
    return Options(**ALONE, project=path.parent, name=path.name, exist_ok=True, **more)


def _filled(path: Path, **more) -> RunFolder:
    """The folder of an earlier run that has written a few files."""
    folder = make_folder(_options(path, **more))
    folder.begin(_options(path, **more))
    folder.step(1).mkdir(parents=True)
    for file in (folder.args, folder.weights, folder.step_plan(1)):
        _write(file, f"of {file.name}")
    folder.close()
    return folder


def _write(path: Path, content: str) -> None:
    with atomic(path) as tmp:
        tmp.write_text(content)


def _files(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}


def _refused(path: Path, **more) -> str:
    before = {name: (path / name).read_bytes() for name in _files(path)}
    with pytest.raises(UserError) as caught:
        make_folder(_options(path, **more))
    assert {name: (path / name).read_bytes() for name in _files(path)} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_what_a_run_wrote_is_removed(tmp_path) -> None:
    """What people put into the folder of a run stays, whatever it is called."""
    words = {**ALONE, "project": tmp_path, "name": "run", "steps": 2}
    run = tmp_path / "run"
    yoloprune.prune(WEIGHTS, **words)
    theirs = ["steps/thesis.txt", "pruned_trees/photo.jpg", "pruned-notes.txt", "steps/2/notes.md", "steps/9/plan.json"]
    for name in theirs:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("precious")
    yoloprune.prune(WEIGHTS, **{**words, "steps": 1}, exist_ok=True)
    assert all((run / name).read_text() == "precious" for name in theirs)
    ours = {"pruned.pt", "plan.json", "args.yaml", "results.json", "results.csv", "report.html"}
    drawn = {f"report/{path.name}" for path in (run / "report").iterdir()}
    assert "report/widths.png" in drawn
    assert _files(run) == {*theirs, *ours, *drawn, "state.json"}


def test_what_is_no_run_is_left_alone(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "pruned.pt").write_text("precious")
    assert "is not that of a run, since it has no state.json, so --exist-ok leaves it alone" in _refused(run)
    (run / "state.json").write_text("[]")
    assert "state.json' is damaged" in _refused(run)


def test_an_empty_folder_is_fine(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    make_folder(_options(run)).close()
    assert not list(run.iterdir())


def test_changed_files_of_an_earlier_run_are_not_removed(tmp_path) -> None:
    run = tmp_path / "run"
    _filled(run)
    (run / "pruned.pt").write_text("precious")
    assert f"'{run / 'pruned.pt'}' was changed after the earlier run wrote it" in _refused(run)


def test_files_in_the_way_are_not_replaced(tmp_path) -> None:
    run = tmp_path / "run"
    _filled(run)
    (run / "report.html").write_text("precious")
    assert f"'{run / 'report.html'}' was not written by the earlier run and is in the way" in _refused(run)
    (run / "report.html").unlink()
    (run / "report").mkdir()
    (run / "report" / "mine.txt").write_text("precious")
    assert f"'{run / 'report'}' was not written by the earlier run and is in the way" in _refused(run)
    (run / "report" / "mine.txt").unlink()
    (run / "pruned.onnx").write_text("precious")
    make_folder(_options(run)).close()
    assert f"'{run / 'pruned.onnx'}' was not written" in _refused(run, export="onnx")


def test_folders_of_trainer_and_digits_keep_other_files(tmp_path) -> None:
    run = tmp_path / "run"
    folder = _filled(run, epochs=1, data="digits")
    assert Manifest.load(run).parts == {"steps/1/train": TRAINING, "digits": DIGITS_SET}
    train = folder.train(1)
    (train / "weights").mkdir(parents=True)
    for name in ("weights/last.pt", "weights/epoch3.pt", "args.yaml", "BoxPR_curve.png", "val_batch0_pred.jpg"):
        (train / name).write_text("")
    (run / "digits" / "images" / "train").mkdir(parents=True)
    (run / "digits" / "images" / "train" / "000001.png").write_text("")
    theirs = ["steps/1/train/diary.txt", "steps/1/train/weights/mine.pt", "digits/images/train/cat.png"]
    for name in theirs:
        (run / name).write_text("precious")
    again = make_folder(_options(run))
    again.begin(_options(run))
    again.close()
    assert _files(run) == {*theirs, "state.json"}


def test_links_are_not_followed_out_of_the_folder(tmp_path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    folder = _filled(run)
    (outside / "1").mkdir(parents=True)
    folder.step_plan(1).rename(outside / "1" / "plan.json")
    folder.step(1).rmdir()
    folder.steps.rmdir()
    folder.steps.symlink_to(outside)
    said = f"'{folder.steps}' is a link, through which no run writes; put what it leads to in its place."
    assert _refused(run) == said
    with pytest.raises(UserError, match="is a link"):
        yoloprune.prune(resume=run)
    assert (outside / "1" / "plan.json").exists()
    manifest = Manifest.load(run)
    manifest.remove_all()
    assert (outside / "1" / "plan.json").exists()


def test_links_of_wandb_are_its_own(tmp_path) -> None:
    folder = _filled(tmp_path / "run")
    runs = folder.train(1) / "wandb"
    runs.mkdir(parents=True)
    (runs / "latest-run").symlink_to(tmp_path)
    folder.check_links()
    runs.rename(tmp_path / "theirs")
    runs.symlink_to(tmp_path / "theirs")  # through which W&B would write
    with pytest.raises(UserError, match="wandb' is a link"):
        folder.check_links()


def test_a_planted_list_does_not_lead_out_of_the_folder(tmp_path) -> None:
    run, thesis = tmp_path / "run", tmp_path / "thesis.txt"
    run.mkdir()
    thesis.write_text("precious")
    for name in ("../thesis.txt", str(thesis), "a/../../thesis.txt"):
        (run / "state.json").write_text(json.dumps({"spent": 0, "folders": {}, "files": {name: []}}))
        _refused(run)
        assert thesis.exists()


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_kill_while_a_file_is_replaced_leaves_it_the_runs(tmp_path, monkeypatch, where) -> None:
    folder = _filled(tmp_path / "run")
    folder.lock()
    folder.reopen()
    rename = os.replace

    def killed(source, target) -> None:
        if Path(target) == folder.weights:
            if where == "after":
                rename(source, target)
            raise SystemExit
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        _write(folder.weights, "another")
    monkeypatch.undo()
    folder.close()
    assert Manifest.load(folder.path).changed() is None
    assert len(Manifest.load(folder.path).contents["pruned.pt"]) == 2
    again = make_folder(_options(folder.path))
    again.begin(_options(folder.path))
    again.close()
    assert _files(folder.path) == {"state.json"}


def test_one_run_at_a_time_in_a_folder(tmp_path) -> None:
    """The second of two processes is told so, and the lock of one that was killed does not count."""
    run = tmp_path / "run"
    folder = _filled(run)
    args = {**ALONE, "weights": None, "fingerprint": ""}
    folder.lock()
    folder.reopen()
    _write(folder.args, yaml.safe_dump(args))
    folder.close()
    code = (
        "import sys, time; from pathlib import Path; from yoloprune.pipeline.lock import FolderLock; "
        f"lock = FolderLock(Path({str(run)!r})); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        said = f"Another run (process {other.pid} on "
        assert said in _refused(run)
        with pytest.raises(UserError) as caught:
            yoloprune.prune(resume=run)
        assert said in str(caught.value)
        assert str(caught.value).endswith(f" is working in the folder '{run}'; wait until it has ended, or stop it.")
        other.kill()
    assert (run / LOCK).exists()
    with pytest.raises(UserError, match="started with a model in memory"):
        yoloprune.prune(resume=run)
    assert not (run / LOCK).exists()


def test_a_lock_is_given_back_with_its_object(tmp_path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match="this process"):
        FolderLock(tmp_path)
    del lock
    FolderLock(tmp_path).release()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_does_not_keep_the_lock(tmp_path) -> None:
    """A data loader's worker may outlive a run that was killed."""
    code = (
        "import os, sys, time; from pathlib import Path; from yoloprune.pipeline.lock import FolderLock\n"
        f"lock = FolderLock(Path({str(tmp_path)!r}))\n"
        "if not os.fork(): time.sleep(60)\n"
        "print('forked', flush=True); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as run:
        assert run.stdout.readline() == b"forked\n"
        run.wait()
        FolderLock(tmp_path).release()
        os.killpg(run.pid, 9)


def test_a_planted_link_is_not_written_through(tmp_path) -> None:
    thesis, run = tmp_path / "thesis.txt", tmp_path / "run"
    thesis.write_text("precious")
    run.mkdir()
    (run / LOCK).symlink_to(thesis)
    with pytest.raises(UserError, match="cannot be written"):
        FolderLock(run)
    assert thesis.read_text() == "precious"


def test_options_are_on_disk_before_anything_takes_time(tmp_path, monkeypatch) -> None:
    def killed(*args) -> None:
        raise SystemExit

    for where in ("write_digits", "check_budget", "_megabytes_saved"):
        monkeypatch.setattr(f"yoloprune.pipeline.run.{where}", killed)
        with pytest.raises(SystemExit):
            yoloprune.prune(
                WEIGHTS, target_ratio=0.8, data="digits", budget="1h", val=True, project=tmp_path, name=where
            )
        monkeypatch.undo()
        args = yaml.safe_load((tmp_path / where / "args.yaml").read_text())
        assert args["budget"] == 3600
        assert args["data"] == "digits"


def test_a_budget_that_is_too_short_leaves_nothing(tmp_path) -> None:
    words = {"data": "digits", "budget": 0.01, "val": True, "project": tmp_path, "name": "run", "target_ratio": 0.8}
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(WEIGHTS, **words)
    assert not list(tmp_path.iterdir())
    _filled(tmp_path / "run")
    before = _files(tmp_path / "run")
    with pytest.raises(UserError, match="too short"):
        yoloprune.prune(WEIGHTS, **words, exist_ok=True)
    assert _files(tmp_path / "run") == before


def test_leftovers_of_a_kill_are_removed(tmp_path) -> None:
    yoloprune.prune(WEIGHTS, **ALONE, steps=2, project=tmp_path, name="run")
    run = tmp_path / "run"
    before = _files(run)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    for name in (
        f".pruned.{gone.pid}.tmp.pt",
        f"steps/2/.model.{gone.pid}.tmp.pt",
        f".work-{gone.pid}-01234567/model.pt",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    folder = RunFolder(run)
    folder.lock()
    folder.reopen()
    _write(folder.teacher, "left")
    folder.close()
    yoloprune.prune(resume=run)
    assert _files(run) == before


def test_runs_of_several_threads_come_one_after_the_other(tmp_path) -> None:
    from ultralytics.utils import LOGGER, checks

    alone = yoloprune.prune(WEIGHTS, **ALONE).plan
    before = (LOGGER.level, checks.AUTOINSTALL)
    plans, errors = {}, []

    def work(number: int) -> None:
        try:
            words = {"project": tmp_path, "name": "run"} if number % 2 else {}
            plans[number] = yoloprune.prune(WEIGHTS, **ALONE, **words).plan
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [plans[number].keep for number in range(3)] == [alone.keep] * 3
    assert (LOGGER.level, checks.AUTOINSTALL) == before
