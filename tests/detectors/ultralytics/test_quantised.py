"""Ultralytics' quantisation-aware training of pruned networks: it keeps their widths, resumes, loads and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from typer.testing import CliRunner, Result
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import is_qat

import yoloprune
from tests.small_yolo import SHORT, equal, interrupt_in, shapes
from yoloprune.cli.app import app
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints, quantised
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.trainers.sparse import bind
from yoloprune.errors import UserError
from yoloprune.sparsity import Sparsity


@pytest.fixture
def modelopt() -> None:
    pytest.importorskip("modelopt", reason="needs yoloprune[qat]")


def train(yolo: YOLO, data: Path, project: Path, **options: Any) -> None:
    yolo.train(data=str(data), project=str(project), name="run", quantize=8, **{**SHORT, **options})


def run(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def widths(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: shape for name, shape in shapes(network).items() if "quantizer" not in name}


def test_a_missing_package_is_named_before_anything_is_trained(pruned_yolo, tiny_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Training for INT8 needs .*'modelopt'; run: pip install 'yoloprune\[qat\]'"):
        train(pruned_yolo, tiny_data, tmp_path)
    assert not list(tmp_path.glob("run/weights/*.pt"))


def test_a_missing_package_is_named_where_such_a_checkpoint_is_loaded(pruned_yolo, tmp_path, monkeypatch) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=False)
    torch.save({**content, "modelopt": {"modelopt": {"modelopt_state_dict": []}, "ranges": {}}}, tmp_path / "a.pt")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a.pt' was trained for INT8: loading it needs .*yoloprune\[qat\]"):
        yoloprune.load(tmp_path / "a.pt")


def test_group_sparse_training_is_no_training_for_int8(pruned_yolo, tiny_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="leave quantize=8 out"):
        train(pruned_yolo, tiny_data, tmp_path, trainer=bind(DetectionTrainer, Sparsity()))


@pytest.mark.usefixtures("modelopt")
def test_a_pruned_network_keeps_its_widths_and_is_what_the_file_holds(pruned_yolo, tiny_data, tmp_path) -> None:
    before = shapes(pruned_yolo.model)
    train(pruned_yolo, tiny_data, tmp_path)
    assert is_qat(pruned_yolo.model)
    assert widths(pruned_yolo.model) == before
    loaded = yoloprune.load(tmp_path / "run" / "weights" / "best.pt")
    assert equal(loaded.model, pruned_yolo.model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        rounded, loaded_too = pruned_yolo.model.eval()(image)[0], loaded.model(image)[0]
        assert torch.equal(rounded, loaded_too)
        for module in loaded.model.modules():
            if type(module).__name__ == "TensorQuantizer":
                module.disable()
        assert not torch.equal(loaded.model(image)[0], rounded), "nothing was rounded"
    with pytest.raises(UserError, match="trained for INT8, which pruning would undo"):
        yoloprune.prune(pruned_yolo, target_ratio=0.7, criterion="l2", recover=False)


@pytest.mark.usefixtures("modelopt")
def test_an_interrupted_training_resumes(pruned_yolo, tiny_data, tmp_path) -> None:
    before = shapes(pruned_yolo.model)
    interrupt_in(pruned_yolo, epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train(pruned_yolo, tiny_data, tmp_path, epochs=2)
    resumed = checkpoints.load(tmp_path / "run" / "weights" / "last.pt")
    ranges = {name: value.clone() for name, value in resumed.model.state_dict().items() if "quantizer" in name}
    resumed.train(resume=True, device="cpu")
    assert resumed.trainer.start_epoch == 1
    assert widths(resumed.model) == before
    assert ranges and all(torch.equal(resumed.model.state_dict()[name], value) for name, value in ranges.items())


@pytest.mark.usefixtures("modelopt")
def test_it_is_exported_with_the_ranges_that_it_has_learnt(few_digits, tmp_path) -> None:
    train(checkpoints.load(digits.WEIGHTS), few_digits, tmp_path, imgsz=160, lr0=1e-5)
    weights = tmp_path / "run" / "weights" / "best.pt"
    result = run("export", weights, "--imgsz", 160, "--data", few_digits)
    assert result.exit_code == 0, result.output
    assert "Pass (int8)" in result.output
    nodes = [node.op_type for node in onnx.load(weights.with_suffix(".onnx")).graph.node]
    assert nodes.count("QuantizeLinear") > nodes.count("Conv") / 2
    result = run("export", weights, "--format", "torchscript")
    assert result.exit_code == 2
    assert "cannot export a QAT model" in result.stderr
    result = run("bench", weights)
    assert result.exit_code == 2
    assert "give its export" in result.stderr
