"""What stands behind Ultralytics' figures, and what its networks find in images."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_yolo import OTHER_TASKS, enliven, write_data
from yoloprune import detectors
from yoloprune.demo.digits import WEIGHTS
from yoloprune.detectors.details import Details, found_again
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.trainers.history import read_history

SETTING = {"imgsz": 96, "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> detectors.Detector:
    return detectors.load(WEIGHTS)


def test_details_agree_with_the_figures(digits, few_digits: Path) -> None:
    found = digits.validate(str(few_digits), **SETTING, details=True)
    behind = found.details
    assert np.mean([ap for ap, _ in behind.classes.values()]) == pytest.approx(found.map, abs=1e-4)
    at = behind.confidence.index(min(behind.confidence, key=lambda c: abs(c - 0.25)))
    assert behind.f1[at] == pytest.approx(found.f1, abs=0.02)
    hits, misses = np.array(behind.right[5:]), np.array(behind.wrong[5:])
    middles = np.arange(5, 20) / 20 + 0.025
    gap = np.abs(middles * (hits + misses) - hits).sum() / (hits + misses).sum()
    assert found.ece == pytest.approx(gap, abs=0.025)  # of half a bin
    shown = sum(behind.right[5:]) + sum(behind.wrong[5:])  # bins of .05
    assert shown == pytest.approx(found.detections, abs=0.01)
    labels = sum(len(path.read_text().splitlines()) for path in _labels(few_digits))
    assert sum(count for _, count in behind.classes.values()) == labels
    assert sum(count for _, count in behind.sizes.values()) == labels
    assert set(behind.sizes) <= {"small", "medium", "large"}
    assert np.mean(behind.samples["map"]) == pytest.approx(found.map, abs=0.1)
    assert 0.005 < np.std(behind.samples["map"]) < 0.3


def test_boxes_that_a_user_sees_are_kept_in_pixels_of_their_images(digits, few_digits: Path) -> None:
    found = digits.validate(str(few_digits), **SETTING, details=True)
    boxes = found.details.boxes
    assert sum(map(len, boxes.values())) / len(boxes) == pytest.approx(found.detections, abs=0.01)
    assert found_again(found.details, found.details) == 1
    looked = {str(look.file): look for look in digits.look([Path(name) for name in boxes], **SETTING)}
    assert looked.keys() == boxes.keys()
    predicted = Details(boxes={n: np.c_[look.classes, look.boxes].tolist() for n, look in looked.items()})
    assert found_again(found.details, predicted) > 0.9  # a validation pads images otherwise
    assert found_again(predicted, found.details) > 0.9


def _labels(data: Path) -> list[Path]:
    images = [data.parent / line for line in (data.parent / "val.txt").read_text().split()]
    return [data.parent / "labels" / "val" / f"{image.stem}.txt" for image in images]


def test_a_network_that_finds_nothing_has_details_too(digits, few_digits: Path) -> None:
    network = copy.deepcopy(digits.network)
    for branch in network.model[-1].cv3:
        torch.nn.init.constant_(branch[-1].bias, -50.0)
    found = digits.holding(network).validate(str(few_digits), **SETTING, details=True)
    assert found.map == 0 and found.detections == 0
    assert sum(found.details.right) == sum(found.details.wrong) == 0
    assert all(average == 0 for average, _ in found.details.sizes.values())


def test_details_are_only_found_when_asked_for(digits, few_digits: Path) -> None:
    assert digits.validate(str(few_digits), **SETTING).details is None


def test_looking_finds_what_is_there_and_leaves_the_network(digits, few_digits: Path) -> None:
    before = copy.deepcopy(digits.network.state_dict())
    files = digits.sample(str(few_digits), 3)
    assert [file.name for file in files] == sorted(file.name for file in files) and len(files) == 3
    looks = list(digits.look(files, **SETTING))
    assert [look.file for look in looks] == files
    assert all(look.image.shape == (160, 160, 3) and look.drawn is None for look in looks)
    assert all(len(look.boxes) == len(look.scores) == len(look.classes) > 0 for look in looks)
    assert all(look.scores.min() >= 0.25 for look in looks)
    after = digits.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_images_alone_are_looked_at_too(digits, few_digits: Path) -> None:
    assert len(digits.sample(str(few_digits.parent / "images" / "train"), 5)) == 5
    assert digits.sample("nowhere.yaml", 5) == []


@pytest.mark.parametrize(("yaml", "task"), OTHER_TASKS)
def test_other_tasks_have_details_and_pictures(yaml: str, task: str, tmp_path: Path) -> None:
    names = ["person"] if task == "pose" else [str(i) for i in range(4)]
    data = str(write_data(tmp_path / "data", names, task=task))
    with quiet():
        yolo = YOLO(yaml)
    if task != "classify":
        enliven(yolo.model)
    detector = UltralyticsDetector.wrap(yolo)
    if len(detector.names) != len(names):
        detector = detector.with_classes(dict(enumerate(names)))
    details = detector.validate(data, imgsz=64, device="cpu", details=True).details
    assert len(details.samples["map"]) >= 20
    assert len(details.classes) == len(names)
    assert bool(details.f1) == (task != "classify")
    assert bool(details.sizes) == (task in ("segment", "pose"))
    looks = list(detector.look(detector.sample(data, 4), imgsz=64, device="cpu", confidence=0.01))
    assert len(looks) == 4 and all(look.image.shape == (64, 64, 3) for look in looks)
    if task == "classify":
        assert all(len(look.scores) == 1 and not len(look.boxes) for look in looks)
    elif task == "obb":
        assert all(look.corners.shape == (len(look.boxes), 4, 2) for look in looks)
    else:
        assert all(look.drawn.shape == look.image.shape for look in looks if len(look.boxes))


def test_the_course_of_a_training(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "                  epoch,      train/box_loss, metrics/mAP50-95(B), val/box_loss, lr/pg0\n"
        "  1, 1.5, 0.2, 1.6, 0.01\n  2, 1.4, 0.3, 1.5, 0.005\n"
    )
    history = read_history(path, "detect")
    assert history == ([1, 2], {"box_loss": [1.5, 1.4]}, [0.2, 0.3], [0.01, 0.005])
    assert read_history(path, "classify").quality == []


@pytest.mark.parametrize("content", [None, "", "epoch\n", "epoch,lr/pg0\none,2\n", "a,b\n1,2\n"])
def test_a_course_that_cannot_be_read_is_left_out(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_text(content)
    assert read_history(path, "detect") is None
