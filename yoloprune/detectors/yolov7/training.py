"""Training through Ultralytics' trainers, as their own networks are trained: see `detectors.ultralytics.trainers`.

Ultralytics reads checkpoints of its own layout alone, in the processes of a distributed training too. So the network
to start from and the teacher are written in that layout into the trainer's folder first; the network's loss is its own
(`Network.init_criterion`), and the trainer writes `best.pt` and `last.pt` in the same layout.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from yoloprune.detectors.base import Training
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.trainers.training import train as train_with_ultralytics
from yoloprune.files import atomic

__all__ = ["forget", "train", "write_for_ultralytics"]

_START, _TEACHER = "untrained.pt", "teacher.pt"


def train(start: Path, folder: Path, training: Training, load: Callable[[str | Path], YOLO]) -> YOLO:
    """Train a checkpoint's network as it is, or resume a training that was interrupted in `folder`.

    Args:
        start: Checkpoint to start from.
        folder: The trainer's folder.
        training: What to do.
        load: Reads a checkpoint of the family.

    Returns:
        The trained YOLO with its `trainer`.

    Raises:
        UserError: As `trainers.training.train` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begin = write_for_ultralytics(load(start).model, folder / _START)
    if training.distillation:
        teacher = write_for_ultralytics(load(training.distillation.teacher).model, folder / _TEACHER)
        training = replace(training, distillation=replace(training.distillation, teacher=str(teacher)))
    return train_with_ultralytics(begin, folder, training)


def forget(folder: Path) -> None:
    """Remove what `train` has written to start from."""
    for name in (_START, _TEACHER):
        (folder / name).unlink(missing_ok=True)


def write_for_ultralytics(network: nn.Module, path: Path) -> Path:
    """Write a network, as precise as it is, to a checkpoint in Ultralytics' layout, and return its path."""
    content = io.BytesIO()
    torch.save({"epoch": -1, "model": network, "ema": None, "optimizer": None, "train_args": {}}, content)
    with atomic(path) as tmp:
        tmp.write_bytes(content.getbuffer())
    return path
