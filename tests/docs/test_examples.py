"""Everything in examples/, run on small networks and images."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

import yoloprune
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """`example("own_data.py", "best.pt")` runs a script as if it had been typed."""

    def run(name: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def _params(file: Path) -> int:
    return sum(parameter.numel() for parameter in yoloprune.load(file).model.parameters())


@pytest.mark.slow
def test_own_data(example, own_folder: Path, capsys) -> None:
    example("own_data.py", "best.pt", "data.yaml", "--epochs", "1", "--imgsz", "64", "--images", "4")
    assert "% of the GFLOPs" in capsys.readouterr().out
    assert _params(own_folder / "pruned.pt") < _params(own_folder / "best.pt")
    assert (own_folder / "pruned.onnx").is_file()


@pytest.mark.slow
def test_in_training(example, own_folder: Path, capsys) -> None:
    words = ("--epochs", "1", "--imgsz", "64", "--images", "4", "--out", "small.pt")
    example("in_training.py", "best.pt", "data.yaml", *words)
    assert "epoch 1: mAP50-95" in capsys.readouterr().out
    assert _params(own_folder / "small.pt") < _params(own_folder / "best.pt")


def test_any_network(example, capsys) -> None:
    example("any_network.py", "regnet_y_400mf", "--size", "64")
    shares, exactness, distances = capsys.readouterr().out.splitlines()
    assert 0.45 < float(shares.split(": ")[1].split("%")[0]) / 100 <= 0.5
    assert float(exactness.split(": ")[1]) < 1e-4
    pruned, recovered = (float(word) for word in distances.split() if word[0].isdigit())
    assert recovered < pruned


@pytest.mark.slow
def test_notebook(own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    notebook = json.loads((EXAMPLES / "pruning.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        assert {"id", "cell_type", "metadata", "source"} <= set(cell)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None  # committed without results
    small = {"WEIGHTS": "best.pt", "DATA": "data.yaml", "FOLDER": ".", "IMGSZ": 64, "IMAGES": 4, "EPOCHS": 0}
    for name, value in small.items():
        monkeypatch.setenv(name, str(value))
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert " -> " in capsys.readouterr().out
    assert (own_folder / "pruned.onnx").is_file()
