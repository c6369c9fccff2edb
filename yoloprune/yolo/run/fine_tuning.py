"""One fine-tuning: Ultralytics' trainer, with what the run binds to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.distill import Distillation, bind_distillation
from yoloprune.yolo.trainers.way_back import bind_way_back

from .metrics import named_training_metrics
from .options import Options
from .time_budget import Allowed
from .training import train_or_go_on

__all__ = ["FineTuned", "fine_tune", "train_keywords"]


def _bound(trainer: type, *, way_back: bool, distillation: Distillation | None) -> type:
    """The trainer with what the fine-tuning adds to it."""
    if way_back:
        trainer = bind_way_back(trainer)
    return bind_distillation(trainer, distillation) if distillation else trainer


class FineTuned(NamedTuple):
    """What a fine-tuning gave: the network of its best epoch, the epochs run, its validation metrics."""

    yolo: YOLO
    epochs: int
    metrics: dict[str, float]


def train_keywords(options: Options, removed: float) -> dict[str, Any]:
    """Keywords of Ultralytics' `train()` for a network that loses, or is to lose, this share of its cost."""
    train = dict(options.train)
    if options.lr0_per_share:
        train.setdefault("lr0", options.lr0_per_share * removed)
    if "lr0" in train:
        train.setdefault("optimizer", "SGD")  # Ultralytics' optimizer=auto would ignore lr0, whose default is SGD's
    return train


def fine_tune(
    pruned: Path,
    options: Options,
    folder: Path,
    distillation: Distillation | None,
    *,
    removed: float,
    allowed: Allowed | None = None,
) -> FineTuned:
    """Train through Ultralytics' trainer, into `folder`, or go on with a training that was interrupted there.

    Args:
        pruned: Checkpoint of the pruned network.
        options: Data, epochs, image size, batch, device, seed and further train keywords.
        folder: The trainer's folder.
        distillation: Teacher and plan, if the unpruned network is to guide the training.
        removed: Share of the cost that the step removed.
        allowed: Epochs and seconds in the place of the options' epochs.

    Raises:
        UserError: Ultralytics lacks a package for this family.
    """
    train = train_keywords(options, removed)
    epochs = options.epochs
    if allowed:
        epochs, train["time"] = allowed.epochs, allowed.seconds / 3600
    yolo = train_or_go_on(
        pruned,
        folder,
        bind=partial(_bound, way_back=options.way_back, distillation=distillation),
        otherwise="give --epochs 0",
        data=options.data,
        epochs=epochs,
        imgsz=options.imgsz,
        batch=options.batch,
        device=options.device,
        seed=options.seed,
        train=train,
    )
    trainer = yolo.trainer
    return FineTuned(yolo, trainer.epoch + 1, named_training_metrics(trainer.measured, yolo.task))
