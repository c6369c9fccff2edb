"""The verdict on exports: by what they detect, with a tolerance for each precision."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
import ultralytics
from onnx import numpy_helper

from tests.small_yolo import enliven
from yoloprune import detectors
from yoloprune.demo import digits
from yoloprune.deploy.backends import default_precision
from yoloprune.deploy.formats import export_path
from yoloprune.deploy.parity import IMAGES, compare, parity, parity_images, precision_of
from yoloprune.deploy.tensorrt import hindrances, trtexec
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.errors import UserError


def boxes(*rows: tuple[float, ...]) -> list[torch.Tensor]:
    """One image's boxes: x1, y1, x2, y2, score, class."""
    return [torch.tensor(rows).reshape(-1, 6)]


TWENTY = boxes(*((100.0 * i, 0.0, 100.0 * i + 50, 80.0, 0.9 - 0.02 * i, i % 3) for i in range(20)))


def moved(pixels: float = 0.0, score: float = 0.0) -> list[torch.Tensor]:
    return [TWENTY[0] + torch.tensor([pixels, 0, pixels, 0, score, 0])]


def test_the_same_boxes_pass_at_every_precision() -> None:
    for precision in ("f32", "f16", "bf16", "int8"):
        found = compare(TWENTY, moved(), precision)
        assert found.passed
        assert (found.ours, found.theirs, found.alike) == (20, 20, 1.0)
        assert (found.iou, found.score) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("theirs", "passes"),
    [
        (moved(score=0.03), {"f16", "bf16", "int8"}),
        (moved(score=0.1), {"int8"}),
        (moved(score=-0.2), set()),
        (moved(pixels=1.0), {"f16", "bf16", "int8"}),  # IoU .96
        (moved(pixels=5.0), {"int8"}),  # IoU .82
        (moved(pixels=10.0), set()),  # IoU .67
        ([TWENTY[0][:18]], {"int8"}),
        ([TWENTY[0][:10]], set()),
        ([TWENTY[0][:0]], set()),
        ([torch.cat((TWENTY[0][:, :5], TWENTY[0][:, 5:] + 1), 1)], set()),  # other classes
        ([torch.cat((TWENTY[0][:, :4], TWENTY[0][:, 4:] * torch.nan), 1)], set()),
    ],
)
def test_what_differs_fails_where_the_precision_does_not_excuse_it(theirs, passes) -> None:
    verdicts = {precision: compare(TWENTY, theirs, precision) for precision in ("f32", "f16", "bf16", "int8")}
    assert {precision for precision, found in verdicts.items() if found.passed} == passes
    for found in verdicts.values():
        assert str(found).startswith("Pass" if found.passed else "FAIL")


def test_more_boxes_count_too() -> None:
    extra = [torch.cat((TWENTY[0], TWENTY[0] + torch.tensor([0, 500, 0, 500, 0, 0])))]
    found = compare(TWENTY, extra, "int8")
    assert not found.passed
    assert (found.ours, found.theirs, found.alike) == (20, 40, 0.5)


def test_a_box_at_the_confidence_may_fall_below_it() -> None:
    edge = [torch.cat((TWENTY[0], torch.tensor([[0.0, 500, 50, 600, 0.252, 1]])))]
    assert compare(edge, TWENTY, "f32").passed
    edge[0][-1, 4] = 0.3
    assert not compare(edge, TWENTY, "f32").passed


def test_a_network_that_finds_hardly_anything_is_compared_on_its_best_boxes() -> None:
    weak = [TWENTY[0] * torch.tensor([1, 1, 1, 1, 0.01, 1])]
    found = compare(weak, weak, "f32")
    assert found.passed and found.ours == 20
    assert found.confidence == pytest.approx(float(weak[0][-1, 4]))
    other = [weak[0] + torch.tensor([10.0, 0, 10, 0, 0, 0])]
    assert not compare(weak, other, "int8").passed
    assert not compare(weak, [weak[0][:0]], "int8").passed


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[detectors.base.Detector, Path]:
    detector = detectors.load(digits.WEIGHTS)
    path = export_path(tmp_path_factory.mktemp("export") / "digits.pt", "onnx")
    return detector, detector.export(path, imgsz=160)


def test_a_right_export_passes_on_the_data(exported, few_digits) -> None:
    detector, path = exported
    found, said = parity(detector, path, format="onnx", imgsz=160, data=str(few_digits))
    assert found.passed and said is None
    assert found.images == IMAGES and found.ours > 50 and found.score < 1e-3


