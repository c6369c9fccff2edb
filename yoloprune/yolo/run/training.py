"""A training through Ultralytics that can be gone on with after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints
from yoloprune.yolo.guard import offline
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.own_data import own_trainer

from .continuation import Continuation

__all__ = ["train_or_go_on"]


def train_or_go_on(
    start: Path,
    folder: Path,
    *,
    bind: Callable[[type], type],
    otherwise: str,
    data: str,
    device: str | None,
    train: dict[str, Any],
    **options: Any,
) -> YOLO:
    """Train a checkpoint in `folder`, or go on with a training that was interrupted there.

    Args:
        start: Checkpoint to start from.
        folder: The trainer's folder.
        bind: Makes the trainer to use from the task's own.
        otherwise: What a user can do who lacks a package for training this family.
        data: Data YAML.
        device: As Ultralytics takes it.
        train: Further keywords for Ultralytics' `train()`; they take the place of `options`.
        options: The run's own keywords: epochs, imgsz, batch, seed.

    Returns:
        The trained YOLO with its `trainer`.

    Raises:
        UserError: Ultralytics lacks a package for this family.
    """
    continuation = Continuation(folder)
    if continuation.prepare():
        yolo = checkpoints.load(continuation.last)
        keywords: dict[str, Any] = {"resume": True, "save_dir": str(folder)}
        keywords |= {name: train[name] for name in ("time",) if name in train}  # what is left of a budget by now
    else:
        yolo = checkpoints.load(start)
        keywords = {**options, "project": str(folder.parent), "name": folder.name, "exist_ok": True, **train}
    continuation.attach(yolo)
    try:
        with offline():
            yolo.train(trainer=bind(own_trainer(yolo._smart_load("trainer"))), data=data, device=device, **keywords)
    except ImportError as error:
        raise UserError(
            f"Training this model needs the Python package {error.name!r}; install it, or {otherwise}."
        ) from error
    return yolo
