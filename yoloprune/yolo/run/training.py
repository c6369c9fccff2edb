"""A training through Ultralytics that can be gone on with after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints
from yoloprune.yolo.guard import check_options, offline
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.own_data import own_trainer
from yoloprune.yolo.reading import read_network

from .continuation import Continuation
from .state import intact
from .watch import watch_training

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
        UserError: Ultralytics lacks a package for this family, or the folder holds checkpoints that no training of this
            run wrote.
    """
    continuation = Continuation(folder)
    if goes_on := continuation.prepare():
        yolo = _unfinished(continuation.last)
        keywords: dict[str, Any] = {"resume": True, "save_dir": str(folder)}
        keywords |= {name: train[name] for name in ("time",) if name in train}  # what is left of a budget by now
    else:
        yolo = checkpoints.load(start)
        keywords = {**options, "project": str(folder.parent), "name": folder.name, "exist_ok": True, **train}
    continuation.attach(yolo)
    watch_training(yolo)
    try:
        with offline():
            yolo.train(trainer=bind(own_trainer(yolo._smart_load("trainer"))), data=data, device=device, **keywords)
    except ImportError as error:
        raise UserError(
            f"Training this model needs the Python package {error.name!r}; install it, or {otherwise}."
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        if not goes_on or continuation.begun or isinstance(error, UserError):
            raise
        raise continuation.foreign() from error
    return yolo


def _unfinished(last: Path) -> YOLO:
    """The YOLO to go on from: Ultralytics takes the options of a training from it, and ends with the best beside it."""
    anew = f"remove the folder '{last.parents[1]}' and resume again: this training then starts anew"
    best = last.with_name("best.pt")
    with intact(last, anew):
        yolo = checkpoints.load(last)
        given = yolo.ckpt["train_args"]
        check_options({name: value for name, value in given.items() if name != "save_dir"})
        if yolo.ckpt["epoch"] < 0 or not yolo.ckpt["optimizer"] or given["distill_model"]:
            raise ValueError
    with intact(best, anew):
        if best.exists():
            read_network(best)
    return yolo
