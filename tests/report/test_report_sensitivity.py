"""Table, CSV and picture of a sensitivity analysis."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from yoloprune.analysis.sensitivity import Sensitivity, SensitivityRow
from yoloprune.report.sensitivity import draw_sensitivity, save_sensitivity, sensitivity_table


def table(layers: int, ratios: tuple[float, ...] = (0.25, 0.5), factor: float = 1.0) -> Sensitivity:
    """Layer i has the errors (i + 1) · ratio and saves ratio GFLOPs, so that its sensitivity is i + 1."""
    rows = tuple(
        SensitivityRow(
            (f"model.{i}.conv",),
            16,
            tuple(round(16 * ratio) for ratio in ratios),
            tuple(factor * (i + 1) * ratio for ratio in ratios),
            ratios,
            tuple(1.0 for _ in ratios),
            np.arange(i, i + 1),
        )
        for i in range(layers)
    )
    return Sensitivity(ratios, rows, "l2", "a measure", 8.0)


def test_the_most_sensitive_layer_comes_first() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(sensitivity_table(table(3)))
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["2", "1", "0"]


def test_csv_has_a_row_per_layer_and_ratio(tmp_path: Path) -> None:
    save_sensitivity(table(3), tmp_path / "s.csv")
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert [(row["layers"], row["ratio"]) for row in rows][:3] == [
        ("model.2.conv", "0.25"), ("model.2.conv", "0.5"), ("model.1.conv", "0.25")
    ]  # fmt: skip
    assert float(rows[0]["error"]) == 0.75
    assert float(rows[0]["error_per_gflop"]) == 3
    assert rows[1]["removed"] == "8"


@pytest.mark.parametrize(("layers", "factor"), [(1, 1.0), (60, 1.0), (3, 0.0)])
def test_the_picture_grows_with_the_layers(tmp_path: Path, layers, factor) -> None:
    draw_sensitivity(table(layers, factor=factor), tmp_path / "s.png")
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape[0] > 100 + 20 * layers
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
