"""What is saved is what was measured, in numbers that are numbers, and never silently unpruned."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import ClassificationModel

import yoloprune
from tests.small_yolo import SHORT, enliven, equal, shallow_weights, write_data
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints, exporting, outputs
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.stock_training import SENTENCE, is_marked, is_pruned
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.errors import UserError
from yoloprune.finite import unfit_for_float16
from yoloprune.pipeline import saving
from yoloprune.pipeline.exact import check_exact
from yoloprune.pipeline.saving import save_checked

PLAIN: dict[str, Any] = {"target_ratio": 0.8, "criterion": "l2", "recover": False}


@pytest.fixture
def model() -> ultralytics.YOLO:
    return ultralytics.YOLO(shallow_weights())


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    """Options of a run that looks at images."""
    data = write_data(tmp_path / "data", [str(i) for i in range(10)])
    return {"target_ratio": 0.7, "data": data, "imgsz": 96, "max_pruning_ratio": 1.0, "val": True, "export": "onnx"}


def stock_train(weights: Path, data: Path) -> None:
    ultralytics.YOLO(weights).train(data=str(data), project=str(data.parent / "runs"), **SHORT)


def enlarge(network: nn.Module, value: float = 7e4) -> None:
    """Let one channel of the first layer be beyond float16, and what reads it so small that the network still works."""
    with torch.no_grad():
        network.model[0].bn.weight[0] = value
        network.model[1].conv.weight[:, 0] *= 1 / value


def unbuildable(network: nn.Module) -> None:
    """Give a network the YAML of an Ultralytics that has a layer more."""
    network.yaml = {**network.yaml, "head": [*network.yaml["head"], [-1, 1, "LayerOfAnotherVersion", []]]}


def test_what_a_run_prunes_is_marked_although_its_yaml_does_not_build(model, tiny_data: Path, tmp_path: Path) -> None:
    unbuildable(model.model)
    result = yoloprune.prune(model, **PLAIN)
    assert is_marked(result.model.model)
    result.model.save(tmp_path / "stock.pt")  # Ultralytics' own
    with pytest.raises(KeyError) as stopped:
        stock_train(tmp_path / "stock.pt", tiny_data)
    assert stopped.value.args == (SENTENCE,)


def test_a_network_whose_yaml_does_not_build_is_saved_as_a_pruned_one(pruned_yolo: YOLO, tmp_path: Path) -> None:
    unbuildable(pruned_yolo.model)
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    assert is_marked(checkpoints.load(tmp_path / "pruned.pt").model)


def test_what_was_pruned_by_its_graph_is_marked_when_saved(model, tiny_data: Path, tmp_path: Path) -> None:
    model.model.float()
    model.model = trace_yolo(model.model).random_plan(0.5).apply(model.model)
    checkpoints.save(model, tmp_path / "pruned.pt")
    with pytest.raises(KeyError) as stopped:
        stock_train(tmp_path / "pruned.pt", tiny_data)
    assert stopped.value.args == (SENTENCE,)


def test_torchvision_rows_are_compared_without_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"nc": 4, "backbone": [[-1, 1, "TorchVision", [512, "resnet18", None, True, 2]]]}
    network = ClassificationModel({**rows, "head": [[-1, 1, "Classify", ["nc"]]]}, verbose=False)
    network.yaml["backbone"][0][3][2] = "DEFAULT"
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", pytest.fail)
    assert not is_pruned(network)
    narrowed = network.model[0].m[4][0].conv1
    narrowed.weight = nn.Parameter(narrowed.weight[:32])
    assert is_pruned(network)


def test_weights_beyond_float16_are_saved_in_float32_and_said(model, tmp_path: Path) -> None:
    enlarge(model.model.float())
    result = yoloprune.prune(model, **PLAIN, keep="model.0", project=tmp_path, name="run")
    weights = tmp_path / "run" / "pruned.pt"
    stock = ultralytics.YOLO(weights)
    assert all(tensor.isfinite().all() for tensor in stock.model.state_dict().values())
    assert stock.model.model[0].bn.weight[0] == 7e4
    assert {p.dtype for p in torch.load(weights, weights_only=False)["model"].parameters()} == {torch.float32}
    (note,) = [note for note in result.report.notes if "float32" in note]
    assert "'model.0.bn.weight' reaches 7e+04, and float16 ends at 65504" in note
    stock.predict(ultralytics.utils.ASSETS / "bus.jpg", imgsz=96, verbose=False)


def test_what_float16_cannot_hold() -> None:
    layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, eps=1e-12))
    assert unfit_for_float16(layers) is None
    with torch.no_grad():
        layers[1].running_var[2] = 1e-9
        assert unfit_for_float16(layers) == "'1.running_var' is below what float16 resolves"
        layers[1].eps = 1e-3  # as in Ultralytics, where it hides the difference
        assert unfit_for_float16(layers) is None
        layers[0].weight *= 1e-8
        assert unfit_for_float16(layers) == "'0.weight' is below what float16 resolves"
        layers[0].weight.fill_(-1e5)
        assert unfit_for_float16(layers) == "'0.weight' reaches 1e+05, and float16 ends at 65504"


def test_where_rounding_changes_the_predictions_float32_is_kept(
    pruned_yolo: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert save_checked(UltralyticsDetector(pruned_yolo), tmp_path / "a.pt", imgsz=64).note is None
    monkeypatch.setattr(saving, "_ALIKE", 1e-6)
    saved = save_checked(UltralyticsDetector(pruned_yolo), tmp_path / "b.pt", imgsz=64)
    assert "rounded to float16 its predictions differ by" in saved.note
    assert equal(saved.detector.network, pruned_yolo.model)


@pytest.mark.parametrize("name", ["yolov8n-seg.yaml", "yolov8n-cls.yaml", "yolov8-rtdetr.yaml"])
def test_other_heads_are_compared_too(name: str, tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR(name) if "rtdetr" in name else name)
    enliven(yolo.model)
    saved = save_checked(UltralyticsDetector(yolo), tmp_path / "a.pt", imgsz=160)
    assert saved.note is None
    network, image = outputs.deployed(yolo.model), outputs.photograph(160, 160, 3)
    ours, theirs = outputs.run(network, image), outputs.run(outputs.deployed(saved.detector.network), image)
    assert 0 < outputs.typical(network, ours, theirs) < 0.02


def test_a_file_that_holds_another_network_is_found_out(
    pruned_yolo: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = checkpoints.load

    def damaged(*args: Any, **options: Any) -> YOLO:
        yolo = load(*args, **options)
        with torch.no_grad():
            yolo.model.model[4].cv1.conv.weight.neg_()
        return yolo

    monkeypatch.setattr(checkpoints, "load", damaged)
    with pytest.raises(UserError, match=r"pruned\.pt' does not predict what it did before it was saved"):
        save_checked(UltralyticsDetector(pruned_yolo), tmp_path / "pruned.pt", imgsz=64)
    assert (tmp_path / "pruned.pt").exists()


def test_a_network_that_puts_out_no_numbers_is_not_passed_off_as_finished(pruned_yolo: YOLO, tmp_path: Path) -> None:
    with torch.no_grad():
        pruned_yolo.model.model[-1].cv3[0][2].weight[0] = float("nan")
    with pytest.raises(UserError, match="puts out NaN or infinite values on real images"):
        save_checked(UltralyticsDetector(pruned_yolo), tmp_path / "pruned.pt", imgsz=64)
    assert (tmp_path / "pruned.pt").exists()


def test_the_measured_network_is_the_one_of_the_file(model, tmp_path: Path, images, monkeypatch) -> None:
    validated = []
    real = UltralyticsDetector.validate
    monkeypatch.setattr(
        UltralyticsDetector, "validate", lambda own, *args, **more: validated.append(own) or real(own, *args, **more)
    )
    result = yoloprune.prune(model, **images, criterion="l2", project=tmp_path, name="run")
    of_the_file = checkpoints.load(tmp_path / "run" / "pruned.pt")
    assert equal(validated[1].network, of_the_file.model)  # between the original and that on smaller images
    assert equal(result.model.model, of_the_file.model)
    assert exporting.onnx_difference(of_the_file, tmp_path / "run" / "pruned.onnx") < 1e-4


def poisoned(network: nn.Module) -> None:
    with torch.no_grad():
        network.model[1].conv.weight.view(-1)[:3] = float("nan")
        network.model[2].cv1.bn.running_var[0] = float("inf")


def test_weights_that_are_no_numbers_are_named_at_once(model, tmp_path: Path) -> None:
    poisoned(model.model)
    checkpoints.save(model, tmp_path / "bad.pt")
    said = r"3 of 4608 values of 'model\.1\.conv\.weight' and 1 more tensors; give a checkpoint from before"
    with pytest.raises(UserError, match=said):
        yoloprune.prune(model, **PLAIN)
    with pytest.raises(UserError, match=r"bad\.pt' holds NaN or infinite weights: " + said):
        yoloprune.prune(tmp_path / "bad.pt", **PLAIN)


def test_a_model_that_puts_out_no_numbers_is_not_taken_for_one_that_cannot_be_followed(model) -> None:
    model.model.float().model[1].bn.running_var.neg_()
    graph = trace_yolo(model.model)
    with pytest.raises(UserError, match="puts out NaN or infinite values before anything is pruned"):
        check_exact(UltralyticsDetector(model), graph, graph.random_plan(0.5))


@pytest.mark.parametrize("kind", ["path", "model", "dict"])
def test_our_class_takes_over_no_part_of_a_pruned_network(pruned_yolo: YOLO, tmp_path: Path, kind: str) -> None:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    pruned = checkpoints.load(tmp_path / "pruned.pt")
    weights = {"path": tmp_path / "pruned.pt", "model": pruned.model, "dict": pruned.ckpt}[kind]
    with quiet():
        full = YOLO("yolov8n.yaml")
    before = {name: tensor.clone() for name, tensor in full.model.state_dict().items()}
    with pytest.raises(UserError, match=r"does not fit this model, since one of the two was pruned"):
        full.load(weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in full.model.state_dict().items())
    with pytest.raises(UserError, match="does not fit this model"):
        pruned.load(full.model)
    with quiet():
        assert pruned_yolo.load(weights) is pruned_yolo  # of the same widths
        assert equal(pruned_yolo.model, pruned.model)


def test_weights_of_an_unpruned_network_are_taken_over_as_ever(tmp_path: Path) -> None:
    with quiet():
        source, target = YOLO("yolov8n.yaml"), YOLO("yolov8n.yaml")
        checkpoints.save(source, tmp_path / "full.pt")
        assert target.load(tmp_path / "full.pt").ckpt_path == str(tmp_path / "full.pt")
    assert equal(target.model, checkpoints.load(tmp_path / "full.pt").model)
    with quiet():
        smaller = YOLO("yolov8n-p2.yaml").load(source.model)  # only some layers fit, as with Ultralytics' own
    assert torch.equal(smaller.model.model[0].conv.weight, source.model.model[0].conv.weight)


def test_a_pruned_network_is_no_start_for_a_full_one(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "pruned.pt"
    checkpoints.save(pruned_yolo, path)
    with quiet():
        full = YOLO("yolov8n.yaml")
        checkpoints.save(full, tmp_path / "full.pt")
    for model in (full, checkpoints.load(tmp_path / "full.pt")):
        with (
            quiet(),
            pytest.raises(UserError, match=r"is a pruned network, of which only some weights would fit; train"),
        ):
            model.train(data=str(tiny_data), project=str(tmp_path), pretrained=str(path), **SHORT)


def test_a_result_shows_itself_in_a_few_lines(model) -> None:
    result = yoloprune.prune(model, **PLAIN)
    lines = repr(result).splitlines()
    assert len(lines) < 8
    assert lines[1].split()[:2] == ["GFLOPs", "(640"]
    assert lines[-1] == '  in memory; result.save("pruned.pt") writes it'
    result.report.weights = "<b>.pt"
    html = result._repr_html_()
    assert html.count("<tr>") == len(lines) - 1
    assert "&lt;b&gt;.pt" in html
    assert "<b>" not in html


def test_a_result_is_saved_and_exported_where_it_is_asked_for(model, tmp_path: Path) -> None:
    result = yoloprune.prune(model, **PLAIN)
    assert result.weights is None
    with pytest.raises(UserError, match=r"ends in '\.pt', which '.*small\.onnx' does not"):
        result.save(tmp_path / "small.onnx")
    path = tmp_path / "new" / "small.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert result.save(path) == path == result.weights
    assert repr(result).endswith(f"in {path}")
    of_the_file = yoloprune.load(path)
    assert is_marked(of_the_file.model)
    assert equal(of_the_file.model, result.model.model)
    assert result.export(imgsz=64) == path.with_suffix(".onnx")
    assert exporting.onnx_difference(of_the_file, path.with_suffix(".onnx")) < 1e-4
    assert sorted(file.name for file in path.parent.iterdir()) == ["small.onnx", "small.pt"]
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        result.export("onxx")


def test_a_saved_result_warns_of_float32(model, tmp_path: Path) -> None:
    enlarge(model.model.float())
    result = yoloprune.prune(model, **PLAIN, keep="model.0")
    with pytest.warns(UserWarning, match="saved in float32"):
        result.save(tmp_path / "small.pt")


def test_the_result_of_a_folder_exports_into_it(model, tmp_path: Path) -> None:
    result = yoloprune.prune(model, **PLAIN, project=tmp_path, name="run")
    assert result.weights == tmp_path / "run" / "pruned.pt"
    assert result.save(tmp_path / "copy.pt") == tmp_path / "copy.pt"
    assert result.export(imgsz=64) == tmp_path / "run" / "pruned.onnx"


def test_a_run_from_python_is_silent_and_leaves_ultralytics_alone(
    model, tmp_path: Path, images, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    ultralytics.settings["openvino_msg"] = True  # a hint that the exporter shows once
    file = Path(ultralytics.settings.file).read_bytes()
    before = dict(ultralytics.settings)
    capfd.readouterr()
    training = {"epochs": 1, "batch": 2, "workers": 0, "amp": False, "plots": False}
    result = yoloprune.prune(model, **images, **training, project=tmp_path, name="run")
    assert result.report.export["difference"] < 1e-3
    assert capfd.readouterr() == ("", "")
    assert dict(ultralytics.settings) == before
    assert Path(ultralytics.settings.file).read_bytes() == file
    assert not list(work.iterdir())


def test_outputs_that_are_no_numbers_do_not_hide_behind_others(pruned_yolo: YOLO) -> None:
    network = outputs.deployed(pruned_yolo.model)
    ours = outputs.run(network, outputs.photograph(64, 64, 3))
    theirs = [output.clone() for output in ours]
    assert outputs.furthest(network, ours, theirs) == outputs.typical(network, ours, theirs) == 0
    theirs[0][0, 0, 0] = float("nan")
    assert not outputs.furthest(network, ours, theirs) < 1
    assert not outputs.typical(network, ours, theirs) < 1


def test_load_is_the_safe_one() -> None:
    assert type(yoloprune.load(digits.WEIGHTS)) is YOLO


def test_a_model_that_predicts_the_same_for_every_image_is_refused(model) -> None:
    model.model.model[0].conv.weight.data.zero_()
    graph = trace_yolo(model.model)
    with pytest.raises(UserError, match="predicts the same for every image"):
        check_exact(UltralyticsDetector(model), graph, graph.random_plan(0.5))
