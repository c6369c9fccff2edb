"""Distillation through Ultralytics' trainers, on the embedded digits detector."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import ultralytics
from conftest import equal, launched
from ultralytics.utils.torch_utils import unwrap_model

import yoloprune
from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.yolo import checkpoints, digits, distill
from yoloprune.yolo.distill import Distillation, _Criterion, bind_distillation, can_distill
from yoloprune.yolo.run.continuation import Continuation
from yoloprune.yolo.run.training import train_or_go_on
from yoloprune.yolo.trainer import PrunedDetectionTrainer

TRAIN = {"imgsz": 96, "batch": 8, "epochs": 1, "fraction": 0.1, "plots": False, "workers": 0, "device": "cpu"}


@pytest.fixture
def start(tmp_path):
    """A pruned checkpoint, the plan that led to it, and data."""
    result = yoloprune.prune(ultralytics.YOLO(digits.WEIGHTS), target_ratio=0.7, project=tmp_path, name="run")
    return result, Distillation(teacher=str(digits.WEIGHTS), plan=str(tmp_path / "run" / "plan.json"))


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
    result, distillation = start
    network = result.model.model.float().eval().requires_grad_(True)
    made = criterion(network, distillation)
    batch = {"img": images(), "batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    loss, items = made(network(batch["img"]), batch)
    assert items["out_loss"] > 0.01
    assert items["feat_loss"] > 0.01
    loss.sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None and "dfl" not in n]
    assert not missing


def test_training_keeps_batch_norm_statistics_and_pickles_no_teacher(start, tmp_path):
    result, distillation = start
    before = {n: b.clone() for n, b in result.model.model.named_buffers() if n.endswith("running_mean")}
    trainer = bind_distillation(result.model._smart_load("trainer"), distillation)
    data = str(digits.write(tmp_path / "digits"))
    result.model.train(trainer=trainer, data=data, project=str(tmp_path), name="train", **TRAIN)
    trained = result.model.trainer
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
    assert (tmp_path / "train" / "weights" / "last.pt").stat().st_size < 2.5 * (
        tmp_path / "run" / "pruned.pt"
    ).stat().st_size


def test_a_setback_leads_back_to_the_best_network(tmp_path):
    """At a wild rate no epoch is as good as the network before training, so each leads back to that."""
    Plan({}, {}, 0, 0).save(tmp_path / "plan.json")
    options = Distillation(teacher=str(digits.WEIGHTS), plan=str(tmp_path / "plan.json"), way_back=True)
    trainer, yolo = bind_distillation(PrunedDetectionTrainer, options), checkpoints.load(digits.WEIGHTS)
    untrained = copy.deepcopy(yolo.model).float().state_dict()
    data = str(digits.write(tmp_path / "digits"))
    wild = {"imgsz": 160, "epochs": 2, "optimizer": "AdamW", "lr0": 0.02, "lrf": 1.0, "warmup_epochs": 0.0, "nbs": 8}
    paces = []

    def look(trainer):
        now = unwrap_model(trainer.model).state_dict()
        assert all(torch.equal(untrained[name], now[name]) for name in untrained)
        saved = torch.load(trainer.last, weights_only=False)
        assert all(torch.equal(untrained[name].half(), saved["ema"].state_dict()[name]) for name in untrained)
        fresh = trainer.build_optimizer(unwrap_model(trainer.model), name="AdamW")
        fresh.load_state_dict(saved["optimizer"])  # as a resumed training does
        paces.append({g["param_group"]: g.get("pace") for g in fresh.param_groups})

    yolo.add_callback("on_model_save", look)
    yolo.train(trainer=trainer, data=data, project=str(tmp_path), name="train", **(TRAIN | wild))
    assert yolo.trainer.best_fitness < 0.5
    assert [p["weight"] for p in paces] == [pytest.approx(0.3), pytest.approx(0.09)]
    assert {p["bn"] for p in paces} == {p["bias"] for p in paces} == {None}


def test_a_resumed_training_goes_on_after_a_setback(tmp_path, monkeypatch):
    Plan({}, {}, 0, 0).save(tmp_path / "plan.json")
    options = Distillation(teacher=str(digits.WEIGHTS), plan=str(tmp_path / "plan.json"), way_back=True)
    data, paces, start = str(digits.write(tmp_path / "digits")), [], tmp_path / "start.pt"
    yolo = checkpoints.load(digits.WEIGHTS)
    for weight in [p for p in yolo.model.parameters() if p.dim() == 4]:  # so that there is something to learn
        weight.data += 0.15 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    checkpoints.save(yolo, start)
    wild = TRAIN | {"imgsz": 160, "epochs": 3, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0.0, "nbs": 8}
    keywords = {name: wild.pop(name) for name in ("imgsz", "epochs", "batch", "device")}

    def train(name):
        folder, bind = tmp_path / name, partial(bind_distillation, distillation=options)
        trained = train_or_go_on(start, folder, bind=bind, otherwise="", data=data, train=wild, seed=0, **keywords)
        paces.append(trained.trainer.optimizer.param_groups[0].get("pace"))
        return checkpoints.load(folder / "weights" / "last.pt").model

    whole, original = train("whole"), Continuation.on_train_epoch_start

    def interrupt(self, trainer):
        if trainer.epoch == 2:
            raise KeyboardInterrupt
        original(self, trainer)

    monkeypatch.setattr(Continuation, "on_train_epoch_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train("cut")
    monkeypatch.undo()
    assert equal(whole, train("cut"))
    assert paces[0] == paces[1] < 1  # there was a setback
    assert not equal(whole, checkpoints.load(start).model)  # and something learnt after it


def test_several_processes_say_that_nothing_leads_back(monkeypatch, caplog):
    class Trainer:
        def _setup_train(self):
            pass

    monkeypatch.setattr(distill, "RANK", 0)
    bind_distillation(Trainer, Distillation(teacher="", plan="", way_back=True))()._setup_train()
    assert "do not lead back" in caplog.text


def test_options_survive_the_ddp_launcher(start, tmp_path):
    """A fresh interpreter runs the file that the launcher gives to each process, here for one process on the CPU."""
    _, distillation = start
    options = replace(distillation, way_back=True, feature=0.5)
    data, model = str(digits.write(tmp_path / "digits")), str(tmp_path / "run" / "pruned.pt")
    overrides = TRAIN | {"model": model, "data": data, "project": str(tmp_path), "name": "train"}
    run = bind_distillation(PrunedDetectionTrainer, options)(overrides=overrides)
    run.setup_model()
    asked = "type(trainer).__name__, trainer.distillation, trainer.model.criterion.gains"
    assert launched(run, asked) == repr(("DistillingPrunedDetectionTrainer", options, options))


def test_a_run_distils_by_default_and_resumes(tmp_path):
    data = str(digits.write(tmp_path / "digits"))
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.7, data=data, project=tmp_path, name="run", calibration_images=8, **TRAIN
    )
    header = (tmp_path / "run" / "steps" / "1" / "train" / "results.csv").read_text().splitlines()[0]
    assert "out_loss" in header
    assert not (tmp_path / "run" / "steps" / "original.pt").exists()
    assert result.report.steps[0].epochs == 1


def test_fine_tuning_that_only_harms_is_not_kept(tmp_path):
    data = str(digits.write(tmp_path / "digits"))
    harmful = TRAIN | {"optimizer": "SGD", "lr0": 0.3, "warmup_epochs": 0.0, "nbs": 8}
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.8, data=data, project=tmp_path, name="run", calibration_images=16, val=True,
        prune_head=True, **harmful,
    )  # fmt: skip
    (note,) = (note for note in result.report.notes if "Fine-tuning did not raise mAP50-95" in note)
    kept = result.report.steps[0].metrics["mAP50-95"]
    assert f"({kept:.3f} before, " in note
    assert kept > 0.3
    assert result.metrics["after"]["mAP50-95"] == pytest.approx(kept, abs=2e-3)  # saved in float16 meanwhile


def test_images_without_labels_serve(tmp_path):
    data = digits.write(tmp_path / "digits")
    for file in (data.parent / "labels" / "train").glob("*.txt"):
        file.unlink()
    (data.parent / "labels" / "train.cache").unlink(missing_ok=True)
    whole = {key: value for key, value in TRAIN.items() if key != "fraction"} | {"imgsz": 64}
    yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.7, data=str(data), project=tmp_path, name="run", calibration_images=8, **whole
    )
    rows = (tmp_path / "run" / "steps" / "1" / "train" / "results.csv").read_text().splitlines()
    assert float(dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["train/out_loss"]) > 0


def test_heads_that_cannot_be_distilled_say_so(tmp_path):
    yolo = ultralytics.YOLO("yolov8n-cls.yaml")
    assert not can_distill(yolo.model)
    with pytest.raises(UserError, match="cannot be distilled"):
        yoloprune.prune(yolo, target_ratio=0.7, epochs=1, distill=True, data="digits", recover=False, criterion="l2")
