"""Data sets are checked before any work, and figures come from Ultralytics and pycocotools."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics

from tests.small_yolo import write_data
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches
from yoloprune.detectors.ultralytics.coco import coco_map, find_annotations
from yoloprune.detectors.ultralytics.datasets import check_data
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.errors import UserError


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The data YAML of a data set with two classes."""
    return write_data(tmp_path / "two", ["dark", "bright"])


def coco_json(path: Path, categories: dict[int, str], images: dict[int, str], boxes: list[tuple[Any, ...]]) -> Path:
    """Write COCO annotations; a box is (image id, category id, x, y, w, h)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in images.items()],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0}
            for n, (i, c, *xywh) in enumerate(boxes, 1)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_good_data(two: Path) -> None:
    checked = check_data(two, "detect", nc=2)
    assert checked["nc"] == 2
    assert checked["names"] == {0: "dark", 1: "bright"}
    assert Path(checked["val"]) == two.parent / "images" / "val"


def test_good_classification_data(tmp_path: Path) -> None:
    root = write_data(tmp_path / "cls", ["dark", "bright"], task="classify")
    assert check_data(root, "classify")["nc"] == 2


def test_lists_of_images(two: Path) -> None:
    images = sorted((two.parent / "images" / "val").iterdir())
    (two.parent / "val.txt").write_text("".join(f"./images/val/{image.name}\n" for image in images))
    two.write_text(two.read_text().replace("images/val", "val.txt"))
    assert check_data(two, "detect")["val"] == str(two.parent / "val.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a data YAML"),
        ("- a\n- b\n", "not a data YAML"),
        ("train: [unclosed", "is not valid YAML"),
        ("train: images/train\nval: images/val\n", "names.*nc"),
        ("train: images/train\nnames: [a]\n", "no 'val:' entry"),
        ("train: images/train\nval: images/nowhere\nnames: [a]\n", "nowhere.* which do not exist"),
        ("train: images/train\nval: empty\nnames: [a]\n", "holds no image"),
        ("train: images/train\nval: bare\nnames: [a]\n", "has labels"),
        ("train: images/train\nval: images/val\nnames: [a, b]\nnc: 3\n", "must match"),
        ("train: images/train\nval: images/val\nnames: {0: a, 5: b}\n", "class indices"),
    ],
)
def test_broken_yamls(two: Path, content: str, message: str) -> None:
    (two.parent / "empty").mkdir()
    shutil.copytree(two.parent / "images" / "val", two.parent / "bare")
    two.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        check_data(two, "detect")
    assert str(two) in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_of_lists_are_resolved_as_ultralytics_does(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (two.parent / "val.txt").write_text("two/images/val/0.png\n")
    two.write_text(two.read_text().replace("images/val", "val.txt"))
    with pytest.raises(UserError, match=r"holds no image; lines that begin with \./ are relative to the list"):
        check_data(two, "detect")
    monkeypatch.chdir(two.parents[1])
    check_data(two, "detect")


def test_images_that_cannot_be_used(two: Path, tmp_path: Path) -> None:
    images = sorted((two.parent / "images" / "val").iterdir())
    (two.parent / "labels" / "val" / "0.txt").write_text("7 .5 .5 .1 .1\n")  # no such class
    for image in images[1:]:
        image.write_text("no image")
    with pytest.raises(UserError, match=r"None of the 4 'val' images of .* can be read together with its labels"):
        check_data(two, "detect")
    root = write_data(tmp_path / "cls", ["dark", "bright"], task="classify")
    for image in (root / "val").rglob("*.png"):
        image.write_text("no image")
    with pytest.raises(UserError, match=r"None of the 4 images in .* can be read"):
        check_data(root, "classify")


def test_channels_and_keypoints_must_fit(pruned_yolo: YOLO, two: Path, tmp_path: Path) -> None:
    two.write_text(f"{two.read_text()}channels: 1\n")
    with pytest.raises(UserError, match="has images of 1 channels and the model takes 3"):
        check_data(two, "detect", network=pruned_yolo.model)
    with pytest.raises(UserError, match="has kpt_shape None; give data with keypoints"):
        check_data(two, "pose")
    with quiet():
        pose = YOLO("yolov8n-pose.yaml")
    data = write_data(tmp_path / "pose", ["person"], task="pose")
    check_data(data, "pose", network=pose.model)
    pose.model.model[-1].kpt_shape = (4, 2)
    with pytest.raises(UserError, match=r"has kpt_shape \[17, 3\] and the model \[4, 2\]"):
        check_data(data, "pose", network=pose.model)


@pytest.mark.parametrize("task", ["segment", "obb"])
def test_boxes_where_polygons_are_needed(two: Path, tmp_path: Path, task: str) -> None:
    with pytest.raises(UserError, match=f"has boxes, but the task '{task}' needs polygons"):
        check_data(two, task)
    data = write_data(tmp_path / "polygons", [str(i) for i in range(80)], task=task)
    check_data(data, task)
    for split in ("train", "val"):  # what is seen only when all labels are read
        labels = sorted((data.parent / "labels" / split).iterdir())
        for label in labels[1:]:
            label.write_text("0 .5 .5 .5 .5\n")
        images = sorted((data.parent / "images" / split).iterdir())
        (data.parent / f"{split}.txt").write_text("".join(f"./images/{split}/{image.name}\n" for image in images))
    data.write_text(data.read_text().replace("images/train", "train.txt").replace("images/val", "val.txt"))
    with quiet():
        yolo = YOLO(f"yolov8n-{'seg' if task == 'segment' else task}.yaml")
    with pytest.raises(UserError, match=r"cannot be used: .* equal numbers of boxes and segments"):
        validate(yolo, data, imgsz=64, device="cpu")
    with pytest.raises(UserError, match=r"cannot be used: .* equal numbers of boxes and segments"):
        calibration_batches(yolo, str(data), images=4, imgsz=64, batch=2, device=torch.device("cpu"))


def test_missing_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module, name in (("downloads", "safe_download"), ("checks", "check_requirements")):
        monkeypatch.setattr(getattr(ultralytics.utils, module), name, pytest.fail)
    monkeypatch.setattr(ultralytics.data.utils, "safe_download", pytest.fail)
    monkeypatch.setattr(ultralytics.data.utils, "DATASETS_DIR", tmp_path / "datasets")
    for data in ("nowhere.yaml", tmp_path / "nowhere.yaml", "https://example.org/coco.yaml", "nowhere"):
        with pytest.raises(UserError, match="There is no data YAML"):
            check_data(data, "detect")
    with pytest.raises(UserError, match="holds no image"):
        check_data(tmp_path, "detect")
    with pytest.raises(UserError, match="which do not exist"):
        check_data("coco8.yaml", "detect")  # ships with Ultralytics, its images do not
    with pytest.raises(UserError, match="There is no folder"):
        check_data(tmp_path / "nowhere", "classify")
    with pytest.raises(UserError, match=r"has no subfolder '(train|val)'"):
        check_data(tmp_path, "classify")
    assert not (tmp_path / "datasets").exists()


def test_classes_of_model_and_data_must_match(pruned_yolo: YOLO, two: Path) -> None:
    with pytest.raises(UserError, match="has 2 classes and the model 80"):
        validate(pruned_yolo, two, imgsz=64, device="cpu")


def test_unknown_and_bad_options(pruned_yolo: YOLO, tiny_data: Path) -> None:
    with pytest.raises(UserError, match="'konf' is not an option of Ultralytics; did you mean 'conf'"):
        validate(pruned_yolo, tiny_data, konf=0.1)
    with pytest.raises(UserError, match="conf"):
        validate(pruned_yolo, tiny_data, conf="much")


def test_figures_at_a_confidence_that_is_cut_off_are_left_out(few_digits: Path) -> None:
    yolo = checkpoints.load(digits.WEIGHTS)
    at = {conf: validate(yolo, few_digits, imgsz=96, device="cpu", conf=conf) for conf in (0.1, 0.6)}
    assert at[0.1].precision > 0 and at[0.1].f1 > 0
    assert (at[0.6].precision, at[0.6].recall, at[0.6].f1) == (None, None, None)
    assert at[0.6].map > 0


def test_validation_is_quiet_and_leaves_nothing_behind(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {name: tensor.clone() for name, tensor in pruned_yolo.model.state_dict().items()}
    listed = sorted(tmp_path.iterdir())
    metrics = validate(pruned_yolo, tiny_data, imgsz=64, batch=2, device="cpu")
    assert metrics.images == 4
    assert metrics.seconds > 0
    assert 0 <= metrics.map <= metrics.map50 <= 1
    assert (metrics.coco_map, metrics.coco_map50) == (None, None)
    assert capfd.readouterr() == ("", "")
    assert sorted(tmp_path.iterdir()) == listed
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruned_yolo.model.state_dict().items())


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_other_tasks(task: str, tmp_path: Path) -> None:
    suffix = {"segment": "seg", "classify": "cls"}.get(task, task)
    with quiet():
        yolo = YOLO(f"yolov8n-{suffix}.yaml")
    yolo.model = yolo.task_map[task]["model"](dict(yolo.model.yaml), nc=2, verbose=False)
    yolo.model.args, yolo.model.task = {"task": task}, task
    yolo.model.names = {0: "bright", 1: "dark"}
    metrics = validate(yolo, write_data(tmp_path / "data", ["bright", "dark"], task=task), imgsz=64, device="cpu")
    assert metrics.images == 4
    assert 0 <= metrics.map <= metrics.map50 <= 1
    assert metrics.coco_map is None


def test_a_data_folder_that_cannot_be_written(pruned_yolo: YOLO, tiny_data: Path) -> None:
    folders = [folder for folder, _, _ in os.walk(tiny_data.parent)]
    for folder in folders:
        Path(folder).chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        metrics = validate(pruned_yolo, tiny_data, imgsz=64, batch=2, device="cpu")
    finally:
        for folder in folders:
            Path(folder).chmod(stat.S_IRWXU)
    assert metrics.images == 4
    assert not list(tiny_data.parent.rglob("*.cache"))


def test_where_annotations_are_looked_for(two: Path) -> None:
    root = two.parent
    assert find_annotations(check_data(two, "detect")) is None
    found = coco_json(root / "annotations" / "instances_val.json", {1: "dark"}, {}, [])
    assert find_annotations(check_data(two, "detect")) == found
    named = coco_json(root / "mine.json", {1: "dark"}, {}, [])
    two.write_text(two.read_text() + "annotations: mine.json\n")
    assert find_annotations(check_data(two, "detect")) == named
    two.write_text(two.read_text() + "val_annotations: gone.json\n")
    with pytest.raises(UserError, match=r"gone\.json"):
        find_annotations(check_data(two, "detect"))


def test_coco_map_by_hand(tmp_path: Path) -> None:
    """Two images, one box each, categories by name and images by file name; one box is found, one is not."""
    images = {7: "a.png", 9: "b.png"}
    boxes = [(7, 3, 10, 10, 20, 20), (9, 3, 10, 10, 20, 20)]
    truth = coco_json(tmp_path / "truth.json", {3: "Dark", 4: "bright"}, images, boxes)
    found = {"file_name": "a.png", "category_id": 0, "bbox": [10, 10, 20, 20], "score": 0.9}
    names = {0: "dark", 1: "bright"}
    both = [found, {**found, "file_name": "b.png"}]
    assert coco_map(truth, both, ["x/a.png", "x/b.png"], names) == pytest.approx((1.0, 1.0))
    # recall 1/2 at precision 1: 51 of COCO's 101 recall points
    assert coco_map(truth, [found], ["a.png", "b.png"], names) == pytest.approx((51 / 101, 51 / 101))
    assert coco_map(truth, [found], ["a.png"], names) == pytest.approx((1.0, 1.0)), "only evaluated images count"
    assert coco_map(truth, [{**found, "category_id": 1}], ["a.png"], names) == pytest.approx((0.0, 0.0))
    # IoU 16/20 = .8 : seven of the ten thresholds .50, .55 … .95
    near = {**found, "bbox": [10, 10, 20, 16.001]}
    assert coco_map(truth, [near], ["a.png"], names) == pytest.approx((0.7, 1.0))
    assert coco_map(truth, [], ["a.png"], names) == (0.0, 0.0)


def test_coco_ids_of_80_classes(tmp_path: Path) -> None:
    ids = ultralytics.data.converter.coco80_to_coco91_class()
    categories = {i: f"another name {i}" for i in ids}
    truth = coco_json(tmp_path / "t.json", categories, {139: "whatever.jpg"}, [(139, 90, 10, 10, 20, 20)])
    detection = {"file_name": "000000000139.jpg", "category_id": 79, "bbox": [10, 10, 20, 20], "score": 0.9}
    names = {i: f"name {i}" for i in range(80)}
    assert coco_map(truth, [detection], ["000000000139.jpg"], names) == pytest.approx((1.0, 1.0))


def test_annotations_that_do_not_fit(tmp_path: Path) -> None:
    truth = coco_json(tmp_path / "t.json", {3: "dark"}, {7: "a.png"}, [])
    with pytest.raises(UserError, match="class 'bright' is not among"):
        coco_map(truth, [], ["a.png"], {0: "dark", 1: "bright"})
    with pytest.raises(UserError, match=r"image 'b\.png' is not in"):
        coco_map(truth, [], ["b.png"], {0: "dark"})
    truth.write_text("{broken")
    with pytest.raises(UserError, match="not a COCO annotation file"):
        coco_map(truth, [], ["a.png"], {0: "dark"})


def test_coco_mini_reproduces_the_known_figures(coco_mini: Path, coco_weights: Path, tmp_path: Path) -> None:
    """.335 / .465 at 320 px is what stock Ultralytics measures; pycocotools counts a little differently."""
    for part in ("images/val2017", "labels/val2017", "annotations"):
        shutil.copytree(coco_mini.parent / part, tmp_path / part)  # Ultralytics writes a cache there
    shutil.copy(coco_mini, tmp_path)
    metrics = validate(checkpoints.load(coco_weights), tmp_path / coco_mini.name, imgsz=320, device="cpu")
    assert metrics.images == 128
    assert metrics.map == pytest.approx(0.335, abs=0.002)
    assert metrics.map50 == pytest.approx(0.465, abs=0.002)
    assert metrics.coco_map == pytest.approx(metrics.map, abs=0.01)
    assert metrics.coco_map50 == pytest.approx(metrics.map50, abs=0.01)
