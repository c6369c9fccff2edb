"""Small networks and data sets, and what tests of the YOLO layer say of them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.pipeline.manifest import Manifest


def narrow(network: nn.Module, index: int = 2) -> None:
    """Keep 5/8 of the inner channels of the first Bottleneck of the block at `index`: an actually pruned network."""
    bottleneck = network.model[index].m[0]
    first, second = bottleneck.cv1, bottleneck.cv2
    keep = first.conv.out_channels * 5 // 8
    first.conv.out_channels = first.bn.num_features = second.conv.in_channels = keep
    first.conv.weight = nn.Parameter(first.conv.weight.detach()[:keep].clone())
    second.conv.weight = nn.Parameter(second.conv.weight.detach()[:, :keep].clone())
    for name in ("weight", "bias"):
        setattr(first.bn, name, nn.Parameter(getattr(first.bn, name).detach()[:keep].clone()))
    for name in ("running_mean", "running_var"):
        setattr(first.bn, name, getattr(first.bn, name)[:keep].clone())


def enliven(network: nn.Module) -> None:
    """Give a fresh network outputs that depend on its input: random norms, calibrated, and biases that differ.

    In a default-initialised network a wrong channel moves the output by less than 1e-6.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.5)
        norm.momentum = 1.0
    with torch.no_grad():
        network.eval()
        for norm in norms:
            norm.train()
        network(torch.rand(4, 3, 64, 64))
    for norm in norms:
        norm.eval()
        norm.momentum = 0.03
    for name, parameter in network.model[-1].named_parameters():
        if name.endswith("bias") and parameter.ndim == 1:
            nn.init.normal_(parameter)


def put(run: Path, name: str, write: Callable[[Path], None]) -> None:
    """Write a file of a run as the run does it."""
    manifest = Manifest.load(run)
    manifest.open()
    write(run / name)
    manifest.close()


def launched(run: Any, asked: str) -> str:
    """What a fresh interpreter, given the file of Ultralytics' DDP launcher, says of `trainer` after its training.

    Args:
        run: A trainer whose model is set up.
        asked: Expressions, separated by commas, of which the repr is returned.
    """
    pytest.importorskip("cloudpickle", reason="Ultralytics' DDP launcher needs cloudpickle")
    file = generate_ddp_file(run)
    try:
        script = Path(file)
        script.write_text(f"{script.read_text()}    print(({asked}))\n")
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True)
    finally:
        ddp_cleanup(run, file)
    return done.stdout.splitlines()[-1]


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Every tensor's shape, by name."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


SHORT: dict[str, Any] = {
    "imgsz": 64,
    "batch": 2,
    "epochs": 1,
    "device": "cpu",
    "workers": 0,
    "plots": False,
    "amp": False,
    "optimizer": "SGD",
    "verbose": False,
    "mosaic": 0.0,
}
"""Keywords of a training that is over in a second or two."""

OTHER_TASKS = [
    ("yolov8n-seg.yaml", "segment"),
    ("yolov8n-pose.yaml", "pose"),
    ("yolov8n-obb.yaml", "obb"),
    ("yolov8n-cls.yaml", "classify"),
]
"""A model for each task but detection."""


def equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same tensors, bit for bit."""
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# What follows the class in a label line, for a rectangle from (12, 16) to (44, 48) in an image of 64 px.
LABELS = {
    "detect": ".4375 .5 .5 .5",
    "segment": ".1875 .25 .6875 .25 .6875 .75 .1875 .75",
    "obb": ".1875 .25 .6875 .25 .6875 .75 .1875 .75",
    "pose": ".4375 .5 .5 .5 " + " ".join([".4 .5 2"] * 17),
}


def write_data(root: Path, names: list[str], images: int = 4, task: str = "detect") -> Path:
    """Write images of 64 px with one bright rectangle each, classes in turn, and return what `data=` takes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(images):
            kind = i % len(names)
            image = rng.integers(0, 40, (64, 64, 3), dtype=np.uint8)
            image[16:48, 12:44] = 80 + 40 * kind
            folder = root / split / names[kind] if task == "classify" else root / "images" / split
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{i}.png"), image)
            if task != "classify":
                label = root / "labels" / split / f"{i}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(f"{kind} {LABELS[task]}\n")
    if task == "classify":
        return root
    yaml = root / "data.yaml"
    pose = "kpt_shape: [17, 3]\n" if task == "pose" else ""
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {names}\n{pose}")
    return yaml


def write_few_digits(folder: Path, *, train: int, val: int) -> Path:
    """Write the embedded digits and return a data YAML of some of its canvases only."""
    root = digits.write(folder).parent
    for split, count in (("train", train), ("val", val)):
        images = sorted((root / "images" / split).iterdir())[:count]
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{image.name}\n" for image in images))
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    data = root / "few.yaml"
    data.write_text(f"path: {root}\ntrain: train.txt\nval: val.txt\nnames:\n{names}")
    return data


@functools.cache
def interrupt_in(yolo: YOLO, epoch: int) -> None:
    """Have Ctrl-C come at the start of an epoch, from 0, of the next training."""

    def interrupt(running: Any) -> None:
        if running.epoch == epoch:
            raise KeyboardInterrupt

    yolo.add_callback("on_train_epoch_start", interrupt)


def shallow_weights() -> Path:
    """The checkpoint of a YOLOv8 of few layers and 10 classes, with which a run takes a moment; it detects nothing.

    Its images are of 64 px.
    """
    rows = [
        *([-1, 1, "Conv", [width, 3, 2]] for width in (16, 32)),
        [-1, 1, "C2f", [64, True]],
        *([-1, 1, "Conv", [64, 3, 2]] for _ in range(3)),
    ]
    described = {"nc": 10, "backbone": rows, "head": [[[4, 5], 1, "Detect", ["nc"]]]}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yolo = YOLO("yolov8n.yaml")
        yolo.model = DetectionModel(described, verbose=False)
        enliven(yolo.model)
    yolo.ckpt = {"train_args": {"imgsz": 64}}
    path = Path(os.environ["YOLO_CONFIG_DIR"], "shallow.pt")  # which is removed in the end
    checkpoints.save(yolo, path)
    return path
