"""Fixtures of the YOLO layer's tests."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import ultralytics
from small_yolo import enliven, narrow, write_data

from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO


@pytest.fixture(scope="session")
def _narrow_n() -> YOLO:
    torch.manual_seed(0)
    with quiet():
        yolo = YOLO("yolov8n.yaml")
    narrow(yolo.model)
    enliven(yolo.model)
    return yolo


@pytest.fixture
def pruned_yolo(_narrow_n: YOLO) -> YOLO:
    """A YOLOv8n from its YAML with 10 of 16 inner channels left in one Bottleneck."""
    fresh = YOLO(ultralytics.YOLO("yolov8n.yaml"))
    fresh.model = copy.deepcopy(_narrow_n.model)
    return fresh


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """The data YAML of four 64 px images per split with 80 classes, named as COCO's placeholders are."""
    return write_data(tmp_path / "tiny", [str(i) for i in range(80)])
