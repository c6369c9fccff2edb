"""What every test shares: an isolated Ultralytics, fixed seeds and the paths of the data that is not in the repository.

Ultralytics reads its environment when it is imported, so it is set here, before any test module is.
"""

from __future__ import annotations

import atexit
import copy
import os
import random
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
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
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # whose threads would wait for each other
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // int(workers), 1))
import numpy as np  # noqa: E402  (the environment comes first)
import pytest  # noqa: E402
import torch  # noqa: E402
import ultralytics  # noqa: E402

from tests.small_yolo import enliven, narrow, write_data, write_few_digits  # noqa: E402
from tests.toy_family import Toy, ToyDetector  # noqa: E402
from yoloprune import detectors  # noqa: E402
from yoloprune.demo import digits  # noqa: E402
from yoloprune.deploy.latency import latencies, module_latencies  # noqa: E402
from yoloprune.detectors.base import Training  # noqa: E402
from yoloprune.detectors.ultralytics.guard import quiet  # noqa: E402
from yoloprune.detectors.ultralytics.model import YOLO  # noqa: E402
from yoloprune.files import atomic  # noqa: E402
from yoloprune.pipeline import reporting  # noqa: E402
from yoloprune.report.page import Page  # noqa: E402

SHARED = Path(os.environ.get("YOLOPRUNE_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no process waits for one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (Ultralytics draws from the legacy generator)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _brief() -> Iterator[None]:
    """Times are measured in the fewest rounds, where nothing else is said."""
    with pytest.MonkeyPatch.context() as patch:
        for measured in (latencies, module_latencies):
            patch.setitem(measured.__kwdefaults__, "seconds", 0.0)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_charts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs write their report without charts, which take seconds, but in tests of reports."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "report":
            patch.setattr(reporting, "draw_page", _draw_nothing)
            patch.setattr(reporting, "module_latencies", lambda detectors, **_: [{} for _ in detectors])
        yield


def _draw_nothing(page: Page, folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    with atomic(folder / "widths.png") as tmp:
        tmp.write_bytes(b"")
    return defaultdict(str)


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


@pytest.fixture(scope="session")
def _trained_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    start = folder / "toy.pt"
    ToyDetector(Toy()).save(start, float32=True)
    asked = Training(data="toy", epochs=8, imgsz=64, batch=16, device="cpu", seed=0, instead="")
    ToyDetector(Toy()).train(start, folder, asked).detector.save(start, float32=True)
    return start


@pytest.fixture
def toy(_trained_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained checkpoint of the toy family, which has its line in the registry."""
    monkeypatch.setattr(detectors, "FAMILIES", ["tests.toy_family:ToyDetector", *detectors.FAMILIES])
    return Path(shutil.copy(_trained_toy, tmp_path / "toy.pt"))


@pytest.fixture(scope="session")
def all_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data YAML of the embedded digits."""
    return digits.write(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data YAML of 32 training and 8 validation canvases of the embedded digits."""
    return write_few_digits(tmp_path_factory.mktemp("digits"), train=32, val=8)
