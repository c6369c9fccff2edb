"""The page "Your own data in three steps", command by command, in a folder as it describes, on eight small images."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from ultralytics.cfg import entrypoint

from tests.docs.pages import ROOT, blocks, commands
from yoloprune.cli.app import app

PAGE = ROOT / "docs" / "own-data.md"
SMALLER = {  # typed after what the page says, so that it takes seconds
    "train": ["epochs=1", "imgsz=64", "batch=4", "lr0=1e-6", "optimizer=SGD", "plots=False"],
    "frontier": ["--epochs", "1", "--sizes", "64", "--shares", "0.5", "--calibration-images", "8", "--batch", "4"],
    "v8": ["--epochs", "1", "--calibration-images", "8", "--batch", "4", "--imgsz", "64", "--max-pruning-ratio", "0.9"],
    "val": ["plots=False"],
    "predict": ["save=True"],  # as is the default where the program is yolo
}


def _names_digits(folder: Path) -> None:
    """Write the page's own data.yaml, with the digits' names."""
    (yaml,) = blocks(PAGE, "yaml")
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    (folder / "data.yaml").write_text(yaml[: yaml.index("  0:")] + names)


@pytest.mark.slow
def test_every_command_of_the_page(own_folder: Path) -> None:
    _names_digits(own_folder)
    (own_folder / "best.pt").rename("yolov8n.pt")
    for line in commands(PAGE):
        program, name, *words = shlex.split(os.path.expandvars(line))
        words += SMALLER.get(name, [])
        if program == "yolo":
            words = [*words, "device=cpu", "workers=0"] if name != "predict" else [*words, "device=cpu"]
            entrypoint(" ".join([program, name, *words]))
            continue
        if name == "frontier" and "--name" not in words:
            words[words.index("1")] = "0"  # the first look trains nothing
        done = CliRunner().invoke(app, [name, *words, *([] if name == "export" else ["--device", "cpu"])])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    runs = own_folder / "runs"
    for made in (
        "original/weights/best.pt",
        "frontier/frontier/frontier.png",
        "frontier/trained/frontier.csv",
        "prune/prune/pruned.pt",
        "prune/prune/pruned.onnx",
        "seen",
    ):
        assert (runs / made).exists(), made
