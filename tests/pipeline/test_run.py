"""`yoloprune.prune`: a run from Python."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from torch import nn

import yoloprune
from tests.small_yolo import equal, put, shallow_weights, write_data
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.cost import gflops
from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.pipeline.exact import _alone
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.recipe import merge, read_recipe
from yoloprune.pipeline.targets import Cost, step_targets
from yoloprune.pipeline.train import train_keywords
from yoloprune.report import Record

BY_WEIGHTS = {"criterion": "l2", "recover": False}  # which takes no images


@pytest.fixture
def model() -> ultralytics.YOLO:
    return ultralytics.YOLO(digits.WEIGHTS)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> tuple[yoloprune.PruneResult, Path]:
    """A run of two steps over a model in memory, and its folder."""
    root = tmp_path_factory.mktemp("runs")
    words = {"target_ratio": 0.6, "steps": 2, "project": root, "name": "whole"}
    return yoloprune.prune(ultralytics.YOLO(shallow_weights()), **words, **BY_WEIGHTS), root / "whole"


@pytest.fixture
def shallow() -> ultralytics.YOLO:
    """A model with which a run takes a moment."""
    return ultralytics.YOLO(shallow_weights())


def test_prunes_and_does_nothing_else(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = copy.deepcopy(model.model)
    result = yoloprune.prune(model, target_gflops=6, **BY_WEIGHTS)
    assert equal(model.model, before)
    assert not list(tmp_path.iterdir())
    assert result.save_dir is None
    assert isinstance(result.model, ultralytics.YOLO)
    assert result.model.model is not model.model
    printed = result.model.info(verbose=True)
    assert 0.98 * 6 <= printed[3] <= 6
    assert result.metrics["after"] == {"gflops": pytest.approx(printed[3]), "params": printed[1]}
    assert result.metrics["before"]["params"] == sum(p.numel() for p in before.parameters())
    assert "GFLOPs" in str(result.report)
    assert equal(result.plan.apply(before), result.model.model)


def test_images_are_as_large_as_in_the_training_of_the_weights(tmp_path) -> None:
    result = yoloprune.prune(
        digits.WEIGHTS, target_ratio=0.8, recover=False, project=tmp_path, name="a", criterion="l2"
    )
    assert result.report.imgsz == 160
    assert "Images are 160 px, as in the training of the weights." in result.report.notes
    yoloprune.prune(
        shallow_weights(), target_ratio=0.8, recover=False, imgsz=96, project=tmp_path, name="b", criterion="l2"
    )
    assert ultralytics.YOLO(tmp_path / "b" / "pruned.pt").overrides["imgsz"] == 96


def test_path_and_object_give_the_same(shallow) -> None:
    a = yoloprune.prune(shallow, target_ratio=0.7, **BY_WEIGHTS)
    b = yoloprune.prune(shallow_weights(), target_ratio=0.7, **BY_WEIGHTS)
    assert equal(a.model.model, b.model.model)


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_exports_of_the_pruned_model_leave_those_of_the_original_alone(tmp_path, where) -> None:
    weights, onnx = tmp_path / "mine.pt", tmp_path / "mine.onnx"
    weights.write_bytes(digits.WEIGHTS.read_bytes())
    onnx.write_text("precious")
    folder = {"project": tmp_path, "name": "run"} if where == "folder" else {}
    model = yoloprune.prune(ultralytics.YOLO(weights), target_ratio=0.8, **folder, **BY_WEIGHTS).model
    expected = tmp_path / "run" / "pruned.onnx" if folder else tmp_path / "mine-pruned.onnx"
    assert Path(model.export(format="onnx", imgsz=32)) == expected
    assert expected.stat().st_size > 1_000_000
    assert onnx.read_text() == "precious"


def test_a_model_of_a_yaml_names_its_pruned_self(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = yoloprune.prune(ultralytics.YOLO("yolov8n.yaml"), target_ratio=0.8, **BY_WEIGHTS).model
    assert model.ckpt_path == model.model.pt_path == "yolov8n-pruned.pt"


def test_steps_compose_into_one_plan(shallow, tmp_path) -> None:
    result = yoloprune.prune(shallow, target_ratio=0.6, steps=3, project=tmp_path, name="run", **BY_WEIGHTS)
    network = copy.deepcopy(shallow.model).float()
    assert equal(result.plan.apply(network).half(), result.model.model.half())
    rows = result.report.steps
    assert [row.step for row in rows] == [1, 2, 3]
    assert rows[0].gflops > rows[1].gflops > rows[2].gflops
    again = Record.load(tmp_path / "run" / "results.json")
    assert again == result.report


def test_resumed_run_ends_where_a_whole_one_does(shallow, two_steps, tmp_path) -> None:
    whole = two_steps[1]
    run = Path(shutil.copytree(whole, tmp_path / "cut"))
    record = Record.load(run / "results.json")  # as it was after the first of the two steps
    record.after, record.steps = None, record.steps[:1]
    put(run, "results.json", record.save)
    for name in ("pruned.pt", "plan.json", "steps/2/pruned.pt", "steps/2/plan.json"):
        (run / name).unlink()
    with pytest.raises(UserError, match="model in memory"):
        yoloprune.prune(resume=run)
    result = yoloprune.prune(shallow, resume=run)
    assert equal(result.model.model, checkpoints.load(whole / "pruned.pt").model)
    assert (run / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()


def _write(path: Path, text: str) -> None:
    with atomic(path) as tmp:
        tmp.write_text(text)


def test_a_run_is_resumed_where_its_format_can_no_longer_be_written(shallow, tmp_path, monkeypatch) -> None:
    where = {"project": tmp_path, "name": "run"}
    yoloprune.prune(shallow, target_ratio=0.8, imgsz=64, export="torchscript", **where, **BY_WEIGHTS)
    args = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    other = yaml.safe_dump({**args, "export": "openvino"})
    put(tmp_path / "run", "args.yaml", lambda path: _write(path, other))
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.setattr("yoloprune.deploy.formats.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = yoloprune.prune(shallow, resume=tmp_path / "run")
    assert result.report.finished
    assert "'openvino'" in result.report.notes[-1]
    with pytest.raises(UserError, match="needs the Python package 'openvino'"):
        yoloprune.prune(shallow, target_ratio=0.8, export="openvino", project=tmp_path, name="other", **BY_WEIGHTS)
    assert not (tmp_path / "other").exists()


def test_resume_refuses_other_weights(shallow, tmp_path) -> None:
    yoloprune.prune(shallow, target_ratio=0.6, project=tmp_path, name="run", **BY_WEIGHTS)
    with torch.no_grad():
        shallow.model.model[0].conv.weight.mul_(2)
    with pytest.raises(UserError, match="does not hold the weights"):
        yoloprune.prune(shallow, resume=tmp_path / "run")


def test_taylor_looks_at_training_images(model, all_digits) -> None:
    with pytest.raises(UserError, match="data"):
        yoloprune.prune(model, target_ratio=0.7, criterion="taylor", recover=False)
    results = [
        yoloprune.prune(
            model, target_ratio=0.7, criterion="taylor", recover=False, data=all_digits, imgsz=96,
            calibration_images=12, batch=8,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert equal(results[0].model.model, results[1].model.model)
    assert not equal(results[0].model.model, yoloprune.prune(model, target_ratio=0.7, **BY_WEIGHTS).model.model)


def test_labels_that_rank_have_the_classes_of_the_model(model, tmp_path) -> None:
    data = write_data(tmp_path, ["a", "b", "c"])
    with pytest.raises(UserError, match="has 3 classes and the weights 10"):
        yoloprune.prune(model, target_ratio=0.7, criterion="taylor", data=data)


def test_mistakes_are_value_errors(model) -> None:
    with pytest.raises(ValueError, match="range"):
        yoloprune.prune(model, target_gflops=100, **BY_WEIGHTS)
    with pytest.raises(UserError, match="Exactly one"):
        yoloprune.prune(model, **BY_WEIGHTS)
    with pytest.raises(UserError, match="No model"):
        yoloprune.prune(target_gflops=1, **BY_WEIGHTS)
    with pytest.raises(UserError, match="The given DetectionModel is no PyTorch model"):
        yoloprune.prune(model.model, target_gflops=1, **BY_WEIGHTS)
    with pytest.raises(UserError, match="did you mean 'optimizer'"):
        yoloprune.prune(model, target_gflops=4, optimiser="SGD", **BY_WEIGHTS)


class Averaging(nn.Module):
    """A block with a number that no trace sees come from a width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.sum(1, keepdim=True) * (1.0 / x.shape[1])