def test_without_data_there_are_pictures(exported) -> None:
    detector, path = exported
    images, said = parity_images(detector, 96, None)
    assert images.shape == (16, 3, 96, 96)
    assert len({tuple(image.flatten()[::997].tolist()) for image in images}) == 16
    assert "two pictures, cropped and mirrored" in said
    found, _ = parity(detector, path, format="onnx", imgsz=160)
    assert found.passed


def test_a_wrong_weight_fails(exported, few_digits, tmp_path) -> None:
    detector, path = exported
    model = onnx.load(path)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4 and w.dims[1] == 3)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    found, _ = parity(detector, tmp_path / "wrong.onnx", format="onnx", imgsz=160, data=str(few_digits))
    assert not found.passed


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("format", "package", "options"),
    [
        ("torchscript", "torch", {}),
        ("onnx", "onnxruntime", {"nms": True}),
        ("onnx", "onnxruntime", {"quantize": 16}),
        ("onnx", "onnxruntime", {"dynamic": True}),
        ("openvino", "openvino", {}),
        ("ncnn", "ncnn", {}),
        ("mnn", "MNN", {}),
    ],
)
def test_every_format_runs_in_its_own_runtime(few_digits, tmp_path, format, package, options) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    detector = detectors.load(digits.WEIGHTS)
    path = detector.export(export_path(tmp_path / "digits.pt", format), format=format, imgsz=160, **options)
    quantize = options.get("quantize")
    found, _ = parity(detector, path, format=format, imgsz=160, data=str(few_digits), quantize=quantize)
    assert found.passed, found
    assert found.precision == ("f16" if quantize else default_precision(format))


def test_an_export_is_validated_as_the_network_is(exported, few_digits, tiny_data) -> None:
    detector, path = exported
    ours = detector.validate(str(few_digits), imgsz=160, rect=False)
    theirs = detector.validate_export(path, str(few_digits))
    assert ours.map > 0.8
    assert theirs.map == pytest.approx(ours.map, abs=1e-3)
    assert theirs.f1 == pytest.approx(ours.f1, abs=1e-3)
    with pytest.raises(UserError, match="classes"):
        detectors.exported(path).validate(str(tiny_data))


def test_files_that_are_no_exports(tmp_path) -> None:
    with pytest.raises(UserError, match="There is no file or folder"):
        detectors.exported(tmp_path / "gone.onnx")
    (tmp_path / "broken.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"broken.onnx' cannot be loaded"):
        detectors.exported(tmp_path / "broken.onnx")


def test_precisions() -> None:
    assert [precision_of("onnx", q) for q in (None, 16, 8, "w8a16")] == ["f32", "f16", "int8", "int8"]
    assert precision_of("torchscript") == "f32"


def test_onnx_for_tensorrt(exported, tmp_path) -> None:
    _, path = exported
    assert hindrances(path) == []
    assert trtexec(path, 160) == f"trtexec --onnx={path} --saveEngine={path.with_suffix('.engine')}"
    model = onnx.load(path)
    model.opset_import[0].version = 23
    model.graph.node[0].op_type = "Strange"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "open.onnx")
    shape, opset, operators = hindrances(tmp_path / "open.onnx")
    assert "batch×3×160×160" in shape
    assert "opset 23 is outside 9 to 20" in opset
    assert "Strange" in operators
    line = trtexec(tmp_path / "open.onnx", 160, 16)
    assert "--fp16" in line and "--maxShapes=images:16x3x160x160" in line


@pytest.mark.parametrize(
    "name", ["yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolov8n-obb.yaml", "yolov8n-pose.yaml", "yolov8-rtdetr.yaml"]
)
@pytest.mark.filterwarnings("ignore:Constant folding", "ignore:Exporting aten")
def test_other_heads_are_compared_too(name, tmp_path) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR(name) if "rtdetr" in name else name)
    enliven(yolo.model)
    detector = UltralyticsDetector(yolo)
    path = detector.export(tmp_path / "a.onnx", imgsz=64)
    found, _ = parity(detector, path, format="onnx", imgsz=64)
    assert found.passed, found
    assert found.ours >= IMAGES if "cls" in name else found.ours > 10
    enliven(yolo.model)  # another network
    other, _ = parity(detector, path, format="onnx", imgsz=64)
    assert not other.passed, other
