"""Weights of other classes than the data's, the commonest case: the unpruned network is trained on the data first."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from yoloprune.errors import UserError
from yoloprune.yolo.classes import class_count, refit_classes
from yoloprune.yolo.dataset import check_data
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.pruned import bind_keeping

from .network import with_network
from .options import Options
from .training import train_or_go_on

__all__ = ["OtherClassesError", "fit_classes", "train_unpruned"]

# keywords of the recipes that are meant for mending a pruned network; a network with new classes learns as any other
_MENDING = {"optimizer", "lr0", "weight_decay", "cos_lr", "warmup_epochs", "warmup_bias_lr", "nbs", "mosaic"}


class OtherClassesError(UserError):
    """The data have other classes than the weights, and the run was not told to train on them first."""


def fit_classes(yolo: YOLO, options: Options) -> tuple[YOLO, str | None]:
    """The network that a run prunes or, where it trains first, starts training: with as many classes as the data have.

    Args:
        yolo: The network that was given; left as it is.
        options: The options of the run.

    Returns:
        `yolo` itself, or one like it with fresh last class layers; and a sentence, if there is something to say.

    Raises:
        OtherClassesError: The numbers of classes differ, and no epochs of training are asked for.
        UserError: The data cannot be used.
    """
    if options.data is None or (not Path(options.data).exists() and not options.data.endswith((".yaml", ".yml"))):
        return yolo, None  # a name such as that of the embedded set, or what `check_data` will refuse
    data = check_data(options.data, yolo.task, split="train", labels=False)
    own = class_count(yolo.model)
    if data["nc"] is None:  # images alone
        return yolo, None
    if data["nc"] == own:
        return yolo, _other_names(yolo, data)
    if not options.train_epochs:
        raise OtherClassesError(
            f"'{options.data}' has {data['nc']} classes and the weights {own}, so the network must be trained on these "
            "data before it is pruned; give --train-epochs 50 (train_epochs=50), and one run does both"
        )
    network = copy.deepcopy(yolo.model)
    refit_classes(network, data["nc"])
    network.names = dict(data["names"])
    return with_network(yolo, network), (
        f"The data have {data['nc']} classes and the weights {own}: the unpruned network is trained for "
        f"{options.train_epochs} epochs first, its last class layers from scratch."
    )


def _other_names(yolo: YOLO, data: dict[str, Any]) -> str | None:
    """A sentence where the classes are as many as the weights', but called otherwise."""
    ours, theirs = (
        {str(name).strip().lower() for name in names.values()} for names in (yolo.model.names, data["names"])
    )
    if ours & theirs or all(name.isdecimal() for name in ours | theirs):
        return None
    return (
        f"The data and the weights have {len(theirs)} classes each and no name in common "
        f"({next(iter(data['names'].values()))}, {next(iter(yolo.model.names.values()))}): if they mean different "
        "things, train the unpruned network first, with --train-epochs."
    )


def train_unpruned(start: Path, options: Options, folder: Path) -> YOLO:
    """Train the unpruned network through Ultralytics' trainer, or go on with a training that was interrupted.

    The recipe's keywords for mending a pruned network do not apply; Ultralytics' defaults do.

    Args:
        start: Checkpoint of the network, its class layers those of the data.
        options: Data, epochs, image size, batch, device, seed and further train keywords.
        folder: The trainer's folder. When what follows is safe on disk, `Continuation(folder).discard()` removes what
            going on needs.

    Returns:
        The network of the best epoch, with its `trainer`.
    """
    return train_or_go_on(
        start,
        folder,
        bind=bind_keeping,
        otherwise="train the network elsewhere and prune what comes out",
        data=options.data,
        epochs=options.train_epochs,
        imgsz=options.imgsz,
        batch=options.batch,
        device=options.device,
        seed=options.seed,
        train={name: value for name, value in options.train.items() if name not in _MENDING},
    )
