"""What experiment loggers are told of a run, and that it is told once and never in the run's way."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import ultralytics.utils

import yoloprune
from tests.small_yolo import put, shallow_weights
from yoloprune.detectors.ultralytics import loggers as of_ultralytics
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.pipeline import loggers, reporting
from yoloprune.pipeline.loggers import LOGGERS, Logger, Told, figures
from yoloprune.report import Measure, Record, StepRow

ALONE = {"criterion": "l2", "recover": False}  # by the weights alone


class Recorder:
    """Something that writes down every call of any of its methods, under the name that it was called by."""

    def __init__(self, calls: list[tuple[Any, ...]], name: str, **has: Any) -> None:
        self._calls, self._name = calls, name
        vars(self).update(has)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._calls.append((f"{self._name}.{name}", *args, *kwargs.values()))


def draw(path: Path) -> Path:
    """A picture that is red on the left and black on the right."""
    path.parent.mkdir(exist_ok=True)
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, :6, 2] = 255
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


@pytest.fixture
def told(tmp_path: Path) -> Told:
    (tmp_path / "plan.json").write_text("{}")
    return Told(
        folder=tmp_path,
        place=None,
        figures={"before": {"F1 (conf .25)": 0.9}, "after": {"F1 (conf .25)": 0.8}},
        tables={"widths": [["layer", "before", "after"], ["model.0.conv", "16", "8"]]},
        pictures=[draw(tmp_path / "report" / "1-after.jpg")],
        files=[tmp_path / "plan.json"],
    )


@pytest.fixture
def calls() -> list[tuple[Any, ...]]:
    return []


def there(told: Told, place: str) -> Told:
    return Told(**{**vars(told), "place": place})


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **has: Any) -> None:
    """Put a module in the place of a package."""
    module = ModuleType(name)
    vars(module).update(has)
    monkeypatch.setitem(sys.modules, name, module)


def test_figures_have_a_moment() -> None:
    one = StepRow(1, 6.0, 6.1, 200, epochs=2, before={"mAP50": 0.6}, metrics={"mAP50": 0.7})
    record = Record("a.pt", "v8", "detect", 64, Measure(8.0, 300, metrics={"mAP50": 0.9}), steps=[one])
    record.after = Measure(6.1, 200, 0.5, 3.0, {"mAP50": 0.75})
    assert figures(record) == {
        "before": {"GFLOPs": 8.0, "parameters": 300, "mAP50": 0.9},
        "pruned": {"GFLOPs": 6.1, "parameters": 200, "mAP50": 0.6},
        "after": {"GFLOPs": 6.1, "parameters": 200, "file (MB)": 0.5, "latency (ms)": 3.0, "mAP50": 0.75},
    }
    record.steps.append(StepRow(2, 4.0, 4.1, 100, epochs=2, before={"mAP50": 0.4}, metrics={"mAP50": 0.5}))
    assert [*figures(record)] == ["before", "pruned_1", "fine-tuned_1", "pruned_2", "after"]
    assert figures(record)["fine-tuned_1"]["mAP50"] == 0.7


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]) -> SimpleNamespace:
    """An MLflow with one experiment and, as `active` says, perhaps a run under way."""
    state = SimpleNamespace(active=None)
    client = Recorder(calls, "client", get_experiment_by_name=lambda name: None)
    client.create_experiment = lambda name: f"the one called {name}"
    client.create_run = lambda experiment, run_name: SimpleNamespace(info=SimpleNamespace(run_id=experiment))
    fake(monkeypatch, "mlflow", MlflowClient=lambda: client, active_run=lambda: state.active)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return state


def test_mlflow(told: Told, calls: list[tuple[Any, ...]], mlflow: SimpleNamespace) -> None:
    assert LOGGERS["mlflow"].log(there(told, "12")) == "12"
    table = "| layer | before | after |\n| --- | --- | --- |\n| model.0.conv | 16 | 8 |\n"
    assert calls == [
        ("client.log_metric", "12", "before/F1_conf_.25", 0.9),
        ("client.log_metric", "12", "after/F1_conf_.25", 0.8),
        ("client.log_text", "12", table, "pruning/widths.md"),
        ("client.log_artifact", "12", str(told.pictures[0]), "pruning/report"),
        ("client.log_artifact", "12", str(told.files[0]), "pruning"),
    ]
    mlflow.active = SimpleNamespace(info=SimpleNamespace(run_id="mine"))
    assert LOGGERS["mlflow"].log(there(told, "12")) == "mine"


def test_mlflow_without_a_training_has_a_run_of_its_own(
    told: Told, calls: list[tuple[Any, ...]], mlflow: SimpleNamespace
) -> None:
    assert LOGGERS["mlflow"].log(told) == "the one called yoloprune"
    assert calls[-1] == ("client.set_terminated", "the one called yoloprune")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]) -> ModuleType:
    def init(**given: Any) -> Recorder:
        calls.append(("init", given))
        summary = Recorder(calls, "summary")
        return Recorder(calls, "run", id=given["id"] or "new", summary=summary)

    def artifact(name: str, type: str) -> Recorder:
        return Recorder(calls, f"{type} {name}")

    media = {"Image": lambda path: path, "Table": lambda columns, data: (columns, data), "Artifact": artifact}
    fake(monkeypatch, "wandb", run=None, init=init, **media)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return sys.modules["wandb"]


def test_wandb(told: Told, calls: list[tuple[Any, ...]], wandb: ModuleType) -> None:
    assert LOGGERS["wandb"].log(there(told, "-runs-steps-1/train_7")) == "train_7"
    given = {"project": "-runs-steps-1", "name": None, "id": "train_7", "resume": "allow", "dir": str(told.folder)}
    assert calls[:2] == [("init", given), ("summary.update", {"before/F1_conf_.25": 0.9, "after/F1_conf_.25": 0.8})]
    media = {
        "report/1-after": str(told.pictures[0]),
        "pruning/widths": (["layer", "before", "after"], [["model.0.conv", "16", "8"]]),
    }
    assert calls[2] == ("run.log", media)
    assert calls[3] == ("pruning run_train_7_pruning.add_file", str(told.files[0]))
    assert [call[0] for call in calls[4:]] == ["run.log_artifact", "run.finish"]


def test_wandb_without_a_training_and_in_the_callers_run(
    told: Told, calls: list[tuple[Any, ...]], wandb: ModuleType
) -> None:
    LOGGERS["wandb"].log(told)
    assert calls[0][1].items() >= {"project": "yoloprune", "name": told.folder.name, "id": None}.items()
    calls.clear()
    wandb.run = Recorder(calls, "theirs", id="theirs", summary={})
    assert LOGGERS["wandb"].log(told) == "theirs"
    assert "theirs.log" in [call[0] for call in calls] and "theirs.finish" not in [call[0] for call in calls]
    assert wandb.run.summary["after/F1_conf_.25"] == 0.8


def test_clearml(told: Told, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    task = Recorder(calls, "task", id="7", get_logger=lambda: Recorder(calls, "logger"))
    tasks = SimpleNamespace(current_task=lambda: task, init=lambda **given: task)
    fake(monkeypatch, "clearml", Task=tasks)
    assert LOGGERS["clearml"].log(told) == "7"
    assert calls == [
        ("logger.report_single_value", "before/F1_conf_.25", 0.9),
        ("logger.report_single_value", "after/F1_conf_.25", 0.8),
        ("logger.report_table", "pruning", "widths", 0, told.tables["widths"]),
        ("logger.report_image", "report", "1-after", 0, str(told.pictures[0])),
        ("task.upload_artifact", "plan", str(told.files[0])),
    ]
    tasks.current_task = lambda: None
    LOGGERS["clearml"].log(told)
    assert calls[-1] == ("task.close",)


def test_loggers_are_those_that_are_on_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_ultralytics.loggers() == []  # in a test, as in Ultralytics
    monkeypatch.setattr(of_ultralytics, "TESTS_RUNNING", False)
    for name in ("mlflow", "wandb", "clearml"):
        fake(monkeypatch, name, __spec__=SimpleNamespace(origin=None if name == "wandb" else f"{name}.py"))
    assert ultralytics.utils.SETTINGS.keys() >= {"tensorboard", "mlflow", "wandb", "clearml"}
    monkeypatch.setattr(of_ultralytics, "SETTINGS", {"mlflow": True, "wandb": True, "clearml": False})
    assert of_ultralytics.loggers() == ["mlflow"]  # "wandb" is a folder of W&B's and not the package


def test_where_a_training_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "steps" / "1" / "train"
    for number, name in enumerate(("run-20260101_000000-train_1/run-train_1", "offline-run-1-train_2/run-train_2")):
        file = folder / "wandb" / f"{name}.wandb"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (number, number))
    project, run = of_ultralytics.logged("wandb", folder).split("/")
    assert run == "train_2" and project.endswith("-steps-1")
    assert of_ultralytics.logged("tensorboard", folder) is None
    (folder / "events.out.tfevents.1.a.1.0").touch()
    assert of_ultralytics.logged("tensorboard", folder) == str(folder)
    asked = []
    fake(monkeypatch, "mlflow", search_runs=lambda **given: asked.append(given) or [])
    assert of_ultralytics.logged("mlflow", folder) is None
    assert asked[0]["filter_string"] == f'params.save_dir = "{folder}"'


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    yoloprune.prune(shallow_weights(), **ALONE, target_ratio=0.6, project=folder, name="run")
    return folder / "run"


@pytest.fixture
def unfinished(_finished: Path, tmp_path: Path) -> Path:
    """A run that lacks its end."""
    run = Path(shutil.copytree(_finished, tmp_path / "run"))
    record = Record.load(run / "results.json")
    record.after, record.logged = None, {}
    put(run, "results.json", record.save)
    return run


def test_a_run_is_told_once_and_a_logger_that_fails_is_not_in_its_way(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Told] = []
    broken = [True]

    def works(told: Told) -> str:
        got.append(told)
        return "here"

    def fails(told: Told) -> str:
        if broken:
            raise ConnectionError("no server\n" + 99 * "and more ")
        return "there"

    monkeypatch.setattr(UltralyticsDetector, "loggers", lambda self: ["wandb", "mlflow"])
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", Logger("MLflow", works))
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Logger("W&B", fails))
    report = yoloprune.prune(resume=unfinished).report
    assert report.logged == {"mlflow": "here"} and report.finished
    (said,) = (note for note in report.notes if "W&B" in note)
    assert said.startswith("W&B has not got the run's figures (ConnectionError: no server and more ")
    assert said.endswith(" …); all else is finished, and resuming the run tries again.") and len(said) < 270
    (told,) = got
    assert told.place is None and told.folder == unfinished
    assert told.scalars["before/GFLOPs"] > told.scalars["after/GFLOPs"] > 0
    assert [file.name for file in told.files] == ["plan.json", "results.json", "report.html"]
    assert ["model.0.conv", "16", str(report.widths["model.0.conv"][1])] in told.tables["widths"]
    broken.clear()
    report = yoloprune.prune(resume=unfinished).report
    assert report.logged == {"mlflow": "here", "wandb": "there"}
    assert said not in report.notes
    (unfinished / "pruned.pt").unlink()  # so that its end is done again
    assert yoloprune.prune(resume=unfinished).report.finished
    assert len(got) == 1
    assert json.loads((unfinished / "results.json").read_text())["logged"] == {"mlflow": "here", "wandb": "there"}


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TensorBoard on, as a user has it; Ultralytics does not log in tests."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    callbacks = importlib.import_module("ultralytics.utils.callbacks.tensorboard")
    with monkeypatch.context() as patch:
        patch.setattr(ultralytics.utils, "TESTS_RUNNING", False)
        patch.setattr(of_ultralytics, "TESTS_RUNNING", False)
        patch.setattr(of_ultralytics, "find_spec", lambda name: SimpleNamespace(origin=name == "tensorboard" or None))
        patch.setitem(ultralytics.utils.SETTINGS, "tensorboard", True)
        patch.setattr(reporting, "draw_page", lambda page, folder: {draw(folder / "widths.png").stem: ""})
        patch.setattr(reporting, "write_page", lambda *_: None)
        importlib.reload(callbacks)
        yield
    importlib.reload(callbacks)


@pytest.mark.slow
def test_tensorboard_has_curves_and_the_run(few_digits: Path, tmp_path: Path, tensorboard: None) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = {**ALONE, "imgsz": 64, "epochs": 1, "batch": 16, "device": "cpu", "workers": 0, "plots": False}
    report = yoloprune.prune(
        shallow_weights(), **words, target_ratio=0.9, data=str(few_digits), val=True, project=tmp_path, name="run"
    ).report
    train = tmp_path / "run" / "steps" / "1" / "train"
    assert report.logged == {"tensorboard": str(train)}
    events = EventAccumulator(str(train), size_guidance={"images": 0}).Reload()

    def value(tag: str) -> float:
        (event,) = events.Scalars(tag)
        return event.value

    assert events.Scalars("metrics/mAP50-95(B)") and events.Scalars("train/box_loss")
    assert value("before/GFLOPs") == pytest.approx(report.before.gflops)
    assert value("after/parameters") == report.after.params
    assert value("pruned/mAP50-95") == pytest.approx(report.steps[0].before["mAP50-95"])
    assert value("after/F1_conf_.25") == pytest.approx(report.after.metrics["F1 (conf .25)"])
    (image,) = events.Images("report/widths")
    pixels = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (8, 12, 3) and [*pixels[0, 0]] == [0, 0, 255]  # red, in OpenCV's order
    (text,) = events.Tensors("pruning/widths/text_summary")
    before, after = report.widths["model.2.cv2.conv"]
    assert f"| model.2.cv2.conv | {before} | {after} |" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_without_a_training_is_in_the_runs_folder(unfinished: Path, tensorboard: None) -> None:
    assert yoloprune.prune(resume=unfinished).report.logged == {"tensorboard": str(unfinished)}
    (file,) = unfinished.glob("events.out.tfevents.*")
    assert file.name in json.loads((unfinished / "state.json").read_text())["files"]  # with --exist-ok it goes
