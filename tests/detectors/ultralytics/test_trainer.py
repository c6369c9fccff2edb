"""A pruned network stays pruned through Ultralytics' training, and stock training never silently undoes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file
from ultralytics.utils.patches import torch_load

import yoloprune
from tests.small_yolo import OTHER_TASKS, SHORT, interrupt_in, narrow, shapes, write_data
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.stock_training import SENTENCE, is_marked, is_pruned
from yoloprune.detectors.ultralytics.trainers import pruned as trainer
from yoloprune.detectors.ultralytics.trainers.sparse import bind
from yoloprune.errors import UserError
from yoloprune.sparsity import TABLE, Sparsity, read_rows


def train(yolo: YOLO, data: Path, project: Path, **options: Any) -> Any:
    return yolo.train(data=str(data), project=str(project), name="run", **{**SHORT, **options})


def test_training_keeps_the_shapes_everywhere(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    before = shapes(pruned_yolo.model)
    weight = pruned_yolo.model.model[0].conv.weight.detach().clone()
    train(pruned_yolo, tiny_data, tmp_path, epochs=2)
    assert shapes(pruned_yolo.model) == before
    assert not torch.equal(pruned_yolo.model.model[0].conv.weight, weight), "nothing was trained"
    for name in ("last.pt", "best.pt"):
        stored = checkpoints.load(tmp_path / "run" / "weights" / name)
        assert shapes(stored.model) == before
        assert is_marked(stored.model)


def test_training_starts_from_the_given_weights(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in pruned_yolo.model.state_dict().items()}
    train(pruned_yolo, tiny_data, tmp_path, lr0=1e-12, warmup_epochs=0, weight_decay=0.0)
    after = pruned_yolo.model.state_dict()
    for name, tensor in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], tensor, rtol=2e-3, atol=1e-4, msg=name)  # float16 on disk


def test_an_interrupted_run_resumes(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    before = shapes(pruned_yolo.model)
    interrupt_in(pruned_yolo, epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train(pruned_yolo, tiny_data, tmp_path, epochs=3)
    last = tmp_path / "run" / "weights" / "last.pt"
    with pytest.raises(KeyError, match="pruned by yoloprune"):
        ultralytics.YOLO(last).train(resume=True, device="cpu")
    resumed = checkpoints.load(last)
    resumed.train(resume=True, device="cpu")
    assert resumed.trainer.start_epoch == 1
    assert resumed.trainer.epoch == 2
    assert shapes(resumed.model) == before


def test_stock_training_stops_with_the_sentence(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    stock = ultralytics.YOLO(tmp_path / "pruned.pt")
    with pytest.raises(KeyError) as error:
        stock.train(data=str(tiny_data), project=str(tmp_path), **SHORT)
    assert str(error.value) == f"'{SENTENCE}'", "a traceback prints the sentence as it is"


def test_the_stock_command_line_stops_too(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    overrides = {**SHORT, "model": str(tmp_path / "pruned.pt"), "data": str(tiny_data), "project": str(tmp_path)}
    run = ultralytics.models.yolo.detect.DetectionTrainer(overrides=overrides)  # what `yolo train model=` makes
    with pytest.raises(KeyError, match="pruned by yoloprune"):
        run.train()


def test_our_trainer_takes_the_network_from_a_file(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    overrides = {**SHORT, "model": str(tmp_path / "pruned.pt"), "data": str(tiny_data), "project": str(tmp_path)}
    run = trainer.PrunedDetectionTrainer(overrides=overrides)
    run.setup_model()
    assert shapes(run.model) == shapes(pruned_yolo.model)
    assert all(p.requires_grad for p in run.model.parameters())


def test_other_class_counts_get_new_class_layers_only(
    pruned_yolo: YOLO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = shapes(pruned_yolo.model)
    boxes = pruned_yolo.model.model[-1].cv2[0][-1].bias.detach().clone() + 0.5
    pruned_yolo.model.model[-1].cv2[0][-1].bias.data.copy_(boxes)
    data = write_data(tmp_path / "two", ["dark", "bright"])
    caplog.set_level("INFO", logger="ultralytics")
    ultralytics.utils.LOGGER.addHandler(caplog.handler)
    try:
        train(pruned_yolo, data, tmp_path, lr0=1e-12, warmup_epochs=0)
    finally:
        ultralytics.utils.LOGGER.removeHandler(caplog.handler)
    assert "The data have 2 classes and the network 80" in caplog.text
    after = shapes(pruned_yolo.model)
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert set(changed) == {f"model.22.cv3.{i}.2.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert all(new[0] == 2 and old[1:] == new[1:] for old, new in changed.values())
    head = pruned_yolo.model.model[-1]
    assert (head.nc, head.no) == (2, 66)
    assert pruned_yolo.model.names == {0: "dark", 1: "bright"}
    torch.testing.assert_close(head.cv2[0][-1].bias, boxes, rtol=2e-3, atol=1e-3)
    prior = torch.log(torch.tensor(5 / 2 / (640 / 8) ** 2))
    torch.testing.assert_close(head.cv3[0][-1].bias, prior.expand(2), rtol=2e-3, atol=1e-3)


def test_class_rows_move_by_name(pruned_yolo: YOLO, tmp_path: Path) -> None:
    pruned_yolo.model.names = {**{i: f"thing {i}" for i in range(80)}, 7: "bright"}
    row = pruned_yolo.model.model[-1].cv3[0][-1].weight[7].detach().clone()
    data = write_data(tmp_path / "two", ["dark", "bright"])
    train(pruned_yolo, data, tmp_path, lr0=1e-12, warmup_epochs=0)
    torch.testing.assert_close(pruned_yolo.model.model[-1].cv3[0][-1].weight[1], row, rtol=2e-3, atol=1e-3)


def test_unpruned_models_train_as_in_stock(tiny_data: Path, tmp_path: Path) -> None:
    results = []
    for cls in (YOLO, ultralytics.YOLO):
        torch.manual_seed(0)
        with quiet():
            yolo = cls("yolov8n.yaml")
        train(yolo, tiny_data, tmp_path / cls.__module__)
        assert not is_pruned(yolo.model)
        results.append(yolo.model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[1])


@pytest.mark.parametrize("pretrained", [False, "other.pt"])
def test_pretrained_is_refused(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, pretrained: Any) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "other.pt")
    value = pretrained if pretrained is False else str(tmp_path / pretrained)
    with pytest.raises(UserError, match="pretrained="):
        train(pruned_yolo, tiny_data, tmp_path, pretrained=value)


def test_several_data_sets_in_one_call(pruned_yolo: YOLO, tmp_path: Path) -> None:
    before = shapes(pruned_yolo.model)
    data = [str(write_data(tmp_path / name, [str(i) for i in range(80)], images=2)) for name in "ab"]
    pruned_yolo.train(data=data, project=str(tmp_path / "runs"), **SHORT)
    files = sorted((tmp_path / "runs").rglob("best.pt"))
    assert len(files) == 2
    assert all(shapes(checkpoints.load(file).model) == before for file in files)
    assert shapes(pruned_yolo.model) == before


def test_trainers_survive_the_ddp_launcher(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle", reason="Ultralytics' DDP launcher needs cloudpickle")
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    overrides = {**SHORT, "model": str(tmp_path / "pruned.pt"), "data": str(tiny_data), "project": str(tmp_path)}
    run = trainer.PrunedDetectionTrainer(overrides=overrides)
    run.setup_model()
    file = generate_ddp_file(run)
    try:
        state = torch_load(Path(file).with_suffix(".pt"), map_location="cpu")
    finally:
        ddp_cleanup(run, file)
    assert state["trainer"] is trainer.PrunedDetectionTrainer
    assert shapes(state["model"]) == shapes(pruned_yolo.model)


class Noting(ultralytics.models.yolo.detect.DetectionTrainer):
    """Somebody's own trainer."""

    def preprocess_batch(self, batch: dict) -> dict:
        self.seen = getattr(self, "seen", 0) + 1
        return super().preprocess_batch(batch)


