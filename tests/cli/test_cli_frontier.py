"""`yoloprune frontier` as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.small_yolo import shallow_weights
from yoloprune import detectors
from yoloprune.analysis.frontier import Point
from yoloprune.demo import digits


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No weights were given; name one checkpoint or several"),
        (["gone.pt"], "There is no file 'gone.pt'"),
        (["W", "--sizes", "big"], "--sizes big is not understood; give numbers with commas between them"),
        (["W", "--sizes", "16,64"], "--sizes 16 is too small for an image"),
        (["W", "--shares", "0.5,1.5"], "are no shares to prune to; give numbers between 0 and 1"),
        (["W", "--target-ms", "fast"], "--target-ms fast is not a number of milliseconds"),
        (["W", "--threads", "2"], "--threads 2 is for --target-ms"),
        (["W", "--data", "gone.yaml"], "There is no data YAML or folder 'gone.yaml'"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(yoloprune, words, said) -> None:
    words = [str(digits.WEIGHTS) if word == "W" else word for word in words]
    result = yoloprune("frontier", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_frontier(yoloprune, tmp_path: Path, few_digits: Path) -> None:
    words = [shallow_weights(), "--prune-head", "--data", few_digits, "--sizes", "96,64", "--device", "cpu"]
    words += ["--calibration-images", 8, "--target-ratio", 0.3, "--imgsz", 96, "--project", tmp_path, "--name", "f"]
    result = yoloprune("frontier", *words, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {(p["imgsz"], round(p["share"], 2)) for p in found["points"]} == {(96, 1), (96, 0.3), (64, 1), (64, 0.68)}
    rows = list(csv.DictReader((tmp_path / "f" / "frontier.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert (tmp_path / "f" / "frontier.png").is_file()
    pruned = [Point(**point) for point in found["points"] if point["share"] < 1]
    assert [detectors.load(tmp_path / "f" / p.file).trained_imgsz for p in pruned] == [p.imgsz for p in pruned]
    assert found["best"]["gflops"] <= 0.3 * max(p["gflops"] for p in found["points"])
    again = yoloprune("frontier", *words)  # everything is measured already
    assert again.exit_code == 0
    assert "What accuracy costs" in again.stdout
    assert ("To make it: yoloprune prune" in again.stdout) == (found["best"]["share"] < 1)
    assert ("no pruning is needed" in again.stdout) == (found["best"]["share"] == 1)


def test_networks_are_trained_in_a_folder_that_is_relative(
    yoloprune, tmp_path: Path, few_digits: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # as the default, runs/frontier, is
    words = [shallow_weights(), "--data", few_digits, "--sizes", "64", "--shares", 0.7, "--device", "cpu"]
    words += ["--epochs", 2, "--calibration-images", 8, "--imgsz", 64, "--prune-head"]
    result = yoloprune("frontier", *map(str, words), "--json")
    assert result.exit_code == 0, result.output
    trained = [point for point in json.loads(result.stdout)["points"] if point["untrained"]]
    assert [point["share"] for point in trained] == [0.7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["frontier"]
