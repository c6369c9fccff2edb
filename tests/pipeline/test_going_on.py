"""Going on with a run: what is read and not done again, what must be typed again, what is said on Ctrl-C."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from typer.testing import CliRunner

import yoloprune
from tests.small_yolo import equal, shallow_weights, write_few_digits
from yoloprune import detectors
from yoloprune.cli.app import app
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.trainers.continuation import Continuation
from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.pipeline.folder import make_folder
from yoloprune.pipeline.manifest import Manifest
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.train import saved_original
from yoloprune.report import Record

WEIGHTS = shallow_weights()
ALONE = {"criterion": "l2", "recover": False, "target_ratio": 0.8}  # by the weights alone


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """A data YAML of 8 training and 8 validation canvases of the embedded digits."""
    return write_few_digits(tmp_path_factory.mktemp("digits"), train=8, val=8)


def _short(data: Path) -> dict[str, Any]:
    few = {"epochs": 2, "imgsz": 64, "device": "cpu", "workers": 0, "plots": False, "amp": False, "distill": False}
    return {**ALONE, "data": str(data), **few, "optimizer": "SGD", "lr0": 0.001}


def _stopped(what: str, monkeypatch, error: type[BaseException], **words: Any) -> str:
    """What a run says that stops where `what`, a name in `yoloprune.pipeline`, is called."""

    def stop(*args, **kwargs) -> None:
        raise error

    monkeypatch.setattr(f"yoloprune.pipeline.{what}", stop)
    with pytest.raises(error) as caught:
        yoloprune.prune(WEIGHTS, **words)
    monkeypatch.undo()
    return str(caught.value)


def _put(path: Path, content: str) -> None:
    """Write a file of a run as the run does it."""
    manifest = Manifest.load(path.parent)
    manifest.open()
    with atomic(path) as tmp:
        tmp.write_text(content)
    manifest.close()


def _typed(command: str) -> Any:
    name, *words = shlex.split(command)
    assert name == "yoloprune"
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("where", ["run.finish", "steps._fine_tuned"])
def test_a_step_is_never_pruned_twice(few, tmp_path, monkeypatch, where) -> None:
    words = _short(few) if where == "steps._fine_tuned" else {**ALONE, "steps": 1}
    _stopped(where, monkeypatch, SystemExit, **words, project=tmp_path, name="run")
    step = tmp_path / "run" / "steps" / "1"
    plan, network = (step / "plan.json").read_bytes(), checkpoints.load(step / "pruned.pt").model

    def again(*args, **kwargs) -> None:
        raise AssertionError("pruned again")

    monkeypatch.setattr("yoloprune.pipeline.steps.prune_once", again)
    result = yoloprune.prune(resume=tmp_path / "run")
    assert (tmp_path / "run" / "plan.json").read_bytes() == plan
    applied = result.plan.apply(checkpoints.load(WEIGHTS).model)
    assert {n: t.shape for n, t in applied.state_dict().items()} == {
        n: t.shape for n, t in result.model.model.state_dict().items()
    }
    if where == "run.finish":
        assert equal(result.model.model, network)
        assert not step.exists()  # its files are the run's
    assert not Record.load(tmp_path / "run" / "results.json").pruned


PLACES = [
    "run.write_digits",
    "run._megabytes_saved",
    "steps.prune_once",
    "steps.fine_tune",
    "run.finish",
]


@pytest.mark.parametrize("where", PLACES)
def test_the_advice_on_ctrl_c_works(few, tmp_path, monkeypatch, where) -> None:
    words = {**_short(few), "epochs": 1} if where == "steps.fine_tune" else ALONE
    words = {**words, "data": "digits", "val": True, "imgsz": 32} if where == "run.write_digits" else words
    said = _stopped(where, monkeypatch, KeyboardInterrupt, **words, project=tmp_path / "my runs", name="run")
    command = said.partition("continue with: ")[2]
    assert command == f"yoloprune prune --resume '{tmp_path / 'my runs' / 'run'}'"
    result = _typed(command)
    assert result.exit_code == 0, result.output
    assert Record.load(tmp_path / "my runs" / "run" / "results.json").finished


@pytest.mark.parametrize("where", ["run.make_folder", "folder.Manifest.save", "run.Options.save"])
def test_ctrl_c_before_anything_is_there_to_go_on_with(tmp_path, monkeypatch, where) -> None:
    said = _stopped(where, monkeypatch, KeyboardInterrupt, **ALONE, project=tmp_path, name="run")
    assert said == "Interrupted; nothing was written."
    assert not list(tmp_path.iterdir())


def test_the_advice_for_a_model_in_memory_works(tmp_path, monkeypatch) -> None:
    def stop(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    model = ultralytics.YOLO(WEIGHTS)
    monkeypatch.setattr("yoloprune.pipeline.run.finish", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        yoloprune.prune(model, **ALONE, project=tmp_path, name="run")
    monkeypatch.undo()
    command = str(caught.value).partition("continue with: ")[2]
    assert command == f"yoloprune.prune(model, resume={str(tmp_path / 'run')!r})"
    assert eval(command, {"yoloprune": yoloprune, "model": model}).report.finished


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return (Path.touch, (self.path,))


def test_trust_is_typed_again(tmp_path, monkeypatch) -> None:
    """What a folder says of trust does not count, neither in its options nor for other weights that they name."""
    weights, canary, run = tmp_path / "mine.pt", tmp_path / "ran", tmp_path / "run"
    whole = torch.load(WEIGHTS, weights_only=False)
    torch.save({**whole, "planted": Canary(canary)}, weights)

    def stop(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yoloprune.pipeline.run.finish", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        yoloprune.prune(weights, **ALONE, trust=True, project=tmp_path, name="run")
    monkeypatch.undo()
    assert canary.exists()
    canary.unlink()
    typed = f"yoloprune prune --resume {run} --trust"
    assert str(caught.value).endswith(f"continue with: {typed}")
    with pytest.raises(UserError) as refused:
        yoloprune.prune(resume=run)
    assert not canary.exists()
    assert str(refused.value) == (
        f"The weights of this run, '{weights}', are loaded only if they are trusted once more: {typed}, if you know "
        "where the folder and they come from."
    )
    result = _typed(typed)
    assert result.exit_code == 0, result.output
    assert canary.exists()


def test_trust_in_a_foreign_folder_does_nothing(tmp_path) -> None:
    """The options of the folder, its list made to fit them, ask for trust and name weights that would run."""
    weights, canary, run = tmp_path / "evil.pt", tmp_path / "ran", tmp_path / "run"
    torch.save({"model": Canary(canary)}, weights)
    yoloprune.prune(WEIGHTS, **ALONE, project=tmp_path, name="run")
    args = yaml.safe_load((run / "args.yaml").read_text())
    for edit in ({"weights": str(weights), "trust": True}, {"weights": str(weights)}):
        _put(run / "args.yaml", yaml.safe_dump(args | edit))
        with pytest.raises(UserError, match="trust"):
            yoloprune.prune(resume=run)
        assert not canary.exists()


def test_trust_is_not_needed_for_weights_that_do_not_need_it(tmp_path, monkeypatch) -> None:
    words = {**ALONE, "trust": True, "project": tmp_path, "name": "run"}
    _stopped("run.finish", monkeypatch, SystemExit, **words)
    assert yoloprune.prune(resume=tmp_path / "run").report.finished


WHOLE = ("model", "ema", "optimizer", "gradients", "stepped", "loader", "random")


@pytest.mark.parametrize("lacks", ["last", "epoch", *WHOLE[1:], "all"])
def test_what_is_no_state_of_a_training_is_named(tmp_path, lacks) -> None:
    continuation = Continuation(tmp_path)
    continuation.path.parent.mkdir()
    state = {"last": torch.zeros(4, dtype=torch.uint8), "epoch": 0, **{key: {} for key in WHOLE}}
    torch.save([1] if lacks == "all" else {k: v for k, v in state.items() if k != lacks}, continuation.path)
    with pytest.raises(UserError) as caught:
        continuation.prepare()
    assert str(caught.value) == (
        f"'{continuation.path}' is not the state of this training; remove it and resume again: the training then "
        "begins anew."
    )
    assert not continuation.last.exists()


def test_the_state_of_another_training_is_named(few, tmp_path, monkeypatch) -> None:
    original = Continuation.on_train_epoch_start

    def interrupt(self: Continuation, trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        original(self, trainer)

    monkeypatch.setattr(Continuation, "on_train_epoch_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        yoloprune.prune(WEIGHTS, **_short(few), project=tmp_path, name="run")
    monkeypatch.undo()
    state = tmp_path / "run" / "steps" / "1" / "train" / "weights" / "continue.pt"
    torch.save({**torch.load(state, weights_only=True), "model": {}}, state)
    with pytest.raises(UserError, match=r"continue.pt' is not the state of this training; remove it"):
        yoloprune.prune(resume=tmp_path / "run")
    state.unlink()
    assert yoloprune.prune(resume=tmp_path / "run").report.finished


def test_what_lies_in_the_place_of_the_original_is_not_taken_for_it(tmp_path) -> None:
    """It guides the fine-tuning; here somebody put another network there before the run had written its own."""
    original = detectors.load(WEIGHTS)
    options = Options(**ALONE, project=tmp_path, name="run")
    folder = make_folder(options)
    folder.begin(options)
    folder.steps.mkdir()
    folder.teacher.write_bytes(b"another")
    for _ in range(2):
        saved = saved_original(SimpleNamespace(original=original, folder=folder))
        assert equal(checkpoints.load(saved).model, original.network)
    folder.close()
