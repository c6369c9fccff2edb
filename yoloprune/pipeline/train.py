"""The trainings of a run: of the unpruned network first, group-sparse before pruning, fine-tuning after it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from yoloprune import detectors
from yoloprune.detectors.base import SETBACK, Detector, Distillation, Trained, Training
from yoloprune.files import readable
from yoloprune.recovery import recalibrate_bn
from yoloprune.report import TrainingRow
from yoloprune.report.sparsity import draw_sparsity
from yoloprune.sparsity import TABLE, Sparsity, read_rows

from .context import Context
from .options import Options
from .time_budget import Allowed

__all__ = [
    "fine_tune",
    "saved_original",
    "sparse_first",
    "train_first",
    "train_keywords",
    "training_of",
    "with_new_statistics",
]

_TRAINED, _SPARSE = "training", "sparse training"
_STATISTICS = 128  # images for the statistics of batch norms

# keywords of the recipes that are meant for mending a pruned network; a network with new classes learns as any other
_MENDING = {"optimizer", "lr0", "weight_decay", "cos_lr", "warmup_epochs", "warmup_bias_lr", "nbs", "mosaic"}


def train_first(run: Context) -> None:
    """Train the unpruned network where the run is to; it is the original from then on.

    The recipe's keywords for mending a pruned network do not apply; the trainer's defaults do.
    """
    options = run.options
    if not options.train_epochs:
        return
    path, folder = run.folder.trained, run.folder.steps / "train"
    if _row(run, _TRAINED) is None or not path.exists():
        run.record.trainings = [row for row in run.record.trainings if row.name != _TRAINED]
        folder.mkdir(parents=True, exist_ok=True)
        start = run.folder.untrained
        if not start.exists():
            run.original.save(start)
        keywords = {name: value for name, value in options.train.items() if name not in _MENDING}
        instead = "train the network elsewhere and prune what comes out"
        with run.phase(f"Train the unpruned network for {options.train_epochs} epochs", "train") as clock:
            training = training_of(options, options.train_epochs, keywords, instead=instead)
            trained = run.original.train(start, folder, training)
        run.save(trained.detector, path)
        run.record.trainings.append(TrainingRow(_TRAINED, trained.epochs, trained.metrics, clock.seconds))
        run.remember()
        run.original.forget_training(folder)
        run.folder.manifest.remove(start)
    with readable(path):
        run.original = detectors.load(path)


def sparse_first(run: Context, removed: float) -> Detector:
    """The original after group-sparse training, or as it was where the run validates and that training did harm.

    Args:
        run: The run, its original validated.
        removed: Share of the cost that the run is to remove, which the learning rate follows.
    """
    options = run.options
    if not options.sparse_epochs:
        return run.original
    path, folder, row = run.folder.sparse, run.folder.steps / "sparse" / "train", _row(run, _SPARSE)
    if row is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with run.phase(f"Train group-sparsely for {options.sparse_epochs} epochs", "sparse") as clock:
            training = training_of(
                options,
                options.sparse_epochs,
                {k: v for k, v in train_keywords(options, removed).items() if k != "weight_decay"},
                rollback=options.rollback,
                sparsity=Sparsity(strength=options.sparsity),
                prune_head=options.prune_head,
                keep=tuple(options.keep),
                portable=options.portable,
                instead="train without sparsity",
            )
            trained = run.original.train(saved_original(run), folder, training).detector
            draw_sparsity(read_rows(folder / TABLE), folder / "sparsity.png")
            renewed = with_new_statistics(trained, options)
        row = TrainingRow(_SPARSE, options.sparse_epochs, seconds=clock.seconds)
        run.save(_judged(run, row, trained, renewed) if options.val else renewed, path)
        run.record.trainings.append(row)
        run.remember()
        run.original.forget_training(folder)
    with readable(path, "remove the run's folder and start anew"):
        return detectors.load(path) if row.kept else run.original


def _judged(run: Context, row: TrainingRow, trained: Detector, renewed: Detector) -> Detector:
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


def with_new_statistics(detector: Detector, options: Options) -> Detector:
    """A copy whose batch norms have the statistics of a few training images: right where weights have shrunk much.

    Where they have not, those of the long training before are better: unchanged COCO weights fell from .342 to .294.
    """
    place = detector.place(options.device)
    new = detector.holding(copy.deepcopy(detector.network).to(place))
    batches = new.calibration_batches(
        options.data, images=_STATISTICS, imgsz=options.imgsz, batch=options.batch, device=place
    )
    recalibrate_bn(new.network, [entry["img"] for entry in batches])
    new.network.cpu()
    return new


def fine_tune(
    pruned: Detector,
    start: Path,
    options: Options,
    folder: Path,
    distillation: Distillation | None,
    *,
    removed: float,
    allowed: Allowed | None = None,
) -> Trained:
    """Train a pruned network, into `folder`, or resume one that was interrupted there.

    Args:
        pruned: The pruned detector.
        start: Its checkpoint.
        options: Data, epochs, image size, batch, device, seed and further train keywords.
        folder: The trainer's folder.
        distillation: Teacher and plan, if the unpruned network is to guide the training.
        removed: Share of the cost that the step removed.
        allowed: Epochs and seconds in the place of the options' epochs.

    Raises:
        UserError: The family lacks a package for it.
    """
    training = training_of(
        options,
        allowed.epochs if allowed else options.epochs,
        train_keywords(options, removed),
        seconds=allowed.seconds if allowed else None,
        rollback=options.rollback,
        distillation=distillation,
        instead="give --epochs 0",
    )
    return pruned.train(start, folder, training)


def training_of(options: Options, epochs: int, keywords: dict[str, Any], **more: Any) -> Training:
    """What the options of a run say of any of its trainings."""
    return Training(
        data=options.data,
        epochs=epochs,
        imgsz=options.imgsz,
        batch=options.batch,
        device=options.device,
        seed=options.seed,
        keywords=keywords,
        **more,
    )


def train_keywords(options: Options, removed: float) -> dict[str, Any]:
    """Keywords of Ultralytics' `train()` for a network that loses, or is to lose, this share of its cost."""
    train = dict(options.train)
    if options.lr0_per_share:
        train.setdefault("lr0", options.lr0_per_share * removed)
    if "lr0" in train:
        train.setdefault("optimizer", "SGD")  # Ultralytics' optimizer=auto would ignore lr0, whose default is SGD's
    return train


def _row(run: Context, name: str) -> TrainingRow | None:
    return next((row for row in run.record.trainings if row.name == name), None)


def saved_original(run: Context) -> Path:
    """The original as a file of the run, for trainers: it may have come from memory, or be gone by now."""
    if not (run.folder.teacher.exists() and run.folder.manifest.owns(run.folder.teacher)):
        run.original.save(run.folder.teacher)
    return run.folder.teacher
