"""A portable checkpoint is the pruned network, and stock Ultralytics keeps it so without yoloprune."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import yoloprune
from tests.small_yolo import enliven, write_data
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.exporting import export
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.portable import check_portable, portable
from yoloprune.detectors.ultralytics.stock_training import block_stock_training, is_pruned
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.errors import UserError

DRIVER = Path(__file__).with_name("stock_driver.py")


def _fresh(name: str, nc: int | None = None) -> YOLO:
    with quiet():
        yolo = YOLO(name)
        if nc:
            yolo.model = type(yolo.model)({**yolo.model.yaml, "nc": nc}, verbose=False)
    enliven(yolo.model)
    return yolo


def _prune(network: nn.Module, ratio: float = 0.6, seed: int = 0, round_to: int = 8, **limits: Any) -> nn.Module:
    graph = trace_yolo(network, **limits)
    scores = np.random.default_rng(seed).random(graph.n_components)
    pruned = graph.budget_plan(scores, target_macs=graph.macs() * ratio, round_to=round_to).apply(network)
    block_stock_training(pruned)
    return pruned


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _outputs(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        output = network.float().eval()(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    return output[0][0] if isinstance(output[0], tuple) else output[0]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("yolov8n.yaml", 62),
        ("yolov5n.yaml", 65),
        ("yolo11n.yaml", 75),
        ("yolo26n.yaml", 77),
        ("yolov8n-seg.yaml", 62),
        ("yolov8n-pose.yaml", 62),
        ("yolo11n-obb.yaml", 75),
        ("yolo26n-seg.yaml", 77),
    ],
)
def test_stock_rows_build_the_pruned_network(name: str, rows: int) -> None:
    pruned = _prune(_fresh(name).model, portable=True)
    state = {key: tensor.clone() for key, tensor in pruned.state_dict().items()}
    built = portable(pruned)
    assert len(built.model) == rows
    assert _count(built) == _count(pruned)
    assert (_outputs(built) - _outputs(pruned)).abs().max() < 1e-5 * _outputs(pruned).abs().max()
    assert is_pruned(pruned)
    assert not is_pruned(built)
    assert all(torch.equal(tensor, state[key]) for key, tensor in pruned.state_dict().items())
    assert torch.equal(built.stride, pruned.stride)
    mapping = built.yaml["rows_of_layer"]
    assert sorted({row for rows in mapping.values() for row in rows}) == list(range(rows))
    assert [type(built.model[mapping[i][-1]]) for i in mapping][-1] is type(pruned.model[-1])


@pytest.mark.parametrize(("name", "nc"), [("yolov8n.yaml", 3), ("yolo26n.yaml", 3), ("yolov8n-obb.yaml", 3)])
def test_a_pruned_head_follows_its_formulas(name: str, nc: int) -> None:
    network = _fresh(name, nc).model
    pruned = _prune(network, 0.4, prune_head=True, portable=True)
    assert _count(pruned.model[-1].cv3) < 0.8 * _count(network.model[-1].cv3)
    built = portable(pruned)
    assert _count(built) == _count(pruned)


def test_a_head_stays_as_wide_as_its_classes_ask() -> None:
    network = _fresh("yolov8n.yaml", 45).model  # 64 hidden channels, of which 45 are the least
    head = _prune(network, 0.3, prune_head=True, portable=True).model[-1]
    assert head.cv3[0][0].conv.out_channels == head.cv2[0][0].conv.in_channels == 48


def test_a_head_of_many_classes_keeps_its_widths_as_without_prune_head() -> None:
    network = _fresh("yolov8n.yaml").model
    kept = trace_yolo(network)
    for pruned_head in (False, True):
        graph = trace_yolo(network, pruned_head, portable=True)
        assert np.array_equal(graph.frozen, kept.frozen)
        assert np.array_equal(graph.tied, kept.tied)
        assert not graph.least.any()


def test_what_rows_cannot_say_is_named() -> None:
    network = _fresh("yolov8n.yaml", 3).model
    with pytest.raises(UserError, match=r"^model\.22\.cv2\.0\.0 has \d+ channels, but a stock Detect row makes 64 \("):
        portable(_prune(network, prune_head=True))
    with pytest.raises(UserError, match=r"^model\.0 has \d+ channels, .*multiples of 8"):
        portable(_prune(_fresh("yolov8n.yaml").model, round_to=1))
    with pytest.raises(UserError, match=r"^model\.10 takes \d+ channels and puts out \d+, but a stock C2PSA row"):
        portable(_prune(_fresh("yolo11n.yaml").model, seed=1))
    with pytest.raises(UserError, match=r"^model\.5 is a SCDown, which has no portable form"):
        check_portable(_fresh("yolov10n.yaml").model)
    with pytest.raises(UserError, match="is fused"), quiet():
        portable(_fresh("yolov8n.yaml").model.fuse())


def test_only_rows_of_eight_are_asked_for(pruned_yolo: YOLO) -> None:
    with pytest.raises(UserError, match="portable needs round_to to be a multiple of 8"):
        yoloprune.prune(pruned_yolo, target_ratio=0.5, portable=True, round_to=4, criterion="l2", recover=False)


def test_pruning_keeps_to_what_rows_can_say(tmp_path: Path) -> None:
    yolo = _fresh("yolo11n.yaml")
    result = yoloprune.prune(yolo, target_ratio=0.6, portable=True, criterion="l2", recover=False)
    result.save(tmp_path / "pruned.pt")
    path = result.export("stock")
    assert path == tmp_path / "pruned_stock.pt"
    read = checkpoints.load(path)
    assert _count(read.model) == _count(result.model.model)
    of_the_file = checkpoints.load(tmp_path / "pruned.pt").model
    assert torch.equal(_outputs(read.model), _outputs(of_the_file))
    with pytest.raises(UserError, match="takes no half="):
        export(read, path, format="stock", half=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("yolov8n.yaml", "detect"),
        ("yolo11n.yaml", "detect"),
        ("yolo26n.yaml", "detect"),
        ("yolo11n-obb.yaml", "obb"),
    ],
)
def test_stock_ultralytics_trains_resumes_validates_and_exports_it(name: str, task: str, tmp_path: Path) -> None:
    names = ["red", "green", "blue"]
    data = write_data(tmp_path / "data", names, images=8, task=task)
    yolo = _fresh(name, len(names))
    yolo.model = _prune(yolo.model, 0.5, portable=True)
    yolo.model.names = dict(enumerate(names))
    weights = export(yolo, tmp_path / "mine_stock.pt", format="stock")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if older := os.environ.get("YOLOPRUNE_STOCK"):
        environment["PYTHONPATH"] = older
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]

    def run(what: str) -> subprocess.CompletedProcess:
        words = [*command, str(DRIVER), what, str(weights), str(data), str(tmp_path)]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

    killed = run("train")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run("finish")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    number = _count(yolo.model)
    assert [found[key] for key in ("start", "killed", "resumed", "fresh")] == [number] * 4
    assert found["epochs"] == [1, 2]
    assert [found["task"], found["stride"]] == [task, [8, 16, 32]]
    assert list(found["names"].values()) == list(found["exported"].values()) == names
    assert "metrics/mAP50-95(B)" in found["validated"]
    assert found["loaded"]
    assert found["frozen"] == found["asked"]
    apart = (torch.load(tmp_path / "output.pt") - _outputs(yolo.model)).abs().max() / _outputs(yolo.model).abs().max()
    assert apart < 1e-5
