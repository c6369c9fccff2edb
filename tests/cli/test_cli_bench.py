"""`yoloprune bench` and the verdict of `yoloprune export`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from yoloprune.demo.digits import WEIGHTS
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "digits.pt"
    path.write_bytes(WEIGHTS.read_bytes())
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No networks were given; name one or several"),
        (["gone.pt"], "There is no file 'gone.pt'"),
        (["gone.onnx"], "There is no file or folder 'gone.onnx'"),
        (["."], "neither a checkpoint (.pt) nor an export that is timed here (.onnx,"),
        (["W", "--backend", "onnxruntim"], "Unknown backend 'onnxruntim'; did you mean 'onnxruntime'?"),
        (["W", "--precision", "f8"], "Unknown precision 'f8'"),
        (["W", "--imgsz", "big"], "--imgsz big is not understood; give whole numbers with commas between them"),
        (["W", "--imgsz", "640,16"], "--imgsz 16 is too small; the least is 32"),
        (["W", "--batch", "0"], "--batch 0 is too small; the least is 1"),
        (["W", "--threads", "1,x"], "--threads 1,x is not understood"),
        (["W", "--seconds", "-1"], "--seconds -1 is no time to measure for"),
        (["W", "--data", "gone.yaml"], "There is no data YAML or folder 'gone.yaml'"),
        (["W", "--picture", "a.png"], "--picture draws mAP, which takes images with labels; give --data"),
        (["W", "--precision", "int8"], "--precision int8 needs images to measure ranges on; give --data"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(yoloprune, words, said) -> None:
    result = yoloprune("bench", *[str(WEIGHTS) if word == "W" else word for word in words])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_network_that_is_named_twice(yoloprune, weights, monkeypatch) -> None:
    monkeypatch.chdir(weights.parent)
    result = yoloprune("bench", weights.name, weights)
    assert result.exit_code == 2, result.output
    assert f"'{weights.name}' is named twice; give different checkpoints" in result.stderr


def test_a_bench_of_the_digits(yoloprune, weights, few_digits, tmp_path) -> None:
    words = ["bench", weights, "--imgsz", 64, "--seconds", 0.1, "--threads", 1, "--data", few_digits]
    files = ["--csv", tmp_path / "new" / "b.csv", "--picture", tmp_path / "b.png"]
    result = yoloprune(*words, *files, "--layers", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (row,) = found["rows"]
    assert found["notes"] == [
        "mAP and F1 are on square images, as exports take them; yoloprune val pads as Ultralytics does."
    ]
    assert row["backend"] == "onnxruntime" and row["imgsz"] == [64, 64] and row["ms"] > 0
    assert set(found["layers"]) == {"digits.pt in torch, 64 px", "digits.pt in ONNX Runtime, 64 px"}
    assert (tmp_path / "new" / "b.csv").is_file() and (tmp_path / "b.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "digits.pt", "new"]


def test_export_gives_its_verdict_and_what_it_costs(yoloprune, weights, few_digits) -> None:
    result = yoloprune("export", weights, "--imgsz", 160, "--data", few_digits, "--val")
    assert result.exit_code == 0, result.output
    assert "Pass (f32): " in result.stdout
    assert "mAP50-95: 0." in result.stdout and "(+0.000)" in result.stdout


def test_an_export_that_detects_something_else_fails(yoloprune, weights, few_digits, monkeypatch) -> None:
    whole = UltralyticsDetector.export

    def wrong(self, path, **options):
        whole(self, path, **options)
        model = onnx.load(path)
        weight = next(w for w in model.graph.initializer if len(w.dims) == 4 and w.dims[1] == 3)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
        onnx.save(model, path)
        return path

    monkeypatch.setattr(UltralyticsDetector, "export", wrong)
    result = yoloprune("export", weights, "--imgsz", 160, "--data", few_digits)
    assert result.exit_code == 1
    assert "FAIL (f32): " in result.stdout
    assert "digits.onnx does not detect what" in result.stderr
    assert result.stderr.count("\n") == 1


def test_tensorrt_without_a_gpu(yoloprune, weights, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = yoloprune("export", weights, "--imgsz", 64, "--format", "engine", "half=True", "workspace=4")
    assert result.exit_code == 1
    onnx_file = weights.with_suffix(".onnx")
    assert onnx_file.is_file()
    said = result.stdout
    assert f"trtexec --onnx={onnx_file} --saveEngine={weights.with_suffix('.engine')} --fp16" in said
    assert "There is no NVIDIA GPU here" in result.stderr


def test_int8_says_what_it_costs(yoloprune, weights, few_digits) -> None:
    result = yoloprune("export", weights, "--imgsz", 160, "quantize=8", f"data={few_digits}", "--val")
    assert "(int8): " in result.stdout, result.output
    assert result.exit_code == (0 if "Pass (int8)" in result.stdout else 1)
    assert "mAP50-95: 0." in result.stdout


def test_data_twice(yoloprune, weights, few_digits) -> None:
    result = yoloprune("export", weights, "--data", few_digits, f"data={few_digits}")
    assert result.exit_code == 2
    assert "--data and data= are the same" in result.stderr
