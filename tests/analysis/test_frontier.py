"""Image sizes and shares of pruning side by side, on a detector that is measured in a moment."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import yoloprune
from tests.toy_family import ToyDetector
from yoloprune import detectors
from yoloprune.analysis import frontier as module
from yoloprune.analysis import image_size
from yoloprune.analysis.frontier import Frontier, Wanted, frontier
from yoloprune.deploy import cost_table
from yoloprune.deploy.cost_table import CostTable, Device, measure
from yoloprune.detectors.base import Trained
from yoloprune.errors import UserError
from yoloprune.pipeline import on_device
from yoloprune.pipeline.on_device import OnDevice
from yoloprune.pipeline.options import Options
from yoloprune.report.frontier import draw_frontier, frontier_table, save_frontier

OPTIONS = Options(
    target_ratio=0.5, data="toy", imgsz=128, round_to=1, calibration_images=16, device="cpu", criterion="l2",
    max_pruning_ratio=0.95,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "latencies", partial(module.latencies, seconds=0.1))


def measured(toy: Path, folder: Path, options: Options = OPTIONS, **more: Any) -> Frontier:
    return frontier({str(toy): detectors.load(toy)}, options, folder, **{"sizes": (128, 64), "shares": (0.5,), **more})


def test_sizes_and_shares_are_measured_side_by_side(toy: Path, tmp_path: Path) -> None:
    found = measured(toy, tmp_path / "toys")
    assert {(p.imgsz, p.share) for p in found.points} == {(128, 1.0), (128, 0.5), (64, 1.0), (64, 0.5)}
    own = detectors.load(toy)
    by = {(p.imgsz, p.share): p for p in found.points}
    assert by[128, 1.0].gflops == pytest.approx(own.gflops() * (128 / 640) ** 2)
    assert by[64, 1.0].gflops == pytest.approx(by[128, 1.0].gflops / 4)
    assert 0.4 < by[64, 0.5].gflops / by[64, 1.0].gflops <= 0.5
    assert all(p.latency_ms > 0 and 0 <= p.quality <= 1 for p in found.points)
    assert [p.gflops for p in found.points] == sorted(p.gflops for p in found.points)
    pruned = detectors.load(tmp_path / "toys" / by[64, 0.5].file)
    assert pruned.params == by[64, 0.5].params < own.params
    assert found.best is None and found.command is None


def test_the_front_has_what_no_cheaper_point_reaches(toy: Path, tmp_path: Path) -> None:
    found = measured(toy, tmp_path / "toys", shares=(0.7, 0.4))
    front = found.front()
    for point in found.points:
        better = any(other.gflops <= point.gflops and other.quality > point.quality for other in found.points)
        assert (point in front) <= (not better)
    assert [p.quality for p in front] == sorted({p.quality for p in front})


def test_a_cost_is_met_at_every_size_and_the_best_is_named(toy: Path, tmp_path: Path) -> None:
    found = measured(toy, tmp_path / "toys", wanted=Wanted(ratio=0.3), sizes=(128, 96, 64))
    own = detectors.load(toy).gflops() * (128 / 640) ** 2
    shares = {p.imgsz: p.share for p in found.points if p.share < 1}
    assert shares == {128: pytest.approx(0.3), 96: pytest.approx(0.3 * (128 / 96) ** 2, abs=1e-4)}
    assert found.best.gflops <= 0.3 * own
    cheap = [p for p in found.points if p.gflops <= 0.3 * own]
    assert {p.imgsz for p in cheap} == {128, 96, 64}, "at 64 px nothing need go"
    assert found.best.quality == max(p.quality for p in cheap)
    if found.best.share < 1:
        assert f"--target-ratio {found.best.share:g} --imgsz {found.best.imgsz} --data toy" in found.command
    with pytest.raises(UserError, match=r"No point costs as little as was asked for; the cheapest is toy"):
        measured(toy, tmp_path / "toys", wanted=Wanted(ratio=1e-6))


def test_an_interrupted_frontier_continues(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real, done = tmp_path / "toys", module.prune_once, []

    def stop(*args: Any, **more: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(args)
        return real(*args, **more)

    monkeypatch.setattr(module, "prune_once", stop)
    with pytest.raises(KeyboardInterrupt):
        measured(toy, folder)
    known = json.loads((folder / "frontier.json").read_text())["points"]
    assert len(known) == 3
    monkeypatch.setattr(module, "prune_once", real)
    monkeypatch.setattr(ToyDetector, "validate", lambda own, *args, of=ToyDetector.validate, **more: (
        done.append(more), of(own, *args, **more))[1])  # fmt: skip
    found = measured(toy, folder)
    assert len(found.points) == 4
    assert len(done) == 2, "one pruning before, one validation after"
    with pytest.raises(UserError, match="holds a frontier of other weights, data or options; give another --name"):
        measured(toy, folder, options=replace(OPTIONS, seed=3))


TRAINED = replace(OPTIONS, epochs=1, lr0_per_share=0.01, batch=4)


def test_with_epochs_all_that_is_cheaper_is_trained_as_long(toy: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(ToyDetector, "can_distill", True)
    monkeypatch.setattr(ToyDetector, "train", lambda own, start, folder, training, of=ToyDetector.train: (
        asked.append(training), of(own, start, folder, training))[1])  # fmt: skip
    found = measured(toy, tmp_path / "toys", options=TRAINED)
    trained = {(p.imgsz, p.share) for p in found.points if p.untrained}
    assert trained == {(128, 0.5), (64, 1.0), (64, 0.5)}, "the network as it is has been trained"
    assert [t.epochs for t in asked] == [1, 1, 1]
    assert [t.distillation is None for t in asked] == [False, True, False], "only what was pruned has a teacher"
    assert asked[0].keywords["lr0"] == pytest.approx(0.005)
    assert not list((tmp_path / "toys").glob("*.start.pt")) + list((tmp_path / "toys").glob("*.teacher.pt"))


def test_what_costs_more_than_is_asked_for_is_not_trained_until_it_may(toy: Path, tmp_path: Path) -> None:
    def trained(found: Frontier) -> set[tuple[int, float]]:
        return {(p.imgsz, p.share) for p in found.points if p.untrained}

    folder = tmp_path / "toys"
    found = measured(toy, folder, options=TRAINED, sizes=(128, 96, 64), wanted=Wanted(ratio=0.25))
    assert trained(found) == {(128, 0.25), (96, round(0.25 * (128 / 96) ** 2, 4)), (64, 1.0)}
    found = measured(toy, folder, options=TRAINED, sizes=(96,), wanted=Wanted(ratio=0.6))
    assert (96, 1.0) in trained(found)
    assert len({(p.imgsz, p.share) for p in found.points}) == len(found.points)


@pytest.mark.parametrize(
    ("ratio", "sizes"),
    [
        (None, {320, 288, 256, 224}),
        (0.5, {320, 288, 256, 224}),
        (0.25, {320, 256, 192, 160}),
        (0.35, {320, 256, 224, 192, 160}),
    ],
)
def test_sizes_reach_from_its_own_to_one_that_needs_no_pruning(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float | None, sizes: set[int]
) -> None:
    monkeypatch.setattr(ToyDetector, "stride", 32)
    monkeypatch.setattr(module, "_time", lambda *_: None)
    own = detectors.load(toy)
    monkeypatch.setattr(module._Network, "measured", lambda _, point: replace(
        point, gflops=point.share * module.gflops_at(own, point.imgsz), metrics={"mAP50-95": 0.5}))  # fmt: skip
    found = measured(toy, tmp_path / "toys", options=replace(OPTIONS, imgsz=320), sizes=(), wanted=Wanted(ratio=ratio))
    assert {p.imgsz for p in found.points} == sizes
    cheap = [
        p.imgsz for p in found.points if p.share == 1 and p.gflops <= (ratio or 0.49) * 1.001 * found.points[-1].gflops
    ]
    assert cheap == [min(sizes)]


def test_the_embedded_digits_are_drawn_into_the_folder(toy: Path, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(module.digits, "write", lambda folder: (drawn.append(folder), "toy")[1])
    found = measured(toy, tmp_path / "toys", options=replace(OPTIONS, data="digits"), sizes=(64,), shares=())
    assert [p.share for p in found.points] == [1.0]
    assert drawn == [tmp_path / "toys" / "digits"]


def test_no_training_leaves_a_network_worse_than_it_began(toy: Path, tmp_path: Path, monkeypatch) -> None:
    def harm(own: ToyDetector, start: Path, folder: Path, training: Any) -> Trained:
        network = copy.deepcopy(own.network)
        for parameter in network.parameters():
            parameter.data.zero_()
        return Trained(own.holding(network), training.epochs, {})

    monkeypatch.setattr(ToyDetector, "train", harm)
    found = measured(toy, tmp_path / "toys", options=TRAINED)
    assert all(p.quality >= p.untrained[found.measure] for p in found.points if p.untrained)
    kept = next(p for p in found.points if p.untrained and p.share < 1)
    assert kept.epochs == 0
    assert any(p.any() for p in detectors.load(tmp_path / "toys" / kept.file).network.parameters())


def test_what_was_pruned_before_an_interrupted_training_is_read(toy: Path, tmp_path: Path, monkeypatch) -> None:
    real, pruned = ToyDetector.train, []
    monkeypatch.setattr(module, "prune_once", lambda *args, of=module.prune_once, **more: (
        pruned.append(args), of(*args, **more))[1])  # fmt: skip

    def stop(*args: Any) -> Trained:
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyDetector, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        measured(toy, tmp_path / "toys", options=TRAINED)
    monkeypatch.setattr(ToyDetector, "train", real)
    measured(toy, tmp_path / "toys", options=TRAINED)
    assert len(pruned) == 2, "one a size"


def test_a_kill_after_a_training_costs_no_second_one_of_what_was_trained(
    toy: Path, tmp_path: Path, monkeypatch
) -> None:
    folder, add, starts = tmp_path / "toys", module._State.add, []
    monkeypatch.setattr(ToyDetector, "train", lambda own, start, at, training, of=ToyDetector.train: (
        starts.append(start.read_bytes()), of(own, start, at, training))[1])  # fmt: skip

    def stop(own: Any, point: Any) -> None:
        if point.untrained and point.share < 1:
            raise KeyboardInterrupt
        add(own, point)

    monkeypatch.setattr(module._State, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        measured(toy, folder, options=TRAINED, sizes=(64,))
    monkeypatch.setattr(module._State, "add", add)
    found = measured(toy, folder, options=TRAINED, sizes=(64,))
    assert starts[1] == starts[2], "the last training, done again, begins where it began"
    whole = measured(toy, tmp_path / "whole", options=TRAINED, sizes=(64,))
    figures = [[(p.file, p.metrics, p.untrained) for p in each.points] for each in (found, whole)]
    assert figures[0] == figures[1]
    assert not list(folder.glob("*.start.pt")) + list(folder.glob("*.teacher.pt"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda points: points[0].update(metrics={}),
        lambda points: points[0].update(gflops="a"),
        lambda points: points.append({**points[0], "weights": "/x.pt"}),
        lambda points: points[0].update(latency_ms=math.inf),
    ],
)
def test_a_damaged_frontier_is_a_sentence(toy: Path, tmp_path: Path, spoil) -> None:
    folder = tmp_path / "toys"
    measured(toy, folder, sizes=(64,), shares=())
    content = json.loads((folder / "frontier.json").read_text())
    spoil(content["points"])
    (folder / "frontier.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"frontier.json' is missing or damaged; give another --name"):
        measured(toy, folder, sizes=(64,), shares=())


def test_what_is_shown_and_written(toy: Path, tmp_path: Path) -> None:
    found = measured(toy, tmp_path / "toys", wanted=Wanted(ratio=0.6))
    save_frontier(found, tmp_path / "f.csv")
    rows = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert [float(row["gflops"]) for row in rows] == [p.gflops for p in found.points]
    assert {row["on_front"] for row in rows} <= {"True", "False"}
    draw_frontier(found, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert frontier_table(found).row_count == len(found.points)


def formula(device: Any, shape: Any, inputs: int, outputs: int, place: Any) -> float:
    """Milliseconds of a convolution on `Simulated`."""
    return 1e-5 * inputs * outputs * shape.height * shape.width


def simulated_ms(detector: ToyDetector, imgsz: int) -> float:
    """Milliseconds of a network there."""
    found = on_device._convolutions(detector, imgsz)
    return 1 + sum(formula(None, conv.shape, conv.inputs, conv.outputs, None) for conv in found)


class Simulated(OnDevice):
    """A device on which times follow a formula."""

    def __init__(self, detector: ToyDetector, options: Options) -> None:
        self._imgsz, self._place, self.here = options.imgsz, "cpu", True
        self.device = Device("a formula", "none", "1", 1, None)
        self._table = CostTable(self.device)
        self.own_ms = self.times(detector)

    def times(self, detector: ToyDetector, target: float | None = None) -> float:
        return simulated_ms(detector, self._imgsz)

    def _measured(self, detector: ToyDetector) -> list[Any]:
        found = on_device._convolutions(detector, self._imgsz)
        measure(self._table, found)
        return found


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cost_table, "_milliseconds", formula)
    for of in (module, image_size):
        monkeypatch.setattr(of, "OnDevice", Simulated)


def test_a_time_is_met_at_every_size(toy: Path, tmp_path: Path, simulated: None) -> None:
    own = detectors.load(toy)
    asked = 0.4 * simulated_ms(own, 128)
    options = replace(OPTIONS, target_ratio=None, target_ms=asked, threads=1)
    found = measured(toy, tmp_path / "toys", options=options, sizes=(128, 96, 64), shares=(0.5,))
    assert {(p.imgsz, p.share == 1) for p in found.points} == {
        (128, True), (128, False), (96, True), (96, False), (64, True)}, "64 px are fast enough unpruned"  # fmt: skip
    for point in found.points:
        if point.share == 1:
            assert point.latency_ms == pytest.approx(simulated_ms(own, point.imgsz))
        else:
            assert point.latency_ms == pytest.approx(asked, rel=0.03)
            assert detectors.load(tmp_path / "toys" / point.file).params == point.params < own.params
    assert found.best.latency_ms <= asked * 1.03
    assert found.runtime == "none 1, 1 thread on a formula"
    if found.best.share < 1:
        assert f"--target-ms {asked:g} --backend onnxruntime --threads 1 --imgsz {found.best.imgsz}" in found.command
    again = measured(toy, tmp_path / "toys", options=options, sizes=(128, 96, 64), shares=(0.5,))
    assert again.points == found.points


def test_a_size_at_which_pruning_cannot_reach_the_cost_is_left_out(toy: Path, tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.Progress, "say", lambda own, line: said.append(line))
    options = replace(OPTIONS, round_to=8)
    found = measured(toy, tmp_path / "toys", options=options, wanted=Wanted(ratio=0.0625), sizes=(128, 32))
    assert {(p.imgsz, p.share) for p in found.points} == {(128, 1.0), (32, 1.0)}
    assert any("toy pruned to 6% at 128 px is left out: The target of " in line for line in said)
    assert found.best.imgsz == 32


def test_weights_of_the_same_name_are_told_apart(toy: Path, tmp_path: Path) -> None:
    """Ultralytics calls the weights of every training best.pt."""
    paths = [tmp_path / run / "weights" / "toy.pt" for run in ("small", "large")]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(toy, path)
    networks = {str(path): detectors.load(path) for path in paths}
    found = frontier(networks, OPTIONS, tmp_path / "toys", sizes=(64,), shares=(0.5,))
    assert len(found.points) == 4
    assert {p.name for p in found.points} == {"small-weights-toy", "large-weights-toy"}
    assert {p.file for p in found.points if p.share < 1} == {
        "small-weights-toy-50-64.pt", "large-weights-toy-50-64.pt"}  # fmt: skip


def test_a_run_can_choose_the_image_size_for_a_time(toy: Path, simulated: None, monkeypatch) -> None:
    monkeypatch.setattr("yoloprune.pipeline.run.OnDevice", Simulated)
    common = {"data": "toy", "imgsz": 128, "round_to": 1, "calibration_images": 16, "device": "cpu", "threads": 1}
    result = yoloprune.prune(toy, target_speedup=2, choose_imgsz=True, val=True, **common)
    asked = simulated_ms(detectors.load(toy), 128) / 2
    assert any(f"without training at {asked:.2f} ms: " in note for note in result.report.notes)
    assert simulated_ms(detectors.wrap(result.model), result.report.imgsz) == pytest.approx(asked, rel=0.03)


def test_a_run_can_choose_the_image_size(toy: Path, tmp_path: Path) -> None:
    """What the cost is at the size that is used counts, so there is less to prune at a smaller one."""
    common = {"data": "toy", "imgsz": 128, "round_to": 1, "calibration_images": 16, "device": "cpu"}
    result = yoloprune.prune(toy, target_ratio=0.4, choose_imgsz=True, val=True, **common)
    (said,) = (note for note in result.report.notes if "without training at 40% of the cost" in note)
    imgsz = result.report.imgsz
    assert f"{imgsz} px are taken (unpruned " in said
    assert " at 128 px)." in said
    cost = result.report.after.gflops / result.report.before.gflops * (imgsz / 128) ** 2
    assert 0.97 * 0.4 <= cost <= 0.4
    with pytest.raises(UserError, match="Image sizes are compared on validation images"):
        yoloprune.prune(toy, target_ratio=0.4, choose_imgsz=True, **common)
    with pytest.raises(UserError, match="has no fewer parameters"):
        yoloprune.prune(toy, target_params=1000, choose_imgsz=True, val=True, **common)
