"""Train weights/yolov8n-digits.pt again: `python weights/train.py`, about 20 minutes on one CPU core.

A YOLOv8n from random weights, on the training canvases of `yoloprune.demo.digits`. The last epoch's averaged weights
are kept; the validation canvases play no part in it and are only measured at the end.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from ultralytics import YOLO

from yoloprune.demo import digits
from yoloprune.files import atomic

RECIPE = {
    "imgsz": 160,
    "epochs": 60,
    "batch": 16,
    "nbs": 16,  # a step for every batch: there are only 32 in an epoch
    "optimizer": "AdamW",
    "lr0": 0.002,
    "cos_lr": True,
    "warmup_epochs": 2,
    "warmup_bias_lr": 0.0,  # Ultralytics' .1 is meant for SGD
    "mosaic": 1.0,
    "close_mosaic": 25,
    "fliplr": 0.0,  # a mirrored digit is none
    "seed": 0,
    "device": "cpu",
}


def _strip(trained: Path, path: Path) -> None:
    """Save what a user of the checkpoint needs, without this run's folders, commit and curves."""
    checkpoint = torch.load(trained, map_location="cpu", weights_only=False)  # written by this very script
    arguments = {**checkpoint["train_args"], "data": "digits", "project": None, "name": "digits"}
    arguments.pop("save_dir", None)
    checkpoint["model"].args = dict(arguments)
    for key in ("git", "train_results"):
        checkpoint.pop(key)
    with atomic(path) as tmp, tmp.open("wb") as file:  # given a path, torch would write its name into the archive
        torch.save({**checkpoint, "train_args": arguments}, file)


def main() -> None:
    """Write the set, train, save and measure."""
    with tempfile.TemporaryDirectory() as folder:
        data = digits.write(Path(folder) / "digits")
        model = YOLO("yolov8n.yaml")
        model.train(data=str(data), project=folder, name="train", val=False, plots=False, cache="ram", **RECIPE)
        _strip(Path(folder) / "train" / "weights" / "last.pt", digits.WEIGHTS)
        YOLO(digits.WEIGHTS).val(data=str(data), imgsz=160, batch=16, project=folder, device="cpu")


if __name__ == "__main__":
    main()