class Mine(yoloprune.KeepPruned, Noting):
    """The same by hand."""


@pytest.mark.parametrize("own", [Mine, yoloprune.keep_pruned(Noting)])
def test_own_trainers_keep_pruned_networks(own: type, pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    stock = ultralytics.YOLO(tmp_path / "pruned.pt")
    stock.train(trainer=own, data=str(tiny_data), project=str(tmp_path), name="run", **SHORT)
    assert shapes(stock.model) == shapes(pruned_yolo.model)
    assert is_marked(stock.model)
    assert stock.trainer.seen == 2
    sparse = bind(own, Sparsity(strength=1e-3))
    checkpoints.load(tmp_path / "pruned.pt").train(trainer=sparse, data=str(tiny_data), project=str(tmp_path), **SHORT)
    assert len(read_rows(tmp_path / "train" / TABLE)) == 1


def test_what_keep_pruned_takes() -> None:
    kept = yoloprune.keep_pruned(Noting)
    assert (kept.__name__, kept.__module__, kept.__doc__) == ("Noting", __name__, "Somebody's own trainer.")
    assert yoloprune.keep_pruned(kept) is kept
    classify = type("Own", (ultralytics.models.yolo.classify.ClassificationTrainer,), {})
    assert issubclass(yoloprune.keep_pruned(classify), trainer.PrunedClassificationTrainer)
    with pytest.raises(UserError, match=r"a subclass of a trainer of Ultralytics, and not <class 'int'>"):
        yoloprune.keep_pruned(int)


def test_prediction_before_training_does_no_harm(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    pruned_yolo.predict(torch.zeros(1, 3, 64, 64), imgsz=64, verbose=False)
    train(pruned_yolo, tiny_data, tmp_path)
    assert is_pruned(pruned_yolo.model)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("yolov8n-seg.yaml", trainer.PrunedSegmentationTrainer),
        ("yolov8n-pose.yaml", trainer.PrunedPoseTrainer),
        ("yolov8n-obb.yaml", trainer.PrunedOBBTrainer),
        ("yolov8n-cls.yaml", trainer.PrunedClassificationTrainer),
        ("yolo26n-seg.yaml", trainer.PrunedSegmentationTrainer),
        ("yolov10n.yaml", trainer.PrunedDetectionTrainer),
        ("yolov8n-worldv2.yaml", trainer.PrunedWorldTrainer),
        ("yolov8-rtdetr.yaml", trainer.PrunedRTDETRTrainer),
    ],
)
@pytest.mark.parametrize("nc", [None, 3])
def test_every_task_has_a_trainer_that_keeps_the_network(name: str, cls: type, nc: int | None, tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR(name) if "rtdetr" in name else name)
    narrow(yolo.model)
    assert is_pruned(yolo.model)
    assert yolo._smart_load("trainer") is cls
    assert "Trainer" in cls.__name__
    old = yolo.model.model[-1].linear.out_features if "cls" in name else yolo.model.model[-1].nc
    run = cls.__new__(cls)  # get_model reads only what follows
    run.args = ultralytics.cfg.get_cfg(overrides={"task": yolo.task})
    run.resume, run.callbacks = False, {"on_pretrain_routine_end": []}
    run.data = {"nc": nc or old, "names": {i: f"c{i}" for i in range(nc or old)}, "channels": 3, "kpt_shape": [17, 3]}
    network = run.get_model(weights=yolo.model, cfg=yolo.model.yaml)
    assert network is not yolo.model
    before, after = shapes(yolo.model), shapes(network)
    changed = {key for key in before if before[key] != after[key]}
    assert all(old in before[key] and (nc or old) in after[key] for key in changed)
    assert bool(changed) == (nc is not None and "world" not in name)
    with torch.inference_mode():
        network.eval()(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(("name", "task"), [*OTHER_TASKS, ("yolov8-rtdetr.yaml", "detect")])
def test_every_task_trains_pruned_on_other_classes(name: str, task: str, tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR(name) if "rtdetr" in name else name)
    narrow(yolo.model)
    inner = yolo.model.model[2].m[0].cv1.conv.weight.shape
    train(yolo, write_data(tmp_path / "data", ["dark", "bright"], task=task), tmp_path)
    assert yolo.model.model[2].m[0].cv1.conv.weight.shape == inner
    assert is_marked(yolo.model)
    assert len(yolo.model.names) == 2


def test_data_that_the_pruned_network_cannot_take(tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO("yolov8n-pose.yaml")
    narrow(yolo.model)
    run = trainer.PrunedPoseTrainer.__new__(trainer.PrunedPoseTrainer)
    run.args, run.resume = ultralytics.cfg.get_cfg(), False
    for data, message in (
        ({"nc": 1, "channels": 1, "kpt_shape": [17, 3]}, "1 image channels"),
        ({"nc": 1, "channels": 3, "kpt_shape": [5, 2]}, r"kpt_shape \[5, 2\]"),
    ):
        run.data = data
        with pytest.raises(UserError, match=message):
            run.get_model(weights=yolo.model, cfg=copy.deepcopy(yolo.model.yaml))


def test_a_kill_while_checkpoints_are_written_leaves_the_earlier_ones(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics writes them in place: a kill left a `best.pt` that could not be read, and the run could not go on."""
    checkpoints.save(pruned_yolo, tmp_path / "start.pt")
    overrides = {**SHORT, "model": str(tmp_path / "start.pt"), "data": str(tiny_data), "project": str(tmp_path)}
    run = trainer.PrunedDetectionTrainer(overrides=overrides)
    whole = (tmp_path / "start.pt").read_bytes()
    for file in (run.last, run.best):
        file.write_bytes(whole)

    def killed(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "write_bytes", killed)
        for file in (run.last, run.best):
            with pytest.raises(KeyboardInterrupt):
                file.write_bytes(b"another")
            assert file.read_bytes() == whole
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", lambda content, file: killed(Path(file), whole))
        with pytest.raises(KeyboardInterrupt):
            run.final_eval()
    assert run.last.read_bytes() == run.best.read_bytes() == whole
    assert {file.name for file in run.wdir.iterdir()} == {"last.pt", "best.pt"}
