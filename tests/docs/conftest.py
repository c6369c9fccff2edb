"""A small detector and small data for the pages and examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from tests.small_yolo import enliven
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a YOLOv8 of a quarter of n's widths and 10 classes, whose layers are soon solved."""
    torch.manual_seed(0)
    with quiet():
        yolo = YOLO("yolov8n.yaml")
        scales = {"n": [0.33, 0.0625, 1024]}
        yolo.model = DetectionModel({**yolo.model.yaml, "scales": scales, "scale": "n", "nc": 10}, verbose=False)
        enliven(yolo.model)
        yolo.save(path := tmp_path_factory.mktemp("small") / "best.pt")
    return path


@pytest.fixture
def own_folder(tmp_path: Path, few_digits: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images and labels in YOLO format with data.yaml and best.pt, as the current folder."""
    for split, count in (("train", 8), ("val", 4)):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            (tmp_path / kind / split).mkdir(parents=True)
            for file in sorted((few_digits.parent / kind / split).glob(f"*.{suffix}"))[:count]:
                shutil.copy(file, tmp_path / kind / split)
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    shutil.copy(small_weights, tmp_path / "best.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    return tmp_path
