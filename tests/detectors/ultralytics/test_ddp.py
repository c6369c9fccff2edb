"""Trainings by torchrun, with two processes on the CPU: both must stay alike."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.graph import Plan

WORKER = Path(__file__).with_name("ddp_worker.py")
TRAIN = {"imgsz": 96, "batch": 8, "plots": False, "workers": 0, "device": "cpu"}
WILD = {"epochs": 3, "optimizer": "AdamW", "lr0": 0.02, "lrf": 1.0, "warmup_epochs": 0.0, "nbs": 8}
TAME = {"epochs": 1, "optimizer": "SGD", "lr0": 0.001, "nbs": 8}
KINDS = {"rollback": WILD, "distill": TAME, "sparse": TAME}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, few_digits: Path) -> Path:
    """Where two processes left what they noted of all kinds of training, and a folder for each."""
    folder = tmp_path_factory.mktemp("trainings")
    Plan({}, {}, 0, 0).save(folder / "plan.json")
    common = TRAIN | {"data": str(few_digits), "model": str(digits.WEIGHTS), "project": str(folder)}
    asked = {kind: common | options | {"name": kind} for kind, options in KINDS.items()}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [*torchrun, str(WORKER), str(folder), json.dumps(asked)]
    subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def noted(folder: Path, kind: str) -> list[list[dict]]:
    """What each of the two processes noted at the start of each epoch and at the end."""
    return [torch.load(folder / f"{kind}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def alike(a: dict, b: dict) -> bool:
    """Whether two networks, as dictionaries, hold the same parameters."""
    return all(torch.equal(a[name], b[name]) for name in a if "running" not in name and "tracked" not in name)


def test_all_processes_roll_back(folder) -> None:
    """At a wild rate each epoch leads back, and both processes start the next one alike."""
    untrained = checkpoints.load(digits.WEIGHTS).model.float().state_dict()
    for process in noted(folder, "rollback"):
        epochs = process[:3]
        assert [epoch["scale"] for epoch in epochs] == [1, pytest.approx(0.3), pytest.approx(0.09)]
        assert not any(epoch["momentum"] for epoch in epochs)
        for epoch in epochs:
            assert all(torch.equal(untrained[name], epoch["model"][name]) for name in untrained)
            assert all(torch.equal(untrained[name], epoch["ema"][name]) for name in untrained)


@pytest.mark.parametrize("kind", ["distill", "sparse"])
def test_processes_stay_alike(folder, kind) -> None:
    first, second = noted(folder, kind)
    assert alike(first[0]["model"], second[0]["model"])
    assert alike(first[1]["model"], second[1]["model"])
    assert not alike(first[0]["model"], first[1]["model"])
    assert all(tensor.isfinite().all() for tensor in first[1]["model"].values())
    if kind == "sparse":
        assert (folder / kind / "sparsity.csv").exists()
    else:
        (row,) = csv.DictReader((folder / kind / "results.csv").read_text().splitlines())
        assert float(row["train/feat_loss"]) > 0
