"""YOLOv7-tiny from random weights on the embedded digits, then pruned to half its GFLOPs, all on one CPU core.

    python benchmarks/yolov7_digits.py train runs/yolov7-digits
    yoloprune v7 --weights runs/yolov7-digits/yolov7-tiny-digits.pt --target-ratio 0.5 --recipe digits --device cpu

The first may be killed and started again: it goes on. The last epoch's averaged weights are kept, and the validation
canvases are only measured at the end. The second ranks, mends and trains for six epochs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from yoloprune import detectors
from yoloprune.demo import digits
from yoloprune.detectors.base import Training
from yoloprune.detectors.yolov7 import build

IMGSZ, BATCH = 160, 16
RECIPE = {
    "nbs": 16,  # a step for every batch: there are only 32 in an epoch
    "optimizer": "AdamW",
    "lr0": 0.002,
    "cos_lr": True,
    "warmup_epochs": 2,
    "warmup_bias_lr": 0.0,  # Ultralytics' .1 is meant for SGD
    "mosaic": 1.0,
    "fliplr": 0.0,  # a mirrored digit is none
    "cache": "ram",
    "workers": 0,
    "plots": False,
    "val": False,
}


def train(folder: Path, epochs: int, seed: int) -> None:
    """Train, save and measure."""
    folder.mkdir(parents=True, exist_ok=True)
    data, weights = folder / "digits" / "digits.yaml", folder / "yolov7-tiny-digits.pt"
    if not data.exists():
        digits.write(folder / "digits")
    torch.manual_seed(seed)
    network = build("yolov7-tiny", nc=10)
    network.names = {i: str(i) for i in range(10)}
    fresh = detectors.wrap(network)
    start = folder / "untrained.pt"
    if not start.exists():
        fresh.save(start, float32=True)
    began = time.process_time()
    training = Training(
        data=str(data),
        epochs=epochs,
        imgsz=IMGSZ,
        batch=BATCH,
        device="cpu",
        seed=seed,
        keywords={**RECIPE, "close_mosaic": epochs * 2 // 5},
        instead="",
    )
    trained = fresh.train(start, folder / "train", training).detector
    seconds = time.process_time() - began
    trained.save(weights)
    found = detectors.load(weights).validate(str(data), imgsz=IMGSZ, batch=BATCH, device="cpu")
    print(json.dumps({"epochs": epochs, "seconds": round(seconds), "map": found.map, "map50": found.map50}))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.folder, given.epochs, given.seed)


if __name__ == "__main__":
    main()
