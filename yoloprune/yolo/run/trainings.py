"""What a run trains before its first step: the unpruned network on data of other classes, and group-sparsely."""

from __future__ import annotations

from pathlib import Path

from yoloprune.report import TrainingRow
from yoloprune.yolo import checkpoints
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.sparse import Sparsity
from yoloprune.yolo.trainers.way_back import SETBACK

from .context import Context
from .continuation import Continuation
from .fine_tuning import train_keywords
from .metrics import named_training_metrics
from .own_classes import train_unpruned
from .sparse import sparse_train, with_new_statistics
from .state import intact

__all__ = ["saved_original", "sparse_first", "train_first"]

_TRAINED, _SPARSE = "training", "sparse training"


def train_first(run: Context) -> None:
    """Train the unpruned network where the run is to; it is the original from then on."""
    options = run.options
    if not options.train_epochs:
        return
    path, folder = run.folder.trained, run.folder.steps / "train"
    if _row(run, _TRAINED) is None or not path.exists():
        run.record.trainings = [row for row in run.record.trainings if row.name != _TRAINED]
        folder.mkdir(parents=True, exist_ok=True)
        start = run.folder.untrained
        if not start.exists():
            checkpoints.save(run.original, start)
        with run.phase(f"Train the unpruned network for {options.train_epochs} epochs", "train") as clock:
            yolo = train_unpruned(start, options, folder)
        metrics = named_training_metrics(yolo.trainer.measured, yolo.task)
        run.save(yolo, path)
        run.record.trainings.append(TrainingRow(_TRAINED, yolo.trainer.epoch + 1, metrics, clock.seconds))
        run.remember()
        Continuation(folder).discard()
        run.folder.manifest.remove(start)
    with intact(path):
        run.original = checkpoints.load(path)


def sparse_first(run: Context, removed: float) -> YOLO:
    """The original after group-sparse training, or as it was where the run validates and that training did harm.

    Args:
        run: The run, its original validated.
        removed: Share of the cost that the run is to remove, which the learning rate follows.
    """
    options = run.options
    if not options.sparse_epochs:
        return run.original
    path, folder, row = run.folder.sparse, run.folder.steps / "sparse", _row(run, _SPARSE)
    if row is None:
        folder.mkdir(parents=True, exist_ok=True)
        with run.phase(f"Train group-sparsely for {options.sparse_epochs} epochs", "sparse") as clock:
            trained = sparse_train(
                saved_original(run),
                data=options.data,
                epochs=options.sparse_epochs,
                imgsz=options.imgsz,
                batch=options.batch,
                device=options.device,
                seed=options.seed,
                sparsity=Sparsity(strength=options.sparsity),
                prune_head=options.prune_head,
                keep=options.keep,
                way_back=options.way_back,
                train={k: v for k, v in train_keywords(options, removed).items() if k != "weight_decay"},
                folder=folder / "train",
            )
            renewed = with_new_statistics(
                trained, data=options.data, imgsz=options.imgsz, batch=options.batch, device=options.device
            )
        row = TrainingRow(_SPARSE, options.sparse_epochs, seconds=clock.seconds)
        run.save(_judged(run, row, trained, renewed) if options.val else renewed, path)
        run.record.trainings.append(row)
        run.remember()
        Continuation(folder / "train").discard()
    with intact(path, "remove the run's folder and start anew"):
        return checkpoints.load(path) if row.kept else run.original


def _judged(run: Context, row: TrainingRow, trained: YOLO, renewed: YOLO) -> YOLO:
    """Of the trained network and the one with new statistics, the better; completes the row."""
    name, before = next(iter(run.record.before.metrics.items()))
    found = [
        run.validate(trained, "Validate after group-sparse training"),
        run.validate(renewed, "Validate with new batch norm statistics"),
    ]
    row.metrics = max(found, key=lambda metrics: metrics[name])
    if row.metrics[name] < SETBACK * before:
        row.kept = False
        run.note(
            f"Group-sparse training cost too much ({name} {before:.3f} before, {row.metrics[name]:.3f} after), so the "
            "network from before it is pruned; try a lower --lr0, a lower --sparsity or more epochs."
        )
    return trained if row.metrics is found[0] else renewed


def _row(run: Context, name: str) -> TrainingRow | None:
    return next((row for row in run.record.trainings if row.name == name), None)


def saved_original(run: Context) -> Path:
    """The original as a file of the run, for trainers: it may have come from memory, or be gone by now."""
    if not (run.folder.teacher.exists() and run.folder.manifest.owns(run.folder.teacher)):
        checkpoints.save(run.original, run.folder.teacher)
    return run.folder.teacher
