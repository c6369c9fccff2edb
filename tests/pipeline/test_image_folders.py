"""Images without labels serve to rank, to recover and to fine-tune by distillation; a data set is not needed."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import yoloprune
from tests.small_yolo import equal, shallow_weights, write_data
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches, split_sizes
from yoloprune.detectors.ultralytics.datasets import check_data
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.errors import UserError
from yoloprune.pipeline.images import on_disk

CPU = torch.device("cpu")
FAST: dict[str, Any] = {
    "target_ratio": 0.8,
    "imgsz": 64,
    "calibration_images": 8,
    "device": "cpu",
    "max_pruning_ratio": 0.8,
}
TRAIN: dict[str, Any] = {
    "criterion": "l2", "recover": False, "epochs": 1, "batch": 4, "plots": False, "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(all_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a dozen images of it, in a folder of its own each, and nothing else."""
    folder = tmp_path_factory.mktemp("images")
    for image in sorted((all_digits.parent / "images" / "train").iterdir())[:12]:
        shutil.copy(image, folder)
    return folder


@pytest.fixture(scope="module")
def pruned(images: Path) -> yoloprune.pipeline.api.PruneResult:
    """The embedded detector, pruned and recovered by the folder."""
    return yoloprune.prune(digits.WEIGHTS, data=images, **FAST)


def test_a_folder_of_images_ranks_and_recovers(pruned, images: Path, all_digits: Path) -> None:
    assert validate(pruned.model, all_digits, imgsz=160, device="cpu").map > 0.7  # 0 without images
    assert pruned.report.data == str(images)
    assert sorted({path.suffix for path in images.rglob("*")}) == [".png"]


def test_a_list_of_images_is_the_same_as_their_folder(pruned, images: Path) -> None:
    files = sorted(images.iterdir())
    result = yoloprune.prune(digits.WEIGHTS, data=[cv2.imread(str(file)) for file in files], **FAST)
    assert equal(result.model.model, pruned.model.model)
    assert result.save_dir is None
    with on_disk((str(files[0]), cv2.imread(str(files[1])), files[2])) as mixed:
        (batch,) = calibration_batches(result.model, mixed, images=3, imgsz=64, batch=3, device=CPU)
    (same,) = calibration_batches(result.model, str(images), images=12, imgsz=64, batch=12, device=CPU)
    assert {image.sum().item() for image in batch["img"]} == {image.sum().item() for image in same["img"][:3]}
    assert not Path(mixed).exists()


