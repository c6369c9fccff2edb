"""Networks of these families train through Ultralytics' trainers, with everything that a run adds to a training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.detectors.yolov7.small import small
from tests.small_yolo import SHORT, equal, shapes, write_data
from yoloprune import detectors
from yoloprune.detectors.base import Distillation, Training
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.trainers.continuation import Continuation
from yoloprune.detectors.ultralytics.trainers.training import train
from yoloprune.detectors.yolov7.network import Network
from yoloprune.detectors.yolov7.training import write_for_ultralytics
from yoloprune.graph import trace
from yoloprune.sparsity import Sparsity

KEYWORDS = {key: SHORT[key] for key in ("workers", "plots", "amp", "verbose", "mosaic", "optimizer")}
KEYWORDS |= {"nbs": 2, "conf": 0.9, "warmup_epochs": 0, "lr0": 0.001}


def asked(data: Path, epochs: int = 1, **more: Any) -> Training:
    keywords = KEYWORDS | more.pop("keywords", {})
    given = {"imgsz": 64, "batch": 2, "device": "cpu", "seed": 0, "instead": "do not", "keywords": keywords}
    return Training(data=str(data), epochs=epochs, **given, **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", ["0", "1", "2"])


@pytest.mark.parametrize(
    ("name", "form"), [("yolov7-tiny", "training"), ("yolov7-w6", "training"), ("yolov5n", "deploy")]
)
def test_a_pruned_network_keeps_its_widths_and_learns(name: str, form: str, data: Path, tmp_path: Path) -> None:
    network = small(name, form)
    network = trace(network.eval(), torch.rand(1, 3, 128, 128)).random_plan(0.7, seed=0).apply(network)
    start = write_for_ultralytics(network, tmp_path / "start.pt")
    assert equal(checkpoints.load(start).model, network), "float32 and nothing else"
    yolo = train(start, tmp_path / "run", asked(data, epochs=2))
    for file in ("last.pt", "best.pt"):
        trained = checkpoints.load(tmp_path / "run" / "weights" / file).model
        assert isinstance(trained, Network)
        assert shapes(trained) == shapes(network)
        assert trained.yaml == network.yaml, "no mark in it"
        assert trained.names == {0: "0", 1: "1", 2: "2"}
        before = {key: value.half().float() for key, value in network.state_dict().items()}
        moved = [not torch.equal(value, before[key]) for key, value in trained.named_parameters()]
        assert sum(moved) > 0.5 * len(moved), "in float16, after few steps"
    header = (tmp_path / "run" / "results.csv").read_text().splitlines()[0]
    assert all(f"{part}/{term}_loss" in header for part in ("train", "val") for term in ("box", "obj", "cls"))
    assert yolo.trainer.epoch == 1


def test_a_training_killed_between_epochs_ends_where_another_does(data: Path, tmp_path: Path) -> None:
    start = write_for_ultralytics(small("yolov7-tiny"), tmp_path / "start.pt")
    whole = train(start, tmp_path / "whole" / "train", asked(data, epochs=3))

    def kill(self: Continuation, trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        before(self, trainer)

    before = Continuation.on_train_epoch_start
    Continuation.on_train_epoch_start = kill
    try:
        with pytest.raises(KeyboardInterrupt):
            train(start, tmp_path / "killed" / "train", asked(data, epochs=3))
    finally:
        Continuation.on_train_epoch_start = before
    resumed = train(start, tmp_path / "killed" / "train", asked(data, epochs=3))
    assert resumed.trainer.start_epoch == 1
    assert equal(resumed.trainer.ema.ema, whole.trainer.ema.ema)


def test_group_sparse_training_regularises(data: Path, tmp_path: Path) -> None:
    start = write_for_ultralytics(small("yolov7-tiny"), tmp_path / "start.pt")
    training = asked(data, sparsity=Sparsity(strength=0.05), keywords={"val": False})
    train(start, tmp_path / "run", training)
    assert len((tmp_path / "run" / "sparsity.csv").read_text().splitlines()) > 1


def test_the_unpruned_network_teaches(data: Path, tmp_path: Path) -> None:
    network = small("yolov7-w6").eval()
    for parameter in network.head.m.parameters():
        nn.init.normal_(parameter)
    teacher = write_for_ultralytics(network, tmp_path / "teacher.pt")
    plan = trace(network, torch.rand(1, 3, 128, 128)).random_plan(0.7, seed=0)
    plan.save(tmp_path / "plan.json")
    start = write_for_ultralytics(plan.apply(copy.deepcopy(network)), tmp_path / "start.pt")
    distillation = Distillation(teacher=str(teacher), plan=str(tmp_path / "plan.json"))
    train(start, tmp_path / "run", asked(data, distillation=distillation))
    header, row = (line.split(",") for line in (tmp_path / "run" / "results.csv").read_text().splitlines())
    found = dict(zip(header, row, strict=True))
    assert float(found["train/out_loss"]) > 0
    assert float(found["train/feat_loss"]) > 0


def test_data_with_other_classes_get_new_class_rows_only(tmp_path: Path) -> None:
    network = small("yolov7-tiny")
    start = write_for_ultralytics(network, tmp_path / "start.pt")
    other = write_data(tmp_path / "other", ["dark", "bright"])
    train(start, tmp_path / "run", asked(other, keywords={"lr0": 1e-12, "val": False}))
    trained = checkpoints.load(tmp_path / "run" / "weights" / "last.pt").model
    assert (trained.nc, trained.head.nc, trained.head.no) == (2, 2, 7)
    assert trained.names == {0: "dark", 1: "bright"}
    for old, new in zip(network.head.m, trained.head.m, strict=True):
        was, now = (conv.weight.unflatten(0, (3, -1)) for conv in (old, new))
        torch.testing.assert_close(now[:, :5], was[:, :5], rtol=1e-3, atol=1e-3)
    assert trained(torch.rand(1, 3, 64, 64))[0].shape[1] == 6


def test_other_classes_leave_boxes_and_objectness_of_auxiliary_heads_too() -> None:
    network = small("yolov7-w6", nc=3)
    network.head.im[0].implicit.data.normal_()
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        before = network(image)
        network.head.refit(4)
        after = network(image)
    for was, now in zip(before, after, strict=True):
        assert now.shape[-1] == 9
        torch.testing.assert_close(now[..., :5], was[..., :5])


def test_a_detector_trains_from_and_to_official_files(data: Path, tmp_path: Path) -> None:
    original = detectors.wrap(small("yolov7-tiny"))
    for parameter in original.network.head.m.parameters():
        nn.init.normal_(parameter)
    original.save(tmp_path / "original.pt")
    plan = original.trace().random_plan(0.7, seed=0)
    plan.save(tmp_path / "plan.json")
    original.holding(plan.apply(copy.deepcopy(original.network))).save(tmp_path / "pruned.pt")
    pruned, folder = detectors.load(tmp_path / "pruned.pt"), tmp_path / "steps" / "train"
    distillation = Distillation(teacher=str(tmp_path / "original.pt"), plan=str(tmp_path / "plan.json"))
    trained = pruned.train(tmp_path / "pruned.pt", folder, asked(data, distillation=distillation, rollback=True))
    assert type(trained.detector) is type(pruned)
    assert trained.epochs == 1
    assert "mAP50-95" in trained.metrics
    trained.detector.save(tmp_path / "trained.pt")
    assert shapes(detectors.load(tmp_path / "trained.pt").network) == shapes(pruned.network)
    pruned.forget_training(folder)
    assert not [file.name for file in folder.rglob("*.pt") if file.name not in ("best.pt", "last.pt")]


def test_the_loss_of_a_detector_has_gradients_in_every_layer() -> None:
    own = detectors.wrap(small("yolov7-tiny"))
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[1.0], [2.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.4, 0.6, 0.5, 0.5]]),
    }
    losses = [own.training_loss({"box": box})(own.network, batch) for box in (7.5, 15)]
    assert losses[1] > losses[0]
    losses[0].backward()
    assert all(p.grad is not None for p in own.network.parameters())
