"""Distillation through Ultralytics' trainers, on the embedded digits detector."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import ultralytics
from ultralytics.utils.torch_utils import unwrap_model

import yoloprune
from tests.small_yolo import launched, shallow_weights, write_few_digits
from yoloprune.demo import digits
from yoloprune.detectors.base import Distillation
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.heads import can_distill
from yoloprune.detectors.ultralytics.trainers.distillation import (
    _Criterion,
    bind_distillation,
)
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedDetectionTrainer
from yoloprune.errors import UserError
from yoloprune.graph import Plan

TRAIN = {"imgsz": 96, "batch": 8, "epochs": 1, "plots": False, "workers": 0, "device": "cpu"}


BY_WEIGHTS = {"criterion": "l2", "recover": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that only prunes."""
    root = tmp_path_factory.mktemp("runs")
    yoloprune.prune(ultralytics.YOLO(digits.WEIGHTS), target_ratio=0.7, **BY_WEIGHTS, project=root, name="run")
    return root / "run"


@pytest.fixture
def start(run):
    """A pruned model and what guides its training."""
    return yoloprune.load(run / "pruned.pt"), Distillation(teacher=str(digits.WEIGHTS), plan=str(run / "plan.json"))


def images(n=2):
    return torch.rand(n, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def criterion(network, distillation):
    network.args = ultralytics.utils.DEFAULT_CFG
    return _Criterion(network, distillation)


def test_the_teacher_itself_has_nothing_to_learn(tmp_path):
    yolo = checkpoints.load(digits.WEIGHTS)
    Plan({}, {}, 0, 0).save(tmp_path / "plan.json")
    network = yolo.model.eval().requires_grad_(True)
    made = criterion(network, Distillation(teacher=str(digits.WEIGHTS), plan=str(tmp_path / "plan.json"), labels=0.0))
    batch = {"img": images(), "batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    loss, items = made(network(batch["img"]), batch)
    assert items["out_loss"] == pytest.approx(0, abs=1e-4)
    assert items["feat_loss"] == pytest.approx(0, abs=1e-6)
    assert loss[:3].sum() == 0


def test_terms_grow_with_the_distance_and_reach_all_layers(start):
    yolo, distillation = start
    network = yolo.model.float().eval().requires_grad_(True)
    made = criterion(network, distillation)
    batch = {"img": images(), "batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    loss, items = made(network(batch["img"]), batch)
    assert items["out_loss"] > 0.01
    assert items["feat_loss"] > 0.01
    loss.sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None and "dfl" not in n]
    assert not missing


def test_training_keeps_batch_norm_statistics_and_pickles_no_teacher(start, run, few_digits, tmp_path):
    yolo, distillation = start
    before = {n: b.clone() for n, b in yolo.model.named_buffers() if n.endswith("running_mean")}
    trainer = bind_distillation(yolo._smart_load("trainer"), distillation)
    yolo.train(trainer=trainer, data=str(few_digits), project=str(tmp_path), name="train", **TRAIN)
    trained = yolo.trainer
    after = dict(unwrap_model(trained.model).named_buffers())
    for name, value in before.items():
        torch.testing.assert_close(after[name].cpu(), value.float(), rtol=1e-3, atol=1e-3)
    header = (tmp_path / "train" / "results.csv").read_text().splitlines()[0]
    assert "train/out_loss" in header
    assert "train/feat_loss" in header
    saved = torch.load(tmp_path / "train" / "weights" / "last.pt", weights_only=False)
    network = saved["ema"] or saved["model"]
    assert getattr(network, "criterion", None) is None
    assert not any(m._forward_hooks for m in network.modules())
    assert (tmp_path / "train" / "weights" / "last.pt").stat().st_size < 2.5 * (run / "pruned.pt").stat().st_size


def test_options_survive_the_ddp_launcher(start, run, few_digits, tmp_path):
    """A fresh interpreter runs the file that the launcher gives to each process, here for one process on the CPU."""
    _, distillation = start
    options = replace(distillation, feature=0.5)
    where = {"data": str(few_digits), "project": str(tmp_path), "name": "train"}
    trainer = bind_distillation(PrunedDetectionTrainer, options)(
        overrides=TRAIN | where | {"model": str(run / "pruned.pt")}
    )
    trainer.setup_model()
    asked = "type(trainer).__name__, trainer.distillation, trainer.model.criterion.gains"
    assert launched(trainer, asked) == repr(("DistillingPrunedDetectionTrainer", options, options))


def test_a_run_distils_by_default(few_digits, tmp_path):
    words = {"target_ratio": 0.7, "data": str(few_digits), "project": tmp_path, "name": "run"}
    result = yoloprune.prune(shallow_weights(), **words, **BY_WEIGHTS, **TRAIN)
    header = (tmp_path / "run" / "steps" / "1" / "train" / "results.csv").read_text().splitlines()[0]
    assert "out_loss" in header
    assert not (tmp_path / "run" / "steps" / "original.pt").exists()
    assert result.report.steps[0].epochs == 1


@pytest.mark.slow
def test_fine_tuning_that_only_harms_is_not_kept(tmp_path):
    data = str(write_few_digits(tmp_path / "digits", train=48, val=32))
    harmful = TRAIN | {"optimizer": "SGD", "lr0": 0.3, "warmup_epochs": 0.0, "nbs": 8}
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.8, data=data, project=tmp_path, name="run", calibration_images=16, val=True,
        prune_head=True, criterion="l2", max_pruning_ratio=0.9, **harmful,
    )  # fmt: skip
    (note,) = (note for note in result.report.notes if "Fine-tuning did not make the network better" in note)
    kept = result.report.steps[0].metrics["mAP50-95"]
    assert f"(mAP50-95 {kept:.3f} before, " in note
    assert kept > 0.3
    assert result.metrics["after"]["mAP50-95"] == pytest.approx(kept, abs=2e-3)  # saved in float16 meanwhile


@pytest.mark.slow
def test_images_without_labels_serve(tmp_path):
    data = write_few_digits(tmp_path / "digits", train=16, val=8)
    for file in (data.parent / "labels" / "train").glob("*.txt"):
        file.unlink()
    yoloprune.prune(
        shallow_weights(), target_ratio=0.7, data=str(data), project=tmp_path, name="run", calibration_images=8,
        max_pruning_ratio=0.9, **TRAIN | {"imgsz": 64},
    )  # fmt: skip
    rows = (tmp_path / "run" / "steps" / "1" / "train" / "results.csv").read_text().splitlines()
    assert float(dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["train/out_loss"]) > 0


def test_heads_that_cannot_be_distilled_say_so(tmp_path):
    yolo = ultralytics.YOLO("yolov8n-cls.yaml")
    assert not can_distill(yolo.model)
    with pytest.raises(UserError, match="cannot be distilled"):
        yoloprune.prune(yolo, target_ratio=0.7, epochs=1, distill=True, data="digits", recover=False, criterion="l2")
