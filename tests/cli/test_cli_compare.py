"""`yoloprune compare` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.report.pages import Elements
from yoloprune import detectors
from yoloprune.demo import digits


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Two checkpoints at least are compared"),
        (["W"], "Two checkpoints at least are compared"),
        (["W", "gone.pt"], "There is no file 'gone.pt'"),
        (["W", "W"], "A checkpoint is named twice"),
        (["W", "W", "--data", "gone.yaml"], "There is no data YAML or folder 'gone.yaml'"),
        (["W", "W", "--batch", "0"], "--batch 0 is too small"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(yoloprune, words, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = yoloprune("compare", *(str(digits.WEIGHTS) if word == "W" else word for word in words))
    assert result.exit_code == 2
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_checkpoints_side_by_side(yoloprune, few_digits: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(digits.WEIGHTS, tmp_path / "other.pt"))
    words = ["compare", digits.WEIGHTS, other, "--data", few_digits, "--imgsz", 96, "--device", "cpu"]
    out = tmp_path / "out"
    result = yoloprune(*words, "-o", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [network["weights"] for network in found["networks"]] == [digits.WEIGHTS.name, "other.pt"]
    assert found["networks"][0]["metrics"] == found["networks"][1]["metrics"]
    assert "the gap of 0.000 is chance" in " ".join(found["verdict"])
    assert found["report"] == str(out / "report.html")
    assert json.loads((out / "comparison.json").read_text())["networks"][0]["details"]["classes"]
    text = (out / "report.html").read_text()
    assert "yoloprune compare" in text and "What it sees" in text
    assert all(image["alt"] for image in Elements(text).of("img"))
    small = detectors.load(digits.WEIGHTS)
    small.settle(imgsz=96)
    small.save(tmp_path / "small.pt")
    again = yoloprune("compare", digits.WEIGHTS, tmp_path / "small.pt", *words[3:5], "--device", "cpu", "-o", out)
    assert again.exit_code == 0, again.output
    assert "GFLOPs are of one image of each network's size" in " ".join(again.stdout.split())
    own, cheaper = json.loads((tmp_path / "out-2" / "comparison.json").read_text())["networks"]
    assert cheaper["gflops"] == pytest.approx(own["gflops"] * (96 / 160) ** 2)
    assert (tmp_path / "out-2" / "report.html").is_file()
