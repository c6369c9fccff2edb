"""What every test shares: an isolated Ultralytics, fixed seeds and the paths of the data that is not in the repository.

Ultralytics reads its environment when it is imported, so it is set here, before any test module is.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_CONFIG = Path(tempfile.mkdtemp(prefix="yoloprune-tests-"))
atexit.register(shutil.rmtree, _CONFIG, ignore_errors=True)
os.environ.update(
    YOLO_CONFIG_DIR=str(_CONFIG),  # settings of the user's own Ultralytics are neither read nor written
    YOLO_OFFLINE="1",
    YOLO_AUTOINSTALL="false",
    MPLBACKEND="Agg",
)
import numpy as np  # noqa: E402  (the environment comes first)
import pytest  # noqa: E402
import torch  # noqa: E402

SHARED = Path(os.environ.get("YOLOPRUNE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (Ultralytics draws from the legacy generator)
    torch.manual_seed(0)


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} not found in {SHARED}; set YOLOPRUNE_SHARED to the folder that has it")
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and weights; the test is skipped where there is none."""
    return _shared()


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Data YAML of 288 + 128 COCO images with COCO-format annotations for the val split."""
    return _shared("data", "coco-mini", "coco-mini.yaml")


@pytest.fixture(scope="session")
def bccd() -> Path:
    """Data YAML of the blood cell images, 3 classes."""
    return _shared("data", "bccd", "bccd.yaml")


@pytest.fixture(scope="session")
def coco_weights() -> Path:
    """Checkpoint of a COCO YOLOv8n."""
    path = _shared("weights", "yolov8n-coco-rebuilt.pt")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = path.name
    if damaged:
        pytest.skip(f"{path} is damaged ({damaged}); copy it again")
    return path