def test_a_text_file_that_lists_images(images: Path, tmp_path: Path) -> None:
    files = sorted(images.iterdir())
    (tmp_path / "list.txt").write_text("".join(f"{file}\n" for file in files))
    yolo = checkpoints.load(digits.WEIGHTS)
    ours, theirs = (
        calibration_batches(yolo, str(data), images=5, imgsz=96, batch=8, device=CPU)
        for data in (tmp_path / "list.txt", images)
    )
    assert torch.equal(ours[0]["img"], theirs[0]["img"])
    assert len(ours[0]["img"]) == 5


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "data is an empty list"),
        ([np.zeros((64, 64, 3))], "Number 0 in data is a ndarray of float64 and shape"),
        ([np.zeros((3, 64, 64), np.uint8)], r"of uint8 and shape \(3, 64, 64\)"),
        ([np.zeros((64, 64, 4), np.uint8)], r"\(64, 64, 4\); give paths, or uint8 arrays of shape \(H, W, 3\) in BGR"),
        ([np.zeros((0, 64, 3), np.uint8)], r"\(0, 64, 3\)"),
        ([np.zeros((4, 4, 3), np.uint8)], "None of the 1 .* can be read"),
        ([7], "Number 0 in data is a int"),
        (["nowhere.png"], "There is no image 'nowhere.png'"),
        ("nowhere", "There is no data YAML or folder of images 'nowhere'"),
    ],
)
def test_images_that_are_none(data: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        yoloprune.prune(digits.WEIGHTS, data=data, **FAST)


@pytest.mark.parametrize(
    ("content", "sentence"), [({}, "holds no image"), ({"a.jpg": "no image"}, r"None of the 1 .*can be read; mend")]
)
def test_folders_without_images(tmp_path: Path, content: dict[str, str], sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    for name, text in content.items():
        (tmp_path / "folder" / name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        yoloprune.prune(digits.WEIGHTS, data=tmp_path / "folder", project=tmp_path, name="run", **FAST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [{"val": True}, {"val": True, "epochs": 1}])
def test_validation_needs_labels(images: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"images alone and validation needs labels; give a data YAML, or leave .*--no-"
    ):
        yoloprune.prune(digits.WEIGHTS, data=images, project=tmp_path, name="run", **FAST, **more)
    with pytest.raises(UserError, match="validation needs labels"):
        validate(checkpoints.load(digits.WEIGHTS), images, imgsz=96, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [{"epochs": 1, "distill": False}, {"sparse_epochs": 1}, {"criterion": "taylor"}])
def test_what_needs_labels_says_so_before_any_work(images: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"None of the 12 'train' images of .* has labels"):
        yoloprune.prune(digits.WEIGHTS, data=images, project=tmp_path, name="run", **FAST, **more)
    assert not (tmp_path / "run").exists()


def test_images_alone_fine_tune_by_distillation(images: Path, tmp_path: Path) -> None:
    arrays = [cv2.imread(str(file)) for file in sorted(images.iterdir())]
    where = {"project": tmp_path, "name": "run"}
    result = yoloprune.prune(shallow_weights(), data=arrays, **where, **FAST, **TRAIN | {"epochs": 2})
    folder = tmp_path / "run" / "steps" / "1" / "train"
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [float(row["train/out_loss"]) > 0 for row in rows] == [True, True]
    assert (result.report.steps[0].epochs, result.report.steps[0].metrics) == (2, {})
    assert any("holds images alone" in note and "last epoch is taken" in note for note in result.report.notes)
    last = torch.load(folder / "weights" / "last.pt", weights_only=False)["model"]
    assert equal(last, torch.load(folder / "weights" / "best.pt", weights_only=False)["model"])
    kept = Path(yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())["data"])
    assert len(split_images := kept.read_text().splitlines()) == 12
    assert all((kept.parent / line).is_file() for line in split_images)
    assert kept.is_relative_to(tmp_path / "run")


def test_a_run_with_images_in_memory_is_resumed(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yoloprune.pipeline import steps

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    arrays = [cv2.imread(str(file)) for file in sorted(images.iterdir())]
    with monkeypatch.context() as patch:
        patch.setattr(steps, "fine_tune", killed)
        with pytest.raises(KeyboardInterrupt):
            yoloprune.prune(shallow_weights(), data=arrays, project=tmp_path, name="run", **FAST, **TRAIN)
    assert yoloprune.prune(resume=tmp_path / "run").report.steps[0].epochs == 1


def test_missing_validation_images_leave_validation_out(all_digits: Path, images: Path, tmp_path: Path) -> None:
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    data = tmp_path / "data.yaml"
    data.write_text(f"train: {images}\nval: gone\nnames:\n{names}")
    result = yoloprune.prune(shallow_weights(), data=data, project=tmp_path, name="run", **FAST, **TRAIN)
    assert any("gone', which do not exist" in note for note in result.report.notes)
    assert result.report.steps[0].metrics == {}
    assert split_sizes(checkpoints.load(digits.WEIGHTS), str(data)) == (12, 0)


def test_images_alone_are_given_to_the_trainer(pruned, images: Path, all_digits: Path, tmp_path: Path) -> None:
    """With labels beside them they are trained on; a new network finds no classes in them."""
    labelled = all_digits.parent / "images" / "val"
    keywords = {"imgsz": 64, "batch": 16, "epochs": 1, "device": "cpu", "plots": False, "val": False, "verbose": False}
    yolo = YOLO(digits.WEIGHTS)
    with pytest.raises(UserError, match="validation needs labels"):
        yolo.train(data=str(labelled), project=str(tmp_path), **keywords | {"val": True})
    with pytest.raises(UserError, match="has labels"):
        yolo.train(data=str(images), project=str(tmp_path), **keywords)
    yolo.train(data=str(labelled), project=str(tmp_path), **keywords)
    assert yolo.model.names[7] == "7"
    with pytest.raises(UserError, match="names no classes, which a new network needs"):
        YOLO("yolov8n.yaml").train(data=str(labelled), project=str(tmp_path), **keywords)


def test_a_folder_with_one_yaml_is_that_data_set(tmp_path: Path) -> None:
    data = write_data(tmp_path / "two", ["dark", "bright"])
    assert check_data(data.parent, "detect")["yaml_file"] == str(data)
    (data.parent / "below").mkdir()
    (data.parent / "below" / "more.yaml").write_text("")  # in a folder below only one counts that has none above
    assert check_data(data.parent, "detect")["yaml_file"] == str(data)
    shutil.copy(data, data.with_name("b.yml"))
    with pytest.raises(UserError, match=r"has 2 YAML files in it, such as .*b\.yml' and .*data\.yaml'; give the one"):
        check_data(data.parent, "detect")
    shutil.copy(data, data.with_name("two.yaml"))
    assert check_data(data.parent, "detect")["yaml_file"] == str(data.with_name("two.yaml"))


def test_images_of_one_kind_of_network(images: Path, tmp_path: Path) -> None:
    """Keypoints, like classes, are the network's."""
    yolo = YOLO("yolov8n-pose.yaml")
    checked = check_data(images, "pose", split="train", labels=False, network=yolo.model)
    assert (checked["kpt_shape"], checked["nc"], len(checked["names"])) == ([17, 3], 1, 1)
    assert len(calibration_batches(yolo, str(images), images=3, imgsz=64, batch=2, device=CPU)) == 2
    with pytest.raises(UserError, match="has no subfolder 'train'; classification needs one per split"):
        check_data(images, "classify", split="train")
    with pytest.raises(UserError, match="is one image; give the folder"):
        check_data(next(images.iterdir()), "detect")
