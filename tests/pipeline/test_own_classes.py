"""Weights of other classes than the data's: trained on them first, pruned and fine-tuned in one run."""

from __future__ import annotations

import pytest

import yoloprune
from tests import small_yolo
from tests.small_yolo import equal, put, shallow_weights, write_data
from yoloprune import detectors
from yoloprune.demo.digits import WEIGHTS
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.stock_training import is_marked
from yoloprune.errors import UserError
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.own_classes import fit_classes
from yoloprune.report import Record

SMALL = {
    "imgsz": 64,
    "batch": 4,
    "calibration_images": 4,
    "device": "cpu",
    "target_ratio": 0.8,
    "criterion": "l2",
    "recover": False,
}
TRAIN = {key: small_yolo.SHORT[key] for key in ("workers", "plots", "amp", "mosaic")}


def test_one_run_trains_prunes_and_fine_tunes(tmp_path) -> None:
    data = write_data(tmp_path / "cells", ["red", "white", "platelet"])
    where = {"project": tmp_path / "runs", "name": "a", "val": True, "epochs": 1}
    result = yoloprune.prune(shallow_weights(), data=data, train_epochs=1, **where, **SMALL, **TRAIN)
    assert result.model.names == {0: "red", 1: "white", 2: "platelet"}
    assert result.model.model.model[-1].nc == 3
    (row,) = result.report.trainings
    assert (row.name, row.epochs) == ("training", 1)
    assert 0.98 * 0.8 <= result.metrics["after"]["gflops"] / result.metrics["before"]["gflops"] <= 0.8
    trained = checkpoints.load(tmp_path / "runs" / "a" / "steps" / "trained.pt")
    assert not is_marked(trained.model)
    assert trained.names == result.model.names
    # as a kill right after pruning leaves it: nothing is trained again
    run = tmp_path / "runs" / "a"
    record = Record.load(run / "results.json")
    record.after, record.steps = None, []
    put(run, "results.json", record.save)
    again = yoloprune.prune(resume=run)
    assert again.report.trainings == result.report.trainings
    assert again.plan.keep == result.plan.keep


def test_without_epochs_the_run_says_what_to_type(tmp_path) -> None:
    data = write_data(tmp_path / "cells", ["red", "white", "platelet"])
    with pytest.raises(UserError, match=r"has 3 classes and the weights 10.*train_epochs=50"):
        yoloprune.prune(shallow_weights(), data=data, project=tmp_path / "runs", **SMALL)
    assert not (tmp_path / "runs").exists()


def test_other_names_for_as_many_classes_are_noted(tmp_path) -> None:
    yolo = checkpoints.load(shallow_weights())
    yolo.model.names = {i: f"thing {i}" for i in range(10)}
    data = write_data(tmp_path / "others", [f"object {i}" for i in range(10)])
    result = yoloprune.prune(yolo, data=data, **SMALL)
    assert any("no name in common" in note for note in result.report.notes)
    assert equal(yolo.model, checkpoints.load(shallow_weights()).model)


@pytest.mark.parametrize("names", [["a", "b"], {0: "a", 1: "b"}])
def test_names_may_be_a_list_or_too_few(pruned_yolo, names) -> None:
    """Checkpoints of older versions have lists; where not every class has a name, all have numbers."""
    pruned_yolo.model.names = names
    assert UltralyticsDetector(pruned_yolo).names == {i: str(i) for i in range(80)}
    pruned_yolo.model.names = [f"class {i}" for i in range(80)]
    assert UltralyticsDetector(pruned_yolo).names[79] == "class 79"


def test_a_folder_named_as_the_embedded_set_is_not_taken_for_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "args.yaml").write_text("train: {lr0: 1}\n")  # as a run of that name leaves it
    detector = detectors.load(WEIGHTS)
    assert fit_classes(detector, Options(data="digits", target_ratio=0.5)) == (detector, None)
