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
from yoloprune.files import atomic

__all__ = ["for_ultralytics", "forget", "write_for_ultralytics"]

_START, _TEACHER = "untrained.pt", "teacher.pt"


def for_ultralytics(
    start: Path, folder: Path, training: Training, load: Callable[[str | Path], nn.Module]
) -> tuple[Path, Path, Training]:
    """What to call `UltralyticsDetector.train` with: a start, and if need be a teacher, that the trainer reads.

    Args:
        start: Checkpoint to start from.
        folder: The trainer's folder.
        training: What to do.
        load: Reads the network of a checkpoint of the family.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = replace(training, prune_head=True)  # which has no hidden layers: `YOLOv7Detector.trace`
    if training.distillation:
        teacher = write_for_ultralytics(load(training.distillation.teacher), folder / _TEACHER)
        training = replace(training, distillation=replace(training.distillation, teacher=str(teacher)))
    return write_for_ultralytics(load(start), folder / _START), folder, training


def forget(folder: Path) -> None:
    """Remove what `for_ultralytics` has written."""
    for name in (_START, _TEACHER):
        (folder / name).unlink(missing_ok=True)


def write_for_ultralytics(network: nn.Module, path: Path) -> Path:
    """Write a network, as precise as it is, to a checkpoint in Ultralytics' layout, and return its path."""
    content = io.BytesIO()
    torch.save({"epoch": -1, "model": network, "ema": None, "optimizer": None, "train_args": {}}, content)
    with atomic(path) as tmp:
        tmp.write_bytes(content.getbuffer())
    return path
