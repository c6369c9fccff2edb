"""A small detector and small data for the pages and examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.small_yolo import shallow_weights


@pytest.fixture
def own_folder(tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images and labels in YOLO format with data.yaml and best.pt, as the current folder."""
    for split, count in (("train", 8), ("val", 4)):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            (tmp_path / kind / split).mkdir(parents=True)
            for file in sorted((few_digits.parent / kind / split).glob(f"*.{suffix}"))[:count]:
                shutil.copy(file, tmp_path / kind / split)
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    shutil.copy(shallow_weights(), tmp_path / "best.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    return tmp_path
