"""Small networks and data sets for the tests of the YOLO layer."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import ultralytics
from torch import nn

from yoloprune.yolo.guard import quiet
from yoloprune.yolo.model import YOLO


def narrow(network: nn.Module, index: int = 2) -> None:
    """Keep 5/8 of the inner channels of the first Bottleneck of the block at `index`: an actually pruned network."""
    bottleneck = network.model[index].m[0]
    first, second = bottleneck.cv1, bottleneck.cv2
    keep = first.conv.out_channels * 5 // 8
    first.conv.out_channels = first.bn.num_features = second.conv.in_channels = keep
    first.conv.weight = nn.Parameter(first.conv.weight.detach()[:keep].clone())
    second.conv.weight = nn.Parameter(second.conv.weight.detach()[:, :keep].clone())
    for name in ("weight", "bias"):
        setattr(first.bn, name, nn.Parameter(getattr(first.bn, name).detach()[:keep].clone()))
    for name in ("running_mean", "running_var"):
        setattr(first.bn, name, getattr(first.bn, name)[:keep].clone())


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Every tensor's shape, by name."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="session")
def _narrow_n() -> YOLO:
    torch.manual_seed(0)
    with quiet():
        yolo = YOLO("yolov8n.yaml")
    narrow(yolo.model)
    return yolo


@pytest.fixture
def pruned_yolo(_narrow_n: YOLO) -> YOLO:
    """A YOLOv8n from its YAML with 10 of 16 inner channels left in one Bottleneck."""
    fresh = YOLO(ultralytics.YOLO("yolov8n.yaml"))
    fresh.model = copy.deepcopy(_narrow_n.model)
    return fresh


def write_detection(root: Path, names: list[str], images: int = 4, size: int = 64) -> Path:
    """Write bright rectangles on dark images, one per image and class in turn, and return the data YAML."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(images):
            image = rng.integers(0, 40, (size, size, 3), dtype=np.uint8)
            image[16:48, 12:44] = 80 + 40 * (i % len(names))
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            label = f"{i % len(names)} {28 / size} {32 / size} {32 / size} {32 / size}\n"
            (root / "labels" / split / f"{i}.txt").write_text(label)
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {names}\n")
    return yaml


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """The data YAML of four 64 px images per split with 80 classes, named as COCO's placeholders are."""
    return write_detection(tmp_path / "tiny", [str(i) for i in range(80)])