def test_a_block_that_cannot_be_followed_is_found_before_anything_is_written(model, tmp_path) -> None:
    model.model.model[3].act = Averaging()
    with pytest.raises(UserError, match=r"differs by .* zeroed: some block of this model") as caught:
        yoloprune.prune(model, target_ratio=0.7, project=tmp_path, name="run", **BY_WEIGHTS)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert str(caught.value).endswith("keep these (--keep model.3.conv).")
    kept = yoloprune.prune(model, target_ratio=0.7, keep="model.3.conv", **BY_WEIGHTS).model
    assert kept.model.model[3].conv.out_channels == 64


def test_layers_that_are_to_blame_are_told_apart_from_those_that_only_fail_together() -> None:
    def fails(alone, together):
        return lambda parts: bool({*parts} & alone) or {*parts} >= together

    assert _alone([*range(9)], fails({2, 7}, {0})) == [0, 2, 7]
    assert _alone([*range(9)], fails(set(), {0, 8})) == []


def test_kept_layers_keep_their_channels_and_the_target_is_met_by_the_others(model) -> None:
    result = yoloprune.prune(model, target_ratio=0.7, keep=["model.0", "model.4.cv*"], **BY_WEIGHTS)
    before, after = (dict(m.model.named_modules()) for m in (model, result.model))
    for name in ("model.0.conv", "model.4.cv1.conv", "model.4.cv2.conv"):
        assert after[name].out_channels == before[name].out_channels
    assert after["model.3.conv"].out_channels < before["model.3.conv"].out_channels
    assert 0.67 * gflops(model.model, 640) < gflops(result.model.model, 640) <= 0.7 * gflops(model.model, 640)


