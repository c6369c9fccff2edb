"""What the phases of a run say of how far they are."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER

from tests.small_yolo import shallow_weights, write_data
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.pipeline.api import prepare
from yoloprune.pipeline.options import Options
from yoloprune.progress import Progress, counter, current, tracked


class Recorder(Progress):
    """Remembers what it is told, phase by phase."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        self.landmarks: list[str] = []
        self.folder: Path | None = None

    def _enter(self, title: str) -> None:
        self.title = title

    def part(self, what: str, done: float, total: float, detail: str = "") -> None:
        self.parts[self.title].append((what, done, total))

    def passed(self, what: str, found: str = "") -> None:
        self.landmarks.append(f"{what}: {found}")

    def write_to(self, folder: Path, log: Path) -> None:
        self.folder = folder


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Recorder:
    """A small run from beginning to end."""
    root = tmp_path_factory.mktemp("run")
    data = write_data(root / "data", [str(i) for i in range(10)], images=5)
    recorder = Recorder()
    options = Options(
        target_ratio=0.8, data=str(data), imgsz=64, batch=2, device="cpu", epochs=2, val=True, project=str(root),
        calibration_images=5, distill=False, train={"workers": 0, "plots": False, "amp": False, "mosaic": 0.0},
    )  # fmt: skip
    prepare(shallow_weights(), options, progress=recorder).go()
    return recorder


def test_pruning_counts_images_batches_trials_and_layers(told) -> None:
    parts = told.parts[next(title for title in told.parts if title.startswith("Prune to"))]
    kinds = list(dict.fromkeys(what for what, _, _ in parts))
    assert kinds == ["calibration image", "ranking batch", "trial", "layer"]
    last = {what: (done, total) for what, done, total in parts}
    assert last["calibration image"] == (5, 5)
    assert last["ranking batch"] == (3, 3)
    assert last["layer"][0] == last["layer"][1] > 15
    assert 1 < last["trial"][0] < last["trial"][1] == 5  # equal plans are not tried twice


def test_training_counts_batches_within_epochs(told) -> None:
    parts = told.parts["Fine-tune for 2 epochs"]
    epochs = [done for what, done, total in parts if what == "epoch"]
    assert epochs == sorted(epochs)
    assert len(epochs) > 8
    assert 0 < epochs[0] < 0.5
    assert 1.9 < epochs[-1] < 2
    assert [line.partition(":")[0] for line in told.landmarks] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("mAP50-95 0." in line for line in told.landmarks)


def test_validations_count_their_own_images(told) -> None:
    for title in ("Validate the original", "Validate before fine-tuning", "Validate the fine-tuned"):
        parts = told.parts[title]
        assert {what for what, _, _ in parts} == {"validation image"}  # and no epoch of a training that is over
        assert parts[-1][1:] == (5, 5)


def test_nobody_is_told_outside_of_a_phase() -> None:
    recorder = Recorder()
    with recorder.phase("Work"):
        assert current() is recorder
        tell = counter("layer")
        assert list(tracked("ab", "letter", done=1)) == ["a", "b"]
    assert type(current()) is Progress
    tell(3, 4)  # goes to the phase that it was made in
    assert recorder.parts["Work"] == [("letter", 1, 3), ("letter", 2, 3), ("letter", 3, 3), ("layer", 3, 4)]
    counter("layer")(1, 2)  # is silent


def test_quiet_lasts_as_long_as_its_block(caplog) -> None:
    with quiet():
        LOGGER.info("within")  # the logger must not remember that this level is off
    LOGGER.addHandler(caplog.handler)
    try:
        LOGGER.info("after")
        with quiet():
            LOGGER.info("within, too")  # nor that it was on
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert {record.message for record in caplog.records} == {"after"}
