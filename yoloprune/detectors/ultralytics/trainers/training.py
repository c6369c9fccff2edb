"""A training through Ultralytics that reports its epochs and can be gone on with after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yoloprune.detectors.base import Training
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.guard import check_options, offline
from yoloprune.detectors.ultralytics.internals import task_trainer
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.own_data import own_trainer
from yoloprune.detectors.ultralytics.reading import read_network
from yoloprune.errors import UserError
from yoloprune.files import readable
from yoloprune.progress import current

from .continuation import Continuation
from .distillation import bind_distillation
from .pruned import bind_keeping
from .rollback import bind_rollback
from .sparse import bind

__all__ = ["train", "training_metrics", "watch_training"]

_SUFFIXES = {"segment": "(M)", "pose": "(P)"}  # masks, keypoints; boxes otherwise
_EVENTS = ("on_train_epoch_start", "on_train_batch_end", "on_val_batch_end", "on_fit_epoch_end", "on_train_end")


def train(start: Path, folder: Path, training: Training) -> YOLO:
    """Train a checkpoint's network as it is, or resume a training that was interrupted in `folder`.

    Without sparsity Ultralytics' network of the best epoch comes out, else the one of the last. Unless the keywords say
    otherwise, there is no weight decay in group-sparse training, whose place the regulariser takes, and nothing stops
    it early. While weights shrink from step to step, the running averages of batch norms lag behind, so that
    validations during it can look bad (mAP 0 where the network is at .86); see `recovery.recalibrate_bn`.

    Args:
        start: Checkpoint to start from.
        folder: The trainer's folder.
        training: What to do.

    Returns:
        The trained YOLO with its `trainer`.

    Raises:
        UserError: Ultralytics lacks a package for this family, or the folder holds checkpoints that no training of this
            run wrote.
    """
    folder = folder.absolute()  # Ultralytics puts what is relative into its own folder of runs
    continuation = Continuation(folder)
    limit = {"time": training.seconds / 3600} if training.seconds else {}
    if goes_on := continuation.prepare():
        yolo = _unfinished(continuation.last)
        keywords: dict[str, Any] = {"resume": True, "save_dir": str(folder), **limit}
    else:
        yolo = checkpoints.load(start)
        keywords = {name: getattr(training, name) for name in ("epochs", "imgsz", "batch", "seed")}
        keywords |= {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        keywords |= {"weight_decay": 0.0, "patience": 0} if training.sparsity else {}
        keywords |= {**training.keywords, **limit}
    continuation.attach(yolo)
    watch_training(yolo)
    trainer = _bound(own_trainer(task_trainer(yolo)), training)
    try:
        with offline():
            yolo.train(trainer=trainer, data=training.data, device=training.device, **keywords)
    except ImportError as error:
        raise UserError(
            f"Training this model needs the Python package {error.name!r}; install it, or {training.instead}."
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        if not goes_on or continuation.begun or isinstance(error, UserError):
            raise
        raise continuation.foreign() from error
    if training.sparsity:
        last = checkpoints.load(continuation.last)
        last.trainer = yolo.trainer
        return last
    return yolo


def _bound(trainer: type, training: Training) -> type:
    """The trainer with what the training adds to it."""
    if training.sparsity:
        spared = {"prune_head": training.prune_head, "keep": training.keep, "portable": training.portable}
        trainer = bind(trainer, training.sparsity, **spared)
    trainer = bind_keeping(trainer)
    if training.rollback:
        trainer = bind_rollback(trainer, training.distillation and training.distillation.teacher)
    return bind_distillation(trainer, training.distillation) if training.distillation else trainer


def _unfinished(last: Path) -> YOLO:
    """The YOLO to resume from; Ultralytics takes a training's options from it and ends with the best one beside it."""
    anew = f"remove the folder '{last.parents[1]}' and resume again: this training then starts anew"
    best = last.with_name("best.pt")
    with readable(last, anew):
        yolo = checkpoints.load(last)
        given = yolo.ckpt["train_args"]
        check_options({name: value for name, value in given.items() if name != "save_dir"})
        if yolo.ckpt["epoch"] < 0 or not yolo.ckpt["optimizer"] or given["distill_model"]:
            raise ValueError
    with readable(best, anew):
        if best.exists():
            read_network(best)
    return yolo


def training_metrics(metrics: Mapping[str, float], task: str) -> dict[str, float]:
    """The figures of Ultralytics' trainer by the names that the report has for the same of a validation."""
    suffix = _SUFFIXES.get(task, "(B)")
    keys = {f"metrics/{name}{suffix}": name for name in ("mAP50-95", "mAP50")}
    if task == "classify":
        keys = {"metrics/accuracy_top1": "top-1", "metrics/accuracy_top5": "top-5"}
    return {name: round(float(metrics[key]), 5) for key, name in keys.items() if key in metrics}


def watch_training(yolo: Any) -> None:
    """Have the next training of this YOLO report epochs and batches to the phase that is under way.

    In several processes the phase hears nothing, since Ultralytics runs the callbacks in its workers.
    """
    watch = _Watch()
    for event in _EVENTS:
        yolo.add_callback(event, getattr(watch, event))


class _Watch:
    """Counts batches; an epoch is its training batches and the validation behind them."""

    def __init__(self) -> None:
        self.trainer: Any = None  # while an epoch is under way
        self.batch = 0
        self.over = False

    def on_train_epoch_start(self, trainer: Any) -> None:
        self.trainer, self.batch = trainer, 0

    def on_train_batch_end(self, trainer: Any) -> None:
        self.batch += 1
        self._tell(self.batch, f"batch {self.batch} of {len(trainer.train_loader)}")

    def on_val_batch_end(self, validator: Any) -> None:
        if self.over:  # a later validation of the same YOLO
            return
        number, batches = validator.batch_i + 1, len(validator.dataloader)
        if self.trainer is None:  # before the first epoch, or of the best one after the last
            current().part("validation batch", number, batches)
        else:
            self._tell(self.batch + number, f"validation batch {number} of {batches}")

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if self.trainer is None:  # Ultralytics calls it once more after the last epoch
            return
        self.trainer = None
        metrics = training_metrics(trainer.metrics or {}, trainer.args.task)
        found = next((f"{name} {value:.3f}" for name, value in metrics.items()), "")
        current().passed(f"epoch {trainer.epoch + 1} of {trainer.epochs}", found)

    def on_train_end(self, trainer: Any) -> None:
        self.over = True

    def _tell(self, done: int, detail: str) -> None:
        trainer = self.trainer
        batches = len(trainer.train_loader) + len(trainer.test_loader or ())
        current().part("epoch", trainer.epoch + min(done / batches, 0.999), trainer.epochs, detail)