def test_a_layer_that_is_to_be_kept_must_be_there(model) -> None:
    with pytest.raises(UserError, match=r"keep='modle\.0' is no layer of the model; did you mean 'model\.0'\?"):
        yoloprune.prune(model, target_ratio=0.7, keep="model.1, modle.0", **BY_WEIGHTS)


def test_each_step_is_checked_against_zeroed_channels(two_steps) -> None:
    result, run = two_steps
    assert all(0 <= row.mask_error < 1e-12 for row in result.report.steps)
    assert "largest\nrelative difference" in (run / "report.html").read_text()


def test_step_targets_are_geometric() -> None:
    targets = step_targets(Options(target_gflops=1.0, steps=3), Cost(8.0, 100))
    assert [t.gflops for t in targets] == pytest.approx([4, 2, 1])
    targets = step_targets(Options(target_params=25, steps=2), Cost(8.0, 100))
    assert [t.params for t in targets] == [50, 25]
    assert step_targets(Options(target_ratio=0.25), Cost(8.0, 100))[0].gflops == 2


@pytest.mark.parametrize("name", ["custom", "quick", "coco", "digits"])
def test_recipes_are_valid(name) -> None:
    content = read_recipe(name)
    assert merge(content, {"target_gflops": 5.0}).target_gflops == 5.0  # takes the place of the recipe's own target
    assert merge(content, {"target_gflops": 5.0, "train": {"lr0": 0.5}}).train["lr0"] == 0.5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"trust": True}, "unknown option 'trust'"),
        ({"train": 3}, "train must be a mapping"),
        ([1], "must be a mapping"),
    ],
)
def test_broken_recipes(tmp_path, content, sentence) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=sentence):
        read_recipe(str(path))


@pytest.mark.parametrize("name", ["none", "mine.yaml"])
def test_missing_recipes_name_those_that_are_there(name) -> None:
    with pytest.raises(UserError, match=f"recipe {name} does not exist; .* one of coco, custom, digits"):
        read_recipe(name)


def test_options_survive_the_file(tmp_path) -> None:
    options = Options(target_params=5, epochs=3, data="a.yaml", train={"lr0": 0.1, "mosaic": 0.0})
    options.save(tmp_path / "args.yaml", weights="w.pt")
    content = yaml.safe_load(Path(tmp_path / "args.yaml").read_text())
    assert content.pop("weights") == "w.pt"
    assert Options(**content) == options


def test_learning_rate_follows_what_a_step_removes() -> None:
    found = [
        train_keywords(Options(target_ratio=0.7, **options), removed=0.3).get("lr0")
        for options in ({"lr0_per_share": 0.001}, {"lr0_per_share": 0.001, "train": {"lr0": 0.5}}, {})
    ]
    assert found == [pytest.approx(3e-4), 0.5, None]
    with pytest.raises(UserError, match="lr0_per_share=0 is out of range"):
        Options(target_ratio=0.7, lr0_per_share=0)


def test_core_does_not_import_ultralytics() -> None:
    code = "import sys, yoloprune; yoloprune.graph.trace; assert 'ultralytics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("options", [{}, {"criterion": "l2"}, {"recover": False}])
def test_without_images_a_run_is_refused_before_it_sees_nothing(model, tmp_path, monkeypatch, options) -> None:
    """The first example gave a dead network in silence."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"sees nothing until it is recovered.*data=.*--criterion l2 --no-recover"):
        yoloprune.prune(model, target_ratio=0.7, project=tmp_path / "runs", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_where_images_are_at_hand_the_network_is_recovered(all_digits) -> None:
    model = shallow_weights()
    some = {"target_ratio": 0.7, "data": all_digits, "imgsz": 64, "calibration_images": 16, "batch": 8}
    some["max_pruning_ratio"] = 1.0  # or it would be found by trial, which recovers
    given = yoloprune.prune(model, **some)
    same = yoloprune.prune(model, **some, criterion="output_error", recover=True)
    plain = yoloprune.prune(model, **some, recover=False)
    assert given.plan.keep == same.plan.keep == plain.plan.keep
    assert equal(given.model.model, same.model.model)
    assert not equal(given.model.model, plain.model.model)


@pytest.mark.parametrize("asked", [{"criterion": "output_error"}, {"recover": True}])
def test_what_looks_at_data_asks_for_it(model, asked) -> None:
    with pytest.raises(UserError, match="data"):
        yoloprune.prune(model, target_ratio=0.7, **{**BY_WEIGHTS, **asked})
