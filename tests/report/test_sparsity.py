"""The picture of a sparse training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloprune.errors import UserError
from yoloprune.report.sparsity import draw_sparsity
from yoloprune.sparsity import Distribution, append_row, distribution, read_rows


class Graph:
    """Only what `distribution` looks at."""

    frozen = np.zeros(1000, bool)


def rows(epochs: int) -> list[Distribution]:
    """Half of the channels fall by a decade every two epochs."""
    scores = np.random.default_rng(0).normal(1, 0.1, 1000)
    weak = np.arange(1000) < 500
    return [
        distribution(Graph(), np.where(weak, scores * 10 ** (-epoch / 2), scores), epoch=epoch)
        for epoch in range(1, epochs + 1)
    ]


def colored(picture: np.ndarray, bgr: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - bgr).max(2) < 4).sum())


def test_weak_channels_show_apart_from_strong_ones(tmp_path: Path) -> None:
    for name, epochs in (("early.png", 1), ("late.png", 8)):
        draw_sparsity(rows(epochs), tmp_path / name)
    red, blue = (0x3A, 0x42, 0xB3), (0xB0, 0x6F, 0x2A)
    early, late = (cv2.imread(str(tmp_path / name)) for name in ("early.png", "late.png"))
    assert late.shape[1] > late.shape[0] > 300
    assert colored(early, blue) > 1000
    assert colored(late, blue) > 1000
    assert colored(late, red) > 5 * colored(early, red)


def test_a_table_can_be_drawn(tmp_path: Path) -> None:
    for row in rows(3):
        append_row(tmp_path / "sparsity.csv", row)
    draw_sparsity(read_rows(tmp_path / "sparsity.csv"), tmp_path / "sparsity.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sparsity.csv", "sparsity.png"]


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="finished no epoch"):
        draw_sparsity([], tmp_path / "sparsity.png")
    assert not list(tmp_path.iterdir())
