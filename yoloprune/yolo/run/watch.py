"""Ultralytics' trainings, as seen by the phase that they happen in."""

from __future__ import annotations

from typing import Any

from .metrics import named_training_metrics
from .progress import current

__all__ = ["watch_training"]

_EVENTS = ("on_train_epoch_start", "on_train_batch_end", "on_val_batch_end", "on_fit_epoch_end", "on_train_end")


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
        metrics = named_training_metrics(trainer.metrics or {}, trainer.args.task)
        found = next((f"{name} {value:.3f}" for name, value in metrics.items()), "")
        current().passed(f"epoch {trainer.epoch + 1} of {trainer.epochs}", found)

    def on_train_end(self, trainer: Any) -> None:
        self.over = True

    def _tell(self, done: int, detail: str) -> None:
        trainer = self.trainer
        batches = len(trainer.train_loader) + len(trainer.test_loader or ())
        current().part("epoch", trainer.epoch + min(done / batches, 0.999), trainer.epochs, detail)
