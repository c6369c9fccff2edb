"""Group-sparse training as a phase of a run: from a checkpoint, into a folder, to be gone on with after a kill."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import select_device

from yoloprune.recovery import recalibrate_bn
from yoloprune.report.sparsity import draw_sparsity
from yoloprune.sparsity import read_rows
from yoloprune.yolo import checkpoints
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.sparse import TABLE, Sparsity, bind
from yoloprune.yolo.trainers.way_back import bind_way_back

from .continuation import Continuation
from .data import calibration_batches
from .network import with_network
from .training import train_or_go_on

__all__ = ["sparse_train", "with_new_statistics"]

_IMAGES = 128  # for the statistics of batch norms


def _bound(trainer: type, *, sparsity: Sparsity, prune_head: bool, keep: Sequence[str], way_back: bool) -> type:
    """The trainer with the regulariser and, if wanted, the way back."""
    sparse = bind(trainer, sparsity, prune_head=prune_head, keep=keep)
    return bind_way_back(sparse) if way_back else sparse


def sparse_train(
    start: Path,
    *,
    data: str,
    epochs: int,
    imgsz: int,
    batch: int | float,
    device: str | None,
    seed: int,
    sparsity: Sparsity,
    prune_head: bool,
    keep: Sequence[str] = (),
    way_back: bool = False,
    train: dict[str, Any],
    folder: Path,
) -> YOLO:
    """Train group-sparsely through Ultralytics' trainer, or go on with a training that was interrupted.

    The result is the network after the last epoch: the one with the best validation comes from an early epoch, before
    the channels have separated. Unless `train` says otherwise, there is no weight decay, whose place the regulariser
    takes, and nothing stops it early.

    While weights shrink from step to step, the running averages of batch norms lag behind, so that validations during
    the training can look bad (mAP 0 where the network is at .86); see `with_new_statistics`.

    Args:
        start: Checkpoint to start from, pruned or not.
        data: Data YAML.
        epochs: Epochs in all.
        imgsz: Image size in px.
        batch: Images per batch, as Ultralytics takes it.
        device: As Ultralytics takes it.
        seed: Seed of the training.
        sparsity: Options of the regulariser.
        prune_head: Whether the head's hidden layers will be pruned too.
        keep: Names or patterns of modules whose output channels will stay.
        way_back: Whether an epoch that harms leads back to the best network and to a lower learning rate.
        train: Further keywords for Ultralytics' `train()`.
        folder: The trainer's folder; `sparsity.csv` and `sparsity.png` are written there too. When what follows is
            safe on disk, `Continuation(folder).discard()` removes what going on needs.

    Raises:
        UserError: Nothing in the network is prunable, or Ultralytics lacks a package for this family.
    """
    train_or_go_on(
        start,
        folder,
        bind=partial(_bound, sparsity=sparsity, prune_head=prune_head, keep=keep, way_back=way_back),
        otherwise="train without sparsity",
        data=data,
        epochs=epochs,
        imgsz=imgsz,
        batch=batch,
        device=device,
        seed=seed,
        train={"weight_decay": 0.0, "patience": 0, **train},
    )
    draw_sparsity(read_rows(folder / TABLE), folder / "sparsity.png")
    return checkpoints.load(Continuation(folder).last)


def with_new_statistics(yolo: YOLO, *, data: str, imgsz: int, batch: int | float, device: str | None) -> YOLO:
    """A copy whose batch norms have the statistics of a few training images: right where weights have shrunk much.

    Where they have not, those of the long training before are better: unchanged COCO weights fell from .342 to .294.
    """
    place = select_device(device, verbose=False)
    new = with_network(yolo, copy.deepcopy(yolo.model).to(place))
    batches = calibration_batches(new, data, images=_IMAGES, imgsz=imgsz, batch=batch, device=place)
    recalibrate_bn(new.model, [entry["img"] for entry in batches])
    new.model.cpu()
    return new
