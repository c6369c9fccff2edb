"""Running the command line in this process, and data that train in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from yoloprune.cli.app import app
from yoloprune.demo import digits


@pytest.fixture
def yoloprune() -> Callable:
    """`yoloprune("v8", "--epochs", 0)` runs the command and returns exit code, stdout and stderr."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data YAML of 32 training and 8 validation canvases of the embedded digits."""
    root = digits.write(tmp_path_factory.mktemp("digits")).parent
    for split, count in (("train", 32), ("val", 8)):
        images = sorted((root / "images" / split).iterdir())[:count]
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{image.name}\n" for image in images))
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    data = root / "few.yaml"
    data.write_text(f"path: {root}\ntrain: train.txt\nval: val.txt\nnames:\n{names}")
    return data
