"""Group-sparse training through Ultralytics' trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics

from tests import small_yolo
from tests.small_yolo import OTHER_TASKS, equal, launched, narrow, shapes, write_data, write_few_digits
from yoloprune.demo import digits
from yoloprune.detectors.base import Training
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.stock_training import is_pruned
from yoloprune.detectors.ultralytics.trainers import pruned as trainer
from yoloprune.detectors.ultralytics.trainers import sparse
from yoloprune.detectors.ultralytics.trainers.continuation import Continuation
from yoloprune.detectors.ultralytics.trainers.sparse import bind
from yoloprune.detectors.ultralytics.trainers.training import train as run
from yoloprune.errors import UserError
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.train import with_new_statistics
from yoloprune.sparsity import Sparsity, read_rows

SHORT = {
    **small_yolo.SHORT,
    "nbs": 2,
    "conf": 0.9,  # untrained networks would keep non-maximum suppression busy for seconds
}


def train(yolo: YOLO, sparsity: Sparsity, data: Path, project: Path, **options: Any) -> Any:
    sparse_trainer = bind(yolo._smart_load("trainer"), sparsity)
    yolo.train(trainer=sparse_trainer, data=str(data), project=str(project), name="run", **{**SHORT, **options})
    return yolo.trainer


def run_sparse(start: Path, data: Path, folder: Path, **options: Any) -> YOLO:
    keywords = {key: SHORT[key] for key in ("workers", "plots", "amp", "nbs", "verbose", "mosaic", "conf")}
    keywords |= {"warmup_epochs": 0, "val": False}
    asked = {key: SHORT[key] for key in ("imgsz", "batch", "device", "epochs")} | {"seed": 0, "instead": "do not"}
    asked |= {"sparsity": Sparsity(strength=0.02), "keywords": keywords, **options}
    return run(start, folder, Training(data=str(data), **asked))


def differing(a: torch.nn.Module, b: torch.nn.Module) -> set[str]:
    """The last parts of the names of tensors that are not equal."""
    two = b.state_dict()
    return {name.rpartition(".")[2] for name, tensor in a.state_dict().items() if not torch.equal(tensor, two[name])}


def test_the_gradient_comes_between_unscaling_and_clipping(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched_clip(*args: Any, **kwargs: Any) -> Any:
        happened.append("clip")
        return clip(*args, **kwargs)

    def watch(running: Any) -> None:
        unscale, call, update = running.scaler.unscale_, type(running._regulariser).__call__, running.ema.update
        step = running.optimizer.step
        running.scaler.__class__ = type("Watched", (type(running.scaler),), {})
        running.scaler.__class__.unscale_ = lambda self, o: (happened.append("unscale"), unscale(o))[1]
        monkeypatch.setattr(
            type(running._regulariser), "__call__", lambda self, s: (happened.append("regularise"), call(self, s))[1]
        )
        running.ema.update = lambda m: (happened.append("ema"), update(m))[1]
        running.optimizer.step = lambda *a: (happened.append("step"), step(*a))[1]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched_clip)
    pruned_yolo.add_callback("on_train_start", watch)
    running = train(pruned_yolo, Sparsity(), tiny_data, tmp_path)
    assert happened == ["unscale", "regularise", "clip", "step", "ema"] * 2
    assert "unscale_" not in vars(running.scaler)


def test_strength_zero_is_training_as_ever(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "start.pt")
    states = []
    for name, strength in (("none", None), ("zero", 0.0), ("some", 0.05)):
        yolo = checkpoints.load(tmp_path / "start.pt")
        if strength is None:
            yolo.train(data=str(tiny_data), project=str(tmp_path / name), name="run", **SHORT)
        else:
            train(yolo, Sparsity(strength=strength, warmup=0.0), tiny_data, tmp_path / name)
        states.append(yolo.model)
        assert shapes(yolo.model) == shapes(pruned_yolo.model)
        assert is_pruned(yolo.model)
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_head_takes_part_on_request(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    for prune_head in (False, True):
        bound = bind(trainer.PrunedDetectionTrainer, Sparsity(), prune_head=prune_head)
        overrides = {**SHORT, "model": str(tmp_path / "pruned.pt"), "data": str(tiny_data), "project": str(tmp_path)}
        checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
        running = bound(overrides=overrides)
        running._setup_train()
        hidden = running.model.model[-1].cv2[0][0].bn.weight
        for parameter in running.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        running._regulariser()
        assert bool(hidden.grad.any()) is prune_head


def test_the_table_and_new_statistics(tmp_path: Path) -> None:
    data = write_few_digits(tmp_path / "digits", train=8, val=8)
    options = Sparsity(strength=0.05, warmup=0.5, growth=4.0)
    folder = tmp_path / "sparse"
    yolo = run_sparse(digits.WEIGHTS, data, folder, sparsity=options, epochs=4, batch=4)
    rows = read_rows(folder / "sparsity.csv")
    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    assert [row.strength for row in rows] == pytest.approx([0.025, 0.05, 0.1, 0.2])
    assert rows[-1].quantiles != rows[0].quantiles
    assert not is_pruned(yolo.model)
    options = Options(target_ratio=0.5, data=str(data), imgsz=64, batch=4, device="cpu")
    renewed = with_new_statistics(UltralyticsDetector(yolo), options)
    assert differing(renewed.network, yolo.model) == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("batch", [2, 3])  # of four images: with and without a rest
def test_a_resumed_run_ends_where_a_whole_one_does(
    batch: int, pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.pt"
    checkpoints.save(pruned_yolo, start)
    whole = run_sparse(start, tiny_data, tmp_path / "whole", epochs=3, batch=batch)

    original = Continuation.on_train_epoch_start

    def interrupt(self: Continuation, running: Any) -> None:
        if running.epoch == 2:
            raise KeyboardInterrupt
        original(self, running)

    monkeypatch.setattr(Continuation, "on_train_epoch_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sparse(start, tiny_data, tmp_path / "cut", epochs=3, batch=batch)
    monkeypatch.undo()
    assert len(read_rows(tmp_path / "cut" / "sparsity.csv")) == 2
    resumed = run_sparse(start, tiny_data, tmp_path / "cut", epochs=3, batch=batch)
    assert equal(whole.model, resumed.model)
    tables = [(tmp_path / name / "sparsity.csv").read_text() for name in ("whole", "cut")]
    assert tables[0] == tables[1]


def test_options_survive_the_ddp_launcher(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    """A fresh interpreter runs the file that the launcher gives to each process, here for one process on the CPU."""
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    overrides = {**SHORT, "model": str(tmp_path / "pruned.pt"), "data": str(tiny_data), "project": str(tmp_path)}
    options = Sparsity(strength=0.125, alpha=2.0, scope="convolutions", warmup=0.25, growth=3.0)
    running = bind(trainer.PrunedDetectionTrainer, options, prune_head=True)(overrides=overrides)
    running.setup_model()
    asked = "type(trainer).__name__, trainer.sparsity, trainer.prune_head, trainer._regulariser.scope"
    said = ("SparsePrunedDetectionTrainer", options, True, "convolutions")
    assert launched(running, asked) == repr(said)
    (row,) = read_rows(running.save_dir / "sparsity.csv")
    assert row.strength == pytest.approx(0.375), "one epoch, so the last: three times the strength"
    assert shapes(checkpoints.load(running.save_dir / "weights" / "last.pt").model) == shapes(pruned_yolo.model)


@pytest.mark.parametrize(("name", "task"), [*OTHER_TASKS, ("yolo11n.yaml", "detect")])
def test_every_task_trains(name: str, task: str, tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(name)
    if task == "segment":  # a pruned network too
        narrow(yolo.model)
    before = shapes(yolo.model)
    data = write_data(tmp_path / "data", ["dark", "bright"], task=task)
    with quiet():
        running = train(yolo, Sparsity(), data, tmp_path)
    assert isinstance(running, sparse.SparseTrainer)
    assert len(read_rows(tmp_path / "run" / "sparsity.csv")) == 1
    assert before.keys() == shapes(yolo.model).keys()


def test_every_stock_trainer_has_a_sparse_one() -> None:
    for stock, own in trainer.TRAINERS.items():
        for given in (stock, own):
            bound = bind(given, Sparsity(strength=0.5))
            assert issubclass(bound, own)
            assert "Trainer" in bound.__name__
            assert bound.sparsity.strength == 0.5
        assert not hasattr(own, "sparsity"), "the class itself stays as it was"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"strength": -1}, "strength=-1 is no strength"),
        ({"scope": "norms"}, "Unknown scope 'norms'"),
        ({"alpha": 99}, "alpha=99 is out of range"),
        ({"warmup": 2}, "warmup=2 is no share"),
        ({"growth": 0}, "growth=0 is no factor"),
    ],
)
def test_mistakes_in_options(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Sparsity(**wrong)


def test_trainers_without_a_sparse_one() -> None:
    with pytest.raises(UserError, match="no group-sparse training for YOLOETrainer"):
        bind(ultralytics.models.yolo.yoloe.YOLOETrainer, Sparsity())
