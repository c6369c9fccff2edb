"""A family that only tests know goes through the whole pipeline: the interface is all that it needs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import yoloprune
from yoloprune import detectors
from yoloprune.errors import UserError
from yoloprune.report import Record


def test_it_is_pruned_recovered_fine_tuned_validated_and_reported(toy: Path, tmp_path: Path) -> None:
    own = detectors.load(toy)
    before = copy.deepcopy(own.network.state_dict())
    result = yoloprune.prune(
        toy, target_ratio=0.5, data="toy", imgsz=64, epochs=2, val=True, round_to=1, device="cpu",
        project=tmp_path / "toys", name="toy",
    )  # fmt: skip
    assert all(torch.equal(before[name], tensor) for name, tensor in own.network.state_dict().items())
    assert result.model.network.stem[0].out_channels < 16 or result.model.network.body[0].out_channels < 32
    assert result.report.after.gflops <= 0.5 * result.report.before.gflops
    assert result.metrics["before"]["mAP50-95"] > 0.9
    assert result.metrics["after"]["mAP50-95"] > 0.8
    record = Record.load(tmp_path / "toys" / "toy" / "results.json")
    assert record.family == "toy" and record.finished
    assert (tmp_path / "toys" / "toy" / "report.html").is_file()
    again = yoloprune.load(tmp_path / "toys" / "toy" / "pruned.pt")
    assert again.network.body[0].out_channels == result.model.network.body[0].out_channels


def test_recovery_alone_keeps_most(toy: Path) -> None:
    common = {"target_ratio": 0.5, "data": "toy", "imgsz": 64, "val": True, "round_to": 1, "device": "cpu"}
    recovered = yoloprune.prune(toy, **common)
    bare = yoloprune.prune(toy, **common, recover=False)
    assert recovered.metrics["after"]["mAP50-95"] >= bare.metrics["after"]["mAP50-95"]


def test_what_the_family_lacks_is_said(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no toy"):
        yoloprune.prune(toy, target_ratio=0.5, data="coco8.yaml", imgsz=64)
    result = yoloprune.prune(toy, target_ratio=0.5, criterion="l2", recover=False, imgsz=64, round_to=1, device="cpu")
    with pytest.raises(UserError, match="There is no export for toy yet"):
        result.export("onnx", tmp_path / "toy.onnx")
