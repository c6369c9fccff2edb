"""The embedded digits: what is kept, what `write` composes from it, and what the embedded checkpoint is."""

from __future__ import annotations

import pickletools
import re
import zipfile
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from yoloprune.demo import digits
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The data YAML of one written set."""
    return digits.write(tmp_path_factory.mktemp("digits"))


def _boxes(data: Path, split: str) -> dict[str, np.ndarray]:
    """Stem -> float (n, 5): class, left, top, right, bottom in px."""
    boxes = {}
    for path in (data.parent / "labels" / split).glob("*.txt"):
        rows = np.loadtxt(path, ndmin=2)
        centre, size = rows[:, 1:3] * 160, rows[:, 3:5] * 160
        boxes[path.stem] = np.hstack([rows[:, :1], centre - size / 2, centre + size / 2])
    return boxes


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_kept_digits_are_scikit_learns():
    original = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(digits._IMAGES) as kept:
        np.testing.assert_array_equal(kept["images"], original.images)
        np.testing.assert_array_equal(kept["labels"], original.target)


def test_written_twice_the_files_are_the_same(data, tmp_path):
    digits.write(tmp_path)
    assert _hashes(tmp_path) == _hashes(data.parent)
    assert len(_hashes(tmp_path)) == 2 * (512 + 128) + 2  # images and labels, the YAML and the annotations


def test_no_digit_is_in_both_splits():
    with np.load(digits._IMAGES) as kept:
        images, labels = kept["images"], kept["labels"]
    train, val = digits._split(labels)
    assert sorted([*train, *val]) == list(range(1797))
    assert not {images[i].tobytes() for i in train} & {images[i].tobytes() for i in val}
    np.testing.assert_allclose(np.bincount(labels[val]) / np.bincount(labels), 0.2, atol=0.003)


def test_ultralytics_finds_the_images_wherever_the_folder_is(data):
    from ultralytics.data.utils import check_det_dataset

    checked = check_det_dataset(str(data), autodownload=False)
    assert checked["names"] == {digit: str(digit) for digit in range(10)}
    for split, count in (("train", 512), ("val", 128)):
        assert Path(checked[split]) == data.parent / "images" / split
        assert len(list(Path(checked[split]).glob("*.png"))) == count
    assert "path" not in yaml.safe_load(data.read_text())


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_lie_inside_apart_and_at_many_scales(data, split):
    heights = []
    for boxes in _boxes(data, split).values():
        assert (boxes[:, 1:] > -1e-3).all() and (boxes[:, 1:] < 160 + 1e-3).all()
        for index, (_, *first) in enumerate(boxes):
            for _, *second in boxes[index + 1 :]:
                gaps = np.maximum(np.subtract(first[:2], second[2:]), np.subtract(second[:2], first[2:]))
                assert gaps.max() > 2 - 1e-3
        heights += list(boxes[:, 4] - boxes[:, 2])
    assert np.quantile(heights, 0.1) < 26 and np.quantile(heights, 0.9) > 65
    assert min(heights) > 15 and max(heights) < 95


def test_boxes_are_tight(data):
    """Ink reaches each side of its box and ends there: rows beside a side differ across it, more than outside."""
    inside, outside = [], []
    for stem, boxes in _boxes(data, "val").items():
        grey = cv2.imread(str(data.parent / "images" / "val" / f"{stem}.png")).mean(2)
        for _, *box in boxes:
            left, top, right, bottom = np.rint(box).astype(int)
            if min(left, top) < 3 or max(right, bottom) > 157:
                continue
            patch = grey[top - 3 : bottom + 3, left - 3 : right + 3]
            paper = np.median(np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]]))
            ink = np.abs(patch - paper)
            for turn in range(4):
                side = np.rot90(ink, turn)[:, 3:-3]
                inside.append(side[4].max())
                outside.append(side[1].max())
    assert len(inside) > 1000
    assert np.mean(np.array(inside) > 2 * np.array(outside)) > 0.9


def test_coco_annotations_say_what_the_labels_say(data):
    from pycocotools.coco import COCO

    coco = COCO(str(data.parent / "annotations" / "instances_val.json"))
    boxes = _boxes(data, "val")
    assert {image["file_name"] for image in coco.loadImgs(coco.getImgIds())} == {f"{stem}.png" for stem in boxes}
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        assert image["id"] == int(stem)  # as Ultralytics' save_json numbers predictions
        found = [
            [ann["category_id"] - 1, x, y, x + w, y + h]
            for ann in coco.loadAnns(coco.getAnnIds(image["id"]))
            for x, y, w, h in [ann["bbox"]]
        ]
        np.testing.assert_allclose(found, boxes[stem], atol=1e-3)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [str(digit) for digit in range(10)]


def test_missing_digits_are_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "_IMAGES", tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"gone\.npz"):
        digits.write(tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_weights_load_safely_and_carry_no_paths():
    from ultralytics.nn.tasks import torch_safe_load

    checkpoint, _ = torch_safe_load(digits.WEIGHTS, safe_only=True)
    model = checkpoint["model"]
    assert model.names == {digit: str(digit) for digit in range(10)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert (checkpoint["train_args"]["data"], checkpoint["train_args"]["imgsz"]) == ("digits", 160)
    assert digits.WEIGHTS.stat().st_size < 7e6
    with zipfile.ZipFile(digits.WEIGHTS) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        strings = [value for _, value, _ in pickletools.genops(archive.read(pickled)) if isinstance(value, str)]
    assert len(strings) > 500
    folders = [string for string in strings if re.match(r"/|~|[A-Za-z]:\\", string)]
    assert not folders


def test_the_weights_detect_digits_they_have_not_seen(data):
    metrics = validate(YOLO(digits.WEIGHTS), data, imgsz=160, device="cpu")
    assert metrics.images == 128
    assert metrics.map > 0.80
    assert metrics.coco_map == pytest.approx(metrics.map, abs=0.02)
