"""Setbacks in trainings of the embedded digits detector, in one process and in two."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import ultralytics
from ultralytics.utils.torch_utils import unwrap_model

from tests.small_yolo import OTHER_TASKS, SHORT, equal, shallow_weights, write_data, write_few_digits
from yoloprune.demo import digits
from yoloprune.detectors.base import Distillation, Training
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.trainers import rollback
from yoloprune.detectors.ultralytics.trainers.continuation import Continuation
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedDetectionTrainer
from yoloprune.detectors.ultralytics.trainers.rollback import bind_rollback
from yoloprune.detectors.ultralytics.trainers.training import train as run
from yoloprune.graph import Plan

TRAIN = {"imgsz": 96, "batch": 8, "epochs": 1, "plots": False, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """The data YAML of 48 training and 24 validation canvases of the embedded digits."""
    return str(write_few_digits(tmp_path_factory.mktemp("digits"), train=48, val=24))


def test_a_setback_leads_back_to_the_best_network(data, tmp_path):
    """At a wild rate no epoch is as good as the network before training, so each leads back to that."""
    trainer, yolo = bind_rollback(PrunedDetectionTrainer), checkpoints.load(digits.WEIGHTS)
    untrained = copy.deepcopy(yolo.model).float().state_dict()
    wild = {"imgsz": 160, "epochs": 2, "optimizer": "AdamW", "lr0": 0.02, "lrf": 1.0, "warmup_epochs": 0.0, "nbs": 8}
    scales = []

    def look(trainer):
        now = unwrap_model(trainer.model).state_dict()
        assert all(torch.equal(untrained[name], now[name]) for name in untrained)
        saved = torch.load(trainer.last, weights_only=False)
        assert all(torch.equal(untrained[name].half(), saved["ema"].state_dict()[name]) for name in untrained)
        fresh = trainer.build_optimizer(unwrap_model(trainer.model), name="AdamW")
        fresh.load_state_dict(saved["optimizer"])  # as a resumed training does
        scales.append({g["param_group"]: g.get("lr_scale") for g in fresh.param_groups})

    yolo.add_callback("on_model_save", look)
    yolo.train(trainer=trainer, data=data, project=str(tmp_path), name="train", **(TRAIN | wild))
    assert yolo.trainer.best_fitness < 0.5
    assert [p["weight"] for p in scales] == [pytest.approx(0.3), pytest.approx(0.09)]
    assert {p["bn"] for p in scales} == {p["bias"] for p in scales} == {None}


@contextmanager
def interrupted_in_epoch(number: int):
    """Within the block a training is interrupted when it begins this epoch, counted from 0."""
    original = Continuation.on_train_epoch_start

    def interrupt(self, trainer):
        if trainer.epoch == number:
            raise KeyboardInterrupt
        original(self, trainer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Continuation, "on_train_epoch_start", interrupt)
        yield


@pytest.mark.slow
def test_a_resumed_training_goes_on_after_a_setback(tmp_path):
    Plan({}, {}, 0, 0).save(tmp_path / "plan.json")
    options = Distillation(teacher=str(digits.WEIGHTS), plan=str(tmp_path / "plan.json"))
    data = str(write_few_digits(tmp_path / "digits", train=51, val=32))
    scales, start = [], tmp_path / "start.pt"
    yolo = checkpoints.load(digits.WEIGHTS)
    for weight in [p for p in yolo.model.parameters() if p.dim() == 4]:  # so that there is something to learn
        weight.data += 0.15 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    checkpoints.save(yolo, start)
    wild = TRAIN | {"imgsz": 160, "epochs": 3, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0.0, "nbs": 8}
    keywords = {name: wild.pop(name) for name in ("imgsz", "epochs", "batch", "device")}

    def train(name):
        folder, asked = tmp_path / name, {"instead": "", "data": data, "keywords": wild, "seed": 0, **keywords}
        trained = run(start, folder, Training(distillation=options, rollback=True, **asked))
        scales.append(trained.trainer.optimizer.param_groups[0].get("lr_scale"))
        return checkpoints.load(folder / "weights" / "last.pt").model

    whole = train("whole")
    with interrupted_in_epoch(2), pytest.raises(KeyboardInterrupt):
        train("cut")
    assert equal(whole, train("cut"))
    assert scales[0] == scales[1] < 1  # there was a setback
    assert not equal(whole, checkpoints.load(start).model)  # and something learnt after it


def test_a_resumed_training_watches_the_first_steps_on(data, tmp_path, monkeypatch):
    """They may reach over several epochs; a killed training looks where a whole one does, and at the same."""
    monkeypatch.setattr(rollback, "_CHECKS", (2, 4))
    Plan({}, {}, 0, 0).save(tmp_path / "plan.json")
    asked = Training(
        data=data, epochs=4, imgsz=64, batch=16, device="cpu", seed=0, instead="", rollback=True,
        keywords={"workers": 0, "plots": False, "nbs": 16, "lr0": 1e-4, "optimizer": "AdamW", "fraction": 0.6},
        distillation=Distillation(teacher=shallow_weights(), plan=str(tmp_path / "plan.json")),
    )  # fmt: skip
    looked: list[tuple[int, float]] = []

    def harmed(own, network, of=rollback._FirstSteps.harmed):
        left = len(own._next)
        found = of(own, network)
        if found or len(own._next) != left:
            looked.append((own._steps, own.lost, own.before, sum(float(v.double().sum()) for v in own.start.values())))
        return found

    monkeypatch.setattr(rollback._FirstSteps, "harmed", harmed)
    run(Path(shallow_weights()), tmp_path / "whole", asked)
    whole = looked[:]
    looked.clear()
    with interrupted_in_epoch(2), pytest.raises(KeyboardInterrupt):
        run(Path(shallow_weights()), tmp_path / "cut", asked)
    assert 0 < len(looked) < len(whole)
    run(Path(shallow_weights()), tmp_path / "cut", asked)
    assert looked == whole


@pytest.mark.parametrize(("model", "task"), [*OTHER_TASKS, ("yolov8-rtdetr.yaml", "detect")])
def test_every_task_rolls_back(tmp_path, model, task, monkeypatch):
    """Whatever the epoch gives counts as a setback here."""
    yolo = YOLO(ultralytics.RTDETR(model) if "rtdetr" in model else model)
    data = write_data(tmp_path / "data", ["a", "b"], task=task)
    monkeypatch.setattr(rollback, "SETBACK", 2.0)
    trainer, known = bind_rollback(yolo._smart_load("trainer")), {}

    def note(trainer):
        trainer._start_fitness = 1.0  # an untrained network finds nothing
        known.update({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})

    yolo.add_callback("on_train_start", note)
    yolo.train(trainer=trainer, data=str(data), project=str(tmp_path), name="train", **SHORT)
    now = yolo.trainer.model.state_dict()
    assert all(torch.equal(known[name], now[name]) for name in known)


@pytest.mark.slow
def test_the_first_steps_lead_back_before_an_epoch_is_spent(tmp_path):
    """A rate that ruins the network within an epoch is lowered in it, and the epoch ends near the start."""
    data, ends = str(write_few_digits(tmp_path / "digits", train=205, val=32)), {}
    wild = {"imgsz": 160, "optimizer": "AdamW", "lr0": 0.01, "warmup_epochs": 0.0, "nbs": 8}
    for name, teacher in (("epoch", None), ("steps", str(digits.WEIGHTS))):
        yolo = checkpoints.load(digits.WEIGHTS)
        yolo.add_callback("on_fit_epoch_end", lambda trainer, name=name: ends.setdefault(name, trainer.fitness))
        trainer = bind_rollback(PrunedDetectionTrainer, teacher)
        yolo.train(trainer=trainer, data=data, project=str(tmp_path), name=name, **(TRAIN | wild))
        scales = {group["param_group"]: group.get("lr_scale") for group in yolo.trainer.optimizer.param_groups}
        assert scales["bn"] is None
        assert scales["weight"] < 0.31
    assert ends["epoch"] < 0.5 < 0.8 < ends["steps"]


def test_rates_fall_within_an_epoch_as_from_one_to_the_next(data, tmp_path):
    yolo, seen = checkpoints.load(digits.WEIGHTS), []

    class Noting(bind_rollback(PrunedDetectionTrainer)):
        def optimizer_step(self):
            seen.append(self.epoch + self._steps / len(self.train_loader))
            seen.append(self._within_epoch() * self.optimizer.param_groups[0]["lr"])
            super().optimizer_step()

    keywords = TRAIN | {"epochs": 2, "optimizer": "AdamW", "lr0": 1e-5, "cos_lr": True, "warmup_epochs": 0.0, "nbs": 8}
    yolo.train(trainer=Noting, data=data, project=str(tmp_path), name="t", **keywords)
    places, rates = seen[::2], seen[1::2]
    assert len(rates) > 4
    for place, rate in zip(places, rates, strict=True):
        assert rate == pytest.approx(1e-5 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * place / 2))), rel=1e-3)
