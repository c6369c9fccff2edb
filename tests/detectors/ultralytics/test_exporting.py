"""Exports land where they were asked for, and ONNX Runtime agrees with torch."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
import ultralytics
from onnx import numpy_helper

from tests.small_yolo import enliven, narrow
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.exporting import export, onnx_difference
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.errors import UserError


def test_a_pruned_network_exports_to_the_asked_path(
    pruned_yolo: YOLO, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    yolo = checkpoints.load(tmp_path / "pruned.pt")
    path = tmp_path / "deep" / "er" / "out.onnx"
    assert export(yolo, path, imgsz=64) == path
    assert [file.name for file in path.parent.iterdir()] == ["out.onnx"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep", "pruned.pt"]
    assert capfd.readouterr() == ("", "")
    assert onnx_difference(yolo, path) < 1e-3
    assert not hasattr(yolo.model.model[-1], "export") or not yolo.model.model[-1].export
    assert yolo.model.pt_path == str(tmp_path / "pruned.pt")


def test_the_stock_class_opens_the_export(pruned_yolo: YOLO, tmp_path: Path) -> None:
    path = export(pruned_yolo, tmp_path / "out.onnx", imgsz=64)
    result = ultralytics.YOLO(path, task="detect").predict(
        ultralytics.utils.ASSETS / "bus.jpg", imgsz=64, verbose=False
    )
    assert len(result) == 1


def test_the_comparison_sees_a_wrong_weight(pruned_yolo: YOLO, tmp_path: Path) -> None:
    path = export(pruned_yolo, tmp_path / "out.onnx", imgsz=64)
    graph = onnx.load(path)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.dims == [16, 3, 3, 3])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    onnx.save(graph, path)
    assert onnx_difference(pruned_yolo, path) > 1e-3


def test_the_trained_network_agrees(coco_weights: Path, tmp_path: Path) -> None:
    yolo = checkpoints.load(coco_weights)
    path = export(yolo, tmp_path / "coco.onnx", imgsz=160)
    assert onnx_difference(yolo, path) < 1e-3


@pytest.mark.parametrize(
    "name",
    ["yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolov8n-obb.yaml", "yolov10n.yaml", "yolo26n-pose.yaml", "yolo11n.yaml"],
)
def test_other_heads_agree(name: str, tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(name)
    narrow(yolo.model)
    enliven(yolo.model)
    path = export(yolo, tmp_path / "out.onnx", imgsz=64)
    assert onnx_difference(yolo, path) < 1e-3


@pytest.mark.filterwarnings("ignore:Constant folding", "ignore:Exporting aten")
def test_rtdetr_agrees(tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR("yolov8-rtdetr.yaml"))
    enliven(yolo.model)
    path = export(yolo, tmp_path / "out.onnx", imgsz=64)
    assert onnx_difference(yolo, path) < 1e-3


def test_options_pass_through(pruned_yolo: YOLO, tmp_path: Path) -> None:
    path = export(pruned_yolo, tmp_path / "out.onnx", imgsz=[64, 96], dynamic=True, opset=17, batch=2)
    model = onnx.load(path)
    assert model.opset_import[0].version == 17
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert onnx_difference(pruned_yolo, path) < 1e-3


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_other_formats_pass_through(pruned_yolo: YOLO, tmp_path: Path) -> None:
    path = export(pruned_yolo, tmp_path / "out.torchscript", format="torchscript", imgsz=64)
    output = torch.jit.load(str(path))(torch.zeros(1, 3, 64, 64))
    assert output.shape == (1, 84, 84)


def test_the_file_says_at_which_size_it_is_compared(pruned_yolo: YOLO, tmp_path: Path) -> None:
    path = export(pruned_yolo, tmp_path / "out.onnx", imgsz=33, batch=2)
    assert onnx_difference(pruned_yolo, path) < 1e-3


def test_an_earlier_export_is_replaced_once_the_new_one_is_there(
    pruned_yolo: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.onnx"
    path.write_text("mine")
    with pytest.raises(UserError, match="opset"):
        export(pruned_yolo, path, imgsz=64, opset=3)
    assert path.read_text() == "mine"
    export(pruned_yolo, path, imgsz=64)
    assert path.stat().st_size > 1_000_000

    def written(model: torch.nn.Module) -> str:
        folder = Path(model.pt_path).with_name("model_openvino_model")
        folder.mkdir()
        (folder / "new.xml").touch()
        return str(folder)

    monkeypatch.setattr("yoloprune.detectors.ultralytics.exporting._Exporter", lambda **_: written)
    folder = tmp_path / "out_openvino_model"
    folder.mkdir()
    (folder / "old.xml").touch()
    export(pruned_yolo, folder, format="openvino", imgsz=64)
    assert [file.name for file in folder.iterdir()] == ["new.xml"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.onnx", "out_openvino_model"]


def test_bad_requests(pruned_yolo: YOLO, tmp_path: Path) -> None:
    for options, name, message in (
        ({"format": "onyx"}, "out.onnx", "Unknown export format 'onyx'"),
        ({}, "out.pt", r"ends in '\.onnx'"),
        ({"dynamik": True}, "out.onnx", "did you mean 'dynamic'"),
        ({"opset": 3}, "out.onnx", "opset"),
        ({"keras": True}, "out.onnx", "'keras' is not an option"),
    ):
        with pytest.raises(UserError, match=message):
            export(pruned_yolo, tmp_path / name, **{"imgsz": 64, **options})
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_and_not_installed(
    pruned_yolo: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics.utils.checks, "AUTOINSTALL", True)
    monkeypatch.setattr(ultralytics.utils.checks.subprocess, "check_output", pytest.fail)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="needs the Python package 'onnx'"):
        export(pruned_yolo, tmp_path / "out.onnx", imgsz=64)
    assert ultralytics.utils.checks.AUTOINSTALL, "the setting is back"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="'onnxruntime'"):
        onnx_difference(pruned_yolo, tmp_path / "out.onnx")


def test_a_file_that_is_no_onnx(pruned_yolo: YOLO, tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("hello")
    with pytest.raises(UserError, match="ONNX Runtime cannot load"):
        onnx_difference(pruned_yolo, tmp_path / "out.onnx")
