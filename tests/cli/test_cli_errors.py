"""Every mistake: one sentence on stderr, exit code 2, and nothing written."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
import ultralytics

from yoloprune.demo.digits import WEIGHTS

PRUNE_ONLY = ("--epochs", 0, "--no-val", "--no-export", "--criterion", "l2", "--no-recover")


@pytest.fixture
def refused(yoloprune, tmp_path):
    """Run a command that must fail in the way all mistakes do, and return what it said."""

    def run(*words) -> str:
        out = tmp_path / "out"
        result = yoloprune(
            *words, *(() if "--project" in words or words[0] in {"val", "export"} else ("--project", out))
        )
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("yoloprune: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert not out.exists()
        return result.stderr

    return run


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


def _write_malicious(path: Path) -> None:
    torch.save({"model": _Evil(), "epoch": -1}, path)


def _write_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # what torch.jit.save leaves: a code archive has constants.pkl
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps({}, protocol=2))


WRONG_FILES = {
    "empty": (lambda path: path.touch(), "is empty"),
    "truncated": (lambda path: path.write_bytes(WEIGHTS.read_bytes()[:100_000]), "truncated or damaged"),
    "no checkpoint": (lambda path: path.write_text("a text"), "not a PyTorch checkpoint"),
    "torchscript": (_write_torchscript, "TorchScript"),
    "malicious": (_write_malicious, "may run"),
    "state_dict": (lambda path: torch.save({"a": torch.zeros(1)}, path), "no Ultralytics model"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_weights(refused, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    write, sentence = WRONG_FILES[kind]
    write(tmp_path / "weights.pt")
    assert sentence in refused("v8", "--weights", tmp_path / "weights.pt", "--target-ratio", 0.5, *PRUNE_ONLY)
    assert not Path("evil-was-here").exists()


def test_missing_weights(refused, tmp_path) -> None:
    said = refused("v8", "--weights", tmp_path / "none.pt", "--target-gflops", 6, *PRUNE_ONLY)
    assert f"There is no file '{tmp_path / 'none.pt'}'" in said


def test_weights_at_an_address(refused) -> None:
    said = refused("v8", "--weights", "https://example.org/a.pt", "--target-gflops", 6, *PRUNE_ONLY)
    assert "'https://example.org/a.pt' is no file; download it" in said


def test_prune_needs_weights(refused) -> None:
    assert "No weights were given" in refused("prune", "--target-gflops", 6, *PRUNE_ONLY)


@pytest.mark.parametrize(("architecture", "kind"), [("yolo11n", "11"), ("yolov8n-cls", "classify")])
def test_another_family_or_task(refused, tmp_path, architecture, kind) -> None:
    from yoloprune.detectors.ultralytics import checkpoints
    from yoloprune.detectors.ultralytics.model import YOLO

    checkpoints.save(YOLO(ultralytics.YOLO(f"{architecture}.yaml")), tmp_path / "other.pt")
    said = refused("v8", "--weights", tmp_path / "other.pt", "--target-ratio", 0.5, *PRUNE_ONLY)
    assert kind in said
    assert "yoloprune prune --weights" in said


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (("--target-gflops", 20), "not below the model's own"),
        (("--target-gflops", 0.01), "out of reach"),
        (("--target-params", "9M"), "not below the model's own"),
        (("--target-params", "1k"), "out of reach"),
        (("--target-params", "10G"), "10,000M parameters is not below the model's own"),
        (("--target-gflops", 6, "--round-to", 1000000), "out of reach; .* a smaller --round-to"),
        (("-g", "101%"), "--target-gflops 101% is not a number of GFLOPs; write it as 6.2; .* --target-ratio 0.5"),
        (("--target-ratio", "half"), "--target-ratio half is not a number; write it as 0.5 or 50%"),
        (("--target-params", "1.5"), "--target-params 1.5 is too few to be meant; write millions as 1.5M"),
        (("--target-ratio", 1.5), "target_ratio=1.5 is out of range; give a number below 1"),
        (("--target-gflops", -1), "target_gflops=-1.* is out of range; give a number above 0"),
        (("--target-params", "many"), "not a number of parameters"),
        ((), "Exactly one of"),
        (("--target-gflops", 5, "--target-ratio", 0.5), "Exactly one of"),
    ],
)
def test_target(refused, target, sentence) -> None:
    said = refused("v8", "--weights", WEIGHTS, *target, *PRUNE_ONLY)
    assert re.search(sentence, said)
    if "reach" in sentence or "own" in sentence:
        assert " to " in said  # the range


def _broken_yaml(path: Path) -> Path:
    path.write_text("train: [")
    return path


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (lambda root: root / "none.yaml", "There is no data YAML"),
        (lambda root: _broken_yaml(root / "broken.yaml"), "not valid YAML"),
    ],
    ids=["missing", "broken"],
)
@pytest.mark.parametrize("command", ["v8", "val"])
def test_data(refused, tmp_path, command, data, sentence) -> None:
    weights = ("--weights", WEIGHTS, "--target-ratio", 0.5) if command == "v8" else (WEIGHTS,)
    assert sentence in refused(command, *weights, "--data", data(tmp_path))


def test_data_of_the_weights_is_not_here(refused) -> None:
    assert "give --data" in refused("v8", "--weights", WEIGHTS, "--target-ratio", 0.5)


def test_learning_rate_given_twice(refused) -> None:
    words = ("v8", "--weights", WEIGHTS, "--target-ratio", 0.5, *PRUNE_ONLY, "lr0=0.5")
    assert "--lr0 0.01 and lr0=0.5" in refused(*words, "--lr0", 0.01)
    assert "lr0= is given twice" in refused(*words, "lr0=0.1")


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("optimiser=SGD", "did you mean 'optimizer'"),
        ("mosaic=much", "mosaic"),
        ("optimizer=Foo", "Unknown optimizer 'Foo'"),
        ("lr0=7", "lr0"),
        ("project=x", "--project"),
        ("resume=True", "--resume"),
        ("model=x.pt", "--weights"),
        ("mode=val", "cannot be given"),
        ("round_to=4", "--round-to"),
        ("prunehead=True", "did you mean 'prune_head'"),
        ("whatever", "key=value"),
    ],
)
def test_key_value(refused, pair, sentence) -> None:
    assert sentence in refused("v8", "--weights", WEIGHTS, "--target-ratio", 0.5, *PRUNE_ONLY, pair)


def test_a_target_as_key_value(refused) -> None:
    assert "give it as --target-ratio" in refused("v8", "--weights", WEIGHTS, "target_ratio=0.5")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--criterion", "tailor"), "did you mean 'taylor'"),
        (("--format", "onxn"), "did you mean 'onnx'"),
        (("--format", "stock"), "needs --portable"),
        (("--portable", "--round-to", 4), "round_to to be a multiple of 8"),
        (("--batch", "some"), "--batch some is not understood; give a number"),
        (("--batch", "nan"), "batch=nan"),
        (("--batch", "inf"), "batch=inf"),
        (("--batch", "-5"), "batch=-5"),
        (("--budget", "5m", "--epochs", 0), "leave --epochs out"),
        (("--budget", "soon"), "'soon' is no time budget"),
        (("--steps", 0), "steps=0"),
        (("--device", "7"), "device"),
        (("--keep", "model.0,modle.1"), "did you mean 'model.1'"),
    ],
)
def test_options(refused, option, sentence) -> None:
    exported = ("--epochs", 0, "--no-val", "--criterion", "l2", "--no-recover")
    assert sentence in refused("v8", "--weights", WEIGHTS, "--target-ratio", 0.5, *exported, *option)


@pytest.mark.parametrize("line", ["epochs: ten", "val: maybe", "export: true", "budget: soon", "batch: big"])
def test_recipe_values(refused, tmp_path, line) -> None:
    (tmp_path / "mine.yaml").write_text(line)
    said = refused("v8", "--weights", WEIGHTS, "--target-ratio", 0.5, "--recipe", tmp_path / "mine.yaml")
    assert line.split(": ")[1] in said.lower()


def test_output_folder_cannot_be_written(refused, tmp_path) -> None:
    (tmp_path / "file").touch()
    said = refused(
        "v8", "--weights", WEIGHTS, "--target-ratio", 0.5, *PRUNE_ONLY, "--project", tmp_path / "file" / "runs"
    )
    assert "cannot be written" in said


def test_weights_in_the_folder_that_is_cleared(refused, tmp_path) -> None:
    weights = tmp_path / "runs" / "a" / "pruned.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(WEIGHTS.read_bytes())
    where = ("--project", tmp_path / "runs", "--name", "a", "--exist-ok")
    assert "--exist-ok clears" in refused("v8", "--weights", weights, "--target-ratio", 0.5, *PRUNE_ONLY, *where)
    assert weights.exists()


def test_resume(refused, yoloprune, tmp_path) -> None:
    assert "leave out --project" in refused("v8", "--resume", tmp_path, "--project", tmp_path)
    result = yoloprune("v8", "--resume", tmp_path)
    assert result.exit_code == 2
    assert "not the folder of a pruning run" in result.stderr


def test_export_format(refused) -> None:
    assert "did you mean 'onnx'" in refused("export", WEIGHTS, "--format", "onxn")


def test_what_stock_rows_cannot_say(refused, yoloprune, tmp_path) -> None:
    into = ("--project", tmp_path, "--name", "odd")
    words = ("--weights", WEIGHTS, "--target-ratio", 0.7, "--round-to", 1, *PRUNE_ONLY, *into)
    assert yoloprune("v8", *words).exit_code == 0
    said = refused("export", tmp_path / "odd" / "pruned.pt", "--format", "stock")
    assert re.search(r"model\.\d+[\w.]* has \d+ channels, but a stock \w+ row makes \d+ \(.*multiples of 8\)", said)
    assert not (tmp_path / "odd" / "pruned_stock.pt").exists()


@pytest.mark.parametrize("command", ["val", "export"])
@pytest.mark.parametrize("imgsz", [0, -5])
def test_imgsz(refused, command, imgsz) -> None:
    assert f"imgsz={imgsz} is too small; the least is 32" in refused(command, WEIGHTS, "--imgsz", imgsz)


@pytest.mark.parametrize(
    ("words", "format", "sentence"),
    [
        (("v8", "--target-ratio", 0.8, "--weights"), "openvino", "run: pip install 'yoloprune[openvino]'"),
        (("v8", "--target-ratio", 0.8, "--weights"), "engine", "needs an NVIDIA GPU"),
        (("export",), "openvino", "run: pip install 'yoloprune[openvino]'"),
    ],
)
def test_formats_that_this_machine_cannot_write(refused, monkeypatch, words, format, sentence) -> None:
    monkeypatch.setattr("yoloprune.deploy.formats.find_spec", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    more = ("--epochs", 0, "--no-val") if words[0] == "v8" else ()
    assert sentence in refused(*words, WEIGHTS, *more, "--format", format)


@pytest.mark.parametrize(
    ("command", "pair", "sentence"),
    [
        ("val", "imgsz=160", "--imgsz"),
        ("val", "batch=2", "--batch"),
        ("val", "verbose=True", "cannot be given"),
        ("val", "yolo=3", "not an option of Ultralytics"),
        ("val", "mode=train", "cannot be given"),
        ("val", "name=x", "nothing is written"),
        ("export", "imgsz=160", "--imgsz"),
        ("export", "format=onnx", "--format"),
        ("export", "path=x.onnx", "not an option of Ultralytics"),
        ("export", "model=foo.pt", "cannot be given"),
        ("export", "task=segment", "cannot be given"),
        ("export", "project=x", "beside the weights"),
        ("export", "batch=0", "batch=0 is no number of images"),
        ("export", "batch=0.5", "batch=0.5 is no number of images"),
        ("export", "opset=99", "opset=99 is newer"),
        ("export", "quantize=8", "data="),
    ],
)
def test_key_value_of_val_and_export(refused, command, pair, sentence) -> None:
    assert sentence in refused(command, WEIGHTS, pair)
