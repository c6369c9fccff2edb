"""The families behind the detector interface: what the pipeline and a Python user do with them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import ultralytics
from typer.testing import CliRunner

import yoloprune
from tests.small_yolo import equal, write_data
from yoloprune import detectors
from yoloprune.cli.app import app
from yoloprune.detectors.base import Detector
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.yolov7.detector import YOLOv7Detector
from yoloprune.detectors.yolov7.heads import decode
from yoloprune.errors import UserError
from yoloprune.recovery import calibrate_scores

from .official_files import fresh, write


def detector(name: str = "yolov7-tiny", form: str = "deploy", nc: int = 3, width: float = 0.25) -> Detector:
    """A detector around a fresh network."""
    return detectors.wrap(fresh(name, form, nc, width))


def test_the_registry_knows_both_families(tmp_path: Path) -> None:
    assert detector().family == "v7" and detector("yolov5n").family == "v5"
    assert isinstance(detectors.wrap(ultralytics.YOLO("yolov8n.yaml")), UltralyticsDetector)
    assert not isinstance(detectors.wrap(ultralytics.YOLO("yolov8n.yaml")), YOLOv7Detector)
    own = detector()
    other = own.holding(fresh("yolov7-tiny", nc=3, width=0.125))
    assert type(other) is YOLOv7Detector and type(other.model) is type(own.model)
    assert other.params < own.params and own.network.head.m[0].in_channels != other.network.head.m[0].in_channels


def test_the_published_yolov5n_keeps_its_map(shared: Path, coco_mini: Path) -> None:
    published = detectors.load(shared / "weights" / "yolov5n-official.pt")
    found = published.validate(str(coco_mini), imgsz=320, batch=8, device="cpu")
    assert found.map == pytest.approx(0.2848, abs=0.002) and found.map50 == pytest.approx(0.4500, abs=0.002)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov5n"])
def test_its_parts_and_what_stays(name: str) -> None:
    own = detector(name)
    parts = {part.name: part.modules for part in own.parts()}
    assert list(parts) == ["backbone", "neck", "head"] and len(parts["head"]) == 1
    assert sum(map(len, parts.values())) == len(own.network.model)
    graph = own.trace()
    frozen = [group for group in graph.groups if group.frozen]
    said = {own.why_it_stays(group, graph, prune_head=False) for group in frozen}
    assert said == {
        "the channels of the image",
        "the head's predictions: boxes, classes and the like",
        "no layer makes them: they are an input or a constant",  # anchors
    }
    assert own.trace(prune_head=True).n_components == graph.n_components
    with pytest.raises(UserError, match="portable is for Ultralytics' own families, and this is YOLOv"):
        own.trace(portable=True)


def test_a_head_with_implicit_knowledge_does_not_keep_the_neck() -> None:
    own = detector("yolov7", "training", width=0.125)
    plan = own.trace().random_plan(ratio=0.5, seed=0)
    assert "model.105.ia.0.implicit" in plan.keep
    smaller = plan.apply(own.network)
    assert smaller.head.ia[0].channel == smaller.head.m[0].in_channels < own.network.head.m[0].in_channels


def test_gflops_are_counted_for_networks_that_begin_by_moving_pixels() -> None:
    own = detector("yolov7-w6", width=0.125)
    assert own.gflops(640) == pytest.approx(sum(own.layer_flops(640).values()) / 1e9, rel=0.05)


def test_other_classes_leave_boxes_and_objectness() -> None:
    own = detector("yolov7", "training", width=0.125)
    refitted = own.with_classes({i: str(i) for i in range(7)})
    assert refitted.names[6] == "6" and refitted.network.head.no == 12
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before, after = own.network(images)[1], refitted.network(images)[1]
    for one, two in zip(before, after, strict=True):
        assert two.shape[-1] == 12
        torch.testing.assert_close(one[..., :5], two[..., :5])


def test_scores_as_logits_are_those_that_it_puts_out() -> None:
    for nc in (1, 3):
        own = detector(nc=nc)
        with torch.no_grad():
            y, raw = own.network(torch.rand(2, 3, 64, 64))
        found = own.network.head.dense((y, raw))
        torch.testing.assert_close(found["scores"].sigmoid(), y[:, 4:], atol=1e-5, rtol=1e-4)
        decoded = decode(raw, own.network.head.anchors, own.network.stride)
        assert found["boxes"].shape == (2, 4, decoded.shape[1])


def test_measures_are_none_for_itself_and_some_for_another() -> None:
    own = detector()
    images = [torch.rand(2, 3, 64, 64)]
    other = own.trace().random_plan(ratio=0.3, seed=0).apply(own.network)
    for measure in (own.change(images), own.lost(images)):
        assert measure(own.network) == pytest.approx(0, abs=0.006)  # an interpolated precision ends at .995
        assert measure(other) > 0.02
    assert own.change(images).text == "divergence of class scores and boxes"


def test_the_ranking_loss_reaches_every_layer_and_repeats() -> None:
    own = detector()
    batch = {"img": torch.rand(1, 3, 64, 64)}
    values = [own.ranking_loss(3)(own.network, batch) for _ in range(2)]
    assert values[0] == values[1]
    values[0].backward()
    gradients = [p.grad for n, p in own.network.named_parameters() if n.endswith("conv.weight")]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_calibration_acts_on_objectness_alone() -> None:
    own = detector()
    layers = own.class_layers()
    assert [own.network.get_submodule(name).out_channels for name in layers.names] == [24] * 3
    worse = own.holding(fresh("yolov7-tiny", nc=3, width=0.25))
    before = {name: own.network.get_submodule(name).weight.clone() for name in layers.names}
    rows = torch.zeros(24, dtype=torch.bool)
    rows[list(layers.rows)] = True
    with torch.no_grad():
        for name in layers.names:
            layer = worse.network.get_submodule(name)
            layer.weight[rows] *= 0.5
            layer.bias[rows] = layer.bias[rows] * 0.5 - 1
    fits = calibrate_scores(worse.network, own.network, layers.names, [torch.rand(2, 3, 64, 64)], rows=layers.rows)
    for fit in fits:
        assert (fit.scale, fit.shift) == (pytest.approx(2, rel=1e-3), pytest.approx(2, rel=1e-2))
        layer = worse.network.get_submodule(fit.name)
        torch.testing.assert_close(layer.weight, before[fit.name], rtol=1e-2, atol=1e-4)
        assert torch.equal(layer.weight[~rows], before[fit.name][~rows])


def _picture(folder: Path) -> Path:
    path = folder / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    return path


def test_a_python_user_predicts_tracks_validates_and_exports(tmp_path: Path) -> None:
    path = write(fresh("yolov7-tiny", nc=3, width=0.25), tmp_path / "old.pt")
    yolo = yoloprune.load(path)
    assert isinstance(yolo, ultralytics.YOLO) and yolo.names == {0: "0", 1: "1", 2: "2"}
    keywords = {"imgsz": 64, "device": "cpu", "verbose": False, "conf": 0.001}
    (found,) = yolo.predict(_picture(tmp_path), **keywords)
    assert found.orig_shape == (96, 128) and len(found.boxes) and found.boxes.cls.max() < 3
    data = write_data(tmp_path / "data", ["a", "b", "c"], images=2)
    metrics = detectors.wrap(yolo).validate(str(data), imgsz=64, batch=2, device="cpu", iou=0.65)
    assert metrics.images == 2 and 0 <= metrics.map <= 1
    again = type(yolo)(path)
    assert equal(again.model, detectors.load(path).network)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("name", "form"), [("yolov7", "training"), ("yolov5n", "deploy")])
def test_onnx_in_both_layouts(name: str, form: str, tmp_path: Path) -> None:
    own = detector(name, form, width=0.125 if name == "yolov7" else 0.5)
    anchors = 3 * (8 * 8 + 4 * 4 + 2 * 2)
    for layout, shape in (("v8", [1, 7, anchors]), ("official", [1, anchors, 8])):
        path = own.export(tmp_path / f"{layout}.onnx", imgsz=64, layout=layout, device="cpu")
        outputs = onnx.load(path).graph.output
        assert [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs] == [shape]
        assert own.onnx_difference(path) < 1e-3
    assert own.network.head.export is False, "the detector's own network stays as it is"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_nms_in_the_graph_finds_what_prediction_does(tmp_path: Path) -> None:
    own = detector()
    path = own.export(tmp_path / "nms.onnx", imgsz=64, nms=True, device="cpu", conf=0.05, max_det=20)
    (output,) = onnx.load(path).graph.output
    assert [d.dim_value for d in output.type.tensor_type.shape.dim] == [1, 20, 6]
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    keywords = {"imgsz": 64, "conf": 0.05, "max_det": 20, "verbose": False, "device": "cpu"}
    (ours,) = own.model.predict(image, **keywords)
    (theirs,) = ultralytics.YOLO(path, task="detect").predict(image, **keywords)
    assert len(ours.boxes) == len(theirs.boxes) > 0
    torch.testing.assert_close(ours.boxes.conf.sort()[0], theirs.boxes.conf.sort()[0], rtol=1e-3, atol=1e-4)


def test_layouts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no layout 'v9' of outputs; give one of v8, official"):
        detector().export(tmp_path / "x.onnx", layout="v9")
    with pytest.raises(UserError, match="nms=True puts out detections"):
        detector().export(tmp_path / "x.onnx", layout="official", nms=True)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov5n"])
def test_a_run_prunes_recovers_calibrates_and_exports(name: str, tmp_path: Path) -> None:
    weights = write(fresh(name, nc=3, width=0.5), tmp_path / "old.pt")
    data = write_data(tmp_path / "data", ["a", "b", "c"], images=4)
    result = yoloprune.prune(
        weights, target_ratio=0.6, data=str(data), imgsz=64, round_to=1, device="cpu", calibration_images=4, batch=2,
        max_pruning_ratio=0.9, export="onnx", project=tmp_path, name="run",
    )  # fmt: skip
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["family"] == ("v7" if name == "yolov7-tiny" else "v5")
    assert 0.588 <= record["after"]["gflops"] / record["before"]["gflops"] <= 0.6
    assert record["export"]["difference"] < 1e-2
    assert (tmp_path / "run" / "pruned-plain.pt").is_file()
    saved = detectors.load(tmp_path / "run" / "pruned.pt")
    assert equal(saved.network, result.model.model)
    plan = yoloprune.graph.Plan.load(tmp_path / "run" / "plan.json")
    assert [t.shape for t in plan.apply(detectors.load(weights).network).parameters()] == [
        t.shape for t in saved.network.parameters()
    ]


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        ("v8", "yolov7-tiny", "is a v7 model for the task 'detect', not a YOLOv8 detector; use: yoloprune prune"),
        ("v5", "yolov7-tiny", "is a v7 model for the task 'detect', not a YOLOv5 detector"),
        ("v7", "yolov5n", "is a v5 model for the task 'detect', not a YOLOv7 detector"),
        ("v7", "yolov7-tiny", ""),
        ("v5", "yolov5n", ""),
    ],
)
def test_commands_take_their_own_family(command: str, name: str, said: str, tmp_path: Path) -> None:
    weights = write(fresh(name, nc=3, width=0.25), tmp_path / "old.pt")
    alone = ["--criterion", "l2", "--no-recover", "--no-val", "--no-export", "--epochs", "0", "--device", "cpu"]
    words = [command, str(weights), "--target-ratio", "0.6", "--round-to", "1", "--project", str(tmp_path), *alone]
    done = CliRunner().invoke(app, words)
    assert (tmp_path / "prune").exists() is not bool(said)
    if said:
        assert done.exit_code == 2 and said in done.stderr
    else:
        assert done.exit_code == 0, done.stderr
        assert "Try it with: python detect.py --weights" in done.stdout
        assert "--prune-head" not in done.stdout, "which would change nothing"
        assert detectors.load(tmp_path / "prune" / "pruned.pt").family == command


def test_the_command_that_exports_knows_the_layouts(tmp_path: Path) -> None:
    weights = write(fresh("yolov7-tiny", nc=3, width=0.25), tmp_path / "old.pt")
    done = CliRunner().invoke(app, ["export", str(weights), "--layout", "rows"])
    assert done.exit_code == 2
    assert done.stderr.strip() == "yoloprune: --layout rows is no layout of a v7 model's outputs (v8, official)."
