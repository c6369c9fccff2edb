"""Ultralytics' trainers, with a `get_model` that keeps a pruned network instead of building one from its YAML.

The one change is enough for the whole life of a run: `Model.train`, `setup_model` (CLI, resume, DDP workers) and
training on several data sets all ask `get_model`, and EMA, `last.pt`, `best.pt`, `strip_optimizer` and `final_eval`
work on the network that it returns. The classes are importable by name, as Ultralytics' DDP launcher needs.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify.train import ClassificationTrainer
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.models.yolo.obb.train import OBBTrainer
from ultralytics.models.yolo.pose.train import PoseTrainer
from ultralytics.models.yolo.segment.train import SegmentationTrainer
from ultralytics.models.yolo.world.train import WorldTrainer, on_pretrain_routine_end
from ultralytics.nn.modules.head import WorldDetect
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import strip_optimizer, strip_qat

from yoloprune.detectors.ultralytics.guard import offline
from yoloprune.detectors.ultralytics.heads import class_count, refit_classes
from yoloprune.detectors.ultralytics.own_data import OwnData
from yoloprune.detectors.ultralytics.quantised import check_modelopt
from yoloprune.detectors.ultralytics.stock_training import block_stock_training, is_marked, is_pruned
from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.replaced import rebound

__all__ = [
    "TRAINERS",
    "KeepPruned",
    "PrunedClassificationTrainer",
    "PrunedDetectionTrainer",
    "PrunedOBBTrainer",
    "PrunedPoseTrainer",
    "PrunedRTDETRTrainer",
    "PrunedSegmentationTrainer",
    "PrunedWorldTrainer",
    "bind_keeping",
    "keep_pruned",
]


class _AtomicPath(type(Path())):
    """A file that is replaced at once."""

    def write_bytes(self, data: bytes) -> int:
        with atomic(self) as tmp:
            return tmp.write_bytes(data)


def _strip_optimizer(file: Path, updates: dict[str, Any] | None = None) -> dict[str, Any]:
    with atomic(file) as tmp:
        stripped = strip_optimizer(file, tmp, updates)
        if not stripped:  # it is none, and stays as it is
            shutil.copyfile(file, tmp)
        return stripped


class KeepPruned(OwnData):
    """A mixin before an Ultralytics trainer: pruned networks are trained as they are, others as ever.

    Whoever starts the trainer, a process of several too, none of the files that it reads runs anything.

    Attributes:
        keeps_all: Whether unpruned networks are trained as they are too; see `bind_keeping`.
    """

    keeps_all: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with offline():
            super().__init__(*args, **kwargs)
        if self.args.quantize == 8:
            check_modelopt("Training for INT8")

        # Ultralytics writes its checkpoints in place, and a kill would leave the best network truncated
        self.last, self.best = _AtomicPath(self.last), _AtomicPath(self.best)

    def train(self) -> None:
        """Train as Ultralytics does."""
        with offline():
            super().train()

    def final_eval(self) -> None:
        """Ultralytics' own, which takes the optimizer out of its checkpoints; each is replaced at once."""
        rebound(super().final_eval, strip_optimizer=_strip_optimizer)()

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Return the network to train: a copy of `weights` if it is kept, else what Ultralytics builds from `cfg`.

        Raises:
            UserError: The options or the data ask for another network than the pruned one.
        """
        self.take_classes(weights)
        pruned = is_marked(cfg) or (weights is not None and is_pruned(weights))
        if not (pruned or self.keeps_all):
            return super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        if pruned and not is_marked(cfg) and isinstance(self.args.pretrained, (str, Path)) and not self.resume:
            raise UserError(
                f"pretrained={self.args.pretrained} is a pruned network, of which only some weights would fit; "
                f"train it itself: YOLO('{self.args.pretrained}').train(...)."
            )
        if weights is None or (self.args.pretrained is not True and not self.resume):
            raise UserError(
                f"pretrained={self.args.pretrained} would replace the pruned network by another one; "
                "leave it out to train the pruned network from its own weights."
            )
        self._check_data(weights)
        network = copy.deepcopy(weights).float()  # a copy: the caller's network may seed more than one run
        strip_qat(network)  # which the trainer makes anew, or of a resumed training's checkpoint
        if pruned:
            block_stock_training(network)
        if hasattr(network, "criterion"):
            del network.criterion
        network.requires_grad_(True)  # stripped checkpoints are frozen; the trainer freezes what must be
        old, new = class_count(network), self._class_count(network)
        if new != old:
            refit_classes(network, new)
            LOGGER.info(
                f"The data have {new} classes and the network {old}: its last class layers start anew, "
                "all other layers keep their weights."
            )
        if hasattr(self, "set_model_names_for_load"):  # Ultralytics copies class rows by name
            self.set_model_names_for_load(network)
        network.load(weights)
        return network

    def _class_count(self, network: nn.Module) -> int:
        """The number of classes that the network is to have for the data."""
        nc = self.data["nc"]
        return min(nc, 80) if isinstance(network.model[-1], WorldDetect) else nc  # as WorldTrainer.get_model caps it

    def _check_data(self, network: nn.Module) -> None:
        """Refuse data whose channels or keypoints the pruned network cannot take."""
        channels, expected = self.data.get("channels", 3), network.yaml.get("channels", 3)
        if channels != expected:
            raise UserError(f"The data have {channels} image channels and the pruned network takes {expected}.")
        keypoints = getattr(network.model[-1], "kpt_shape", None)
        if keypoints is not None and list(keypoints) != list(self.data["kpt_shape"]):
            raise UserError(
                f"The data have kpt_shape {list(self.data['kpt_shape'])} and the pruned network {list(keypoints)}; "
                "train the unpruned network on these data first and prune that."
            )


class PrunedDetectionTrainer(KeepPruned, DetectionTrainer):
    """`DetectionTrainer` for pruned networks."""


class PrunedSegmentationTrainer(KeepPruned, SegmentationTrainer):
    """`SegmentationTrainer` for pruned networks."""


class PrunedPoseTrainer(KeepPruned, PoseTrainer):
    """`PoseTrainer` for pruned networks."""


class PrunedOBBTrainer(KeepPruned, OBBTrainer):
    """`OBBTrainer` for pruned networks."""


class PrunedClassificationTrainer(KeepPruned, ClassificationTrainer):
    """`ClassificationTrainer` for pruned networks."""

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """As `KeepPruned.get_model`, with the dropout of the training arguments."""
        network = super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout) and self.args.dropout:
                module.p = self.args.dropout
        return network


class PrunedRTDETRTrainer(KeepPruned, RTDETRTrainer):
    """`RTDETRTrainer` for pruned networks."""


class PrunedWorldTrainer(KeepPruned, WorldTrainer):
    """`WorldTrainer` for pruned networks."""

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """As `KeepPruned.get_model`, with the callback by which `WorldTrainer` prepares its validation."""
        network = super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        if on_pretrain_routine_end not in self.callbacks["on_pretrain_routine_end"]:
            self.add_callback("on_pretrain_routine_end", on_pretrain_routine_end)
        return network


TRAINERS: dict[type, type] = {
    DetectionTrainer: PrunedDetectionTrainer,
    SegmentationTrainer: PrunedSegmentationTrainer,
    PoseTrainer: PrunedPoseTrainer,
    OBBTrainer: PrunedOBBTrainer,
    ClassificationTrainer: PrunedClassificationTrainer,
    RTDETRTrainer: PrunedRTDETRTrainer,
    WorldTrainer: PrunedWorldTrainer,
}
"""Stock trainer -> the one that keeps pruned networks."""


def bind_keeping(trainer: type) -> type:
    """A trainer that trains any network as it is, for `YOLO.train(trainer=...)`.

    Args:
        trainer: A trainer of this file.
    """
    return type(f"Keeping{trainer.__name__}", (trainer,), {"keeps_all": True})


def keep_pruned(trainer: type) -> type:
    """A trainer of one's own that keeps pruned networks, for `YOLO.train(trainer=...)`; also a class decorator.

    It is what `class Mine(KeepPruned, DetectionTrainer)` is, with what the task needs beside. A pruned network never
    comes to the trainer's own `get_model`, which is for building others.

    Args:
        trainer: A subclass of a trainer of Ultralytics.

    Raises:
        UserError: It is none.

    Examples:
        >>> yolo.train(trainer=yoloprune.keep_pruned(Mine), data="coco.yaml")  # doctest: +SKIP
    """
    if not (isinstance(trainer, type) and issubclass(trainer, BaseTrainer)):
        raise UserError(f"keep_pruned takes a subclass of a trainer of Ultralytics, and not {trainer!r}.")
    if issubclass(trainer, KeepPruned):
        return trainer
    ours = next((TRAINERS[base] for base in trainer.__mro__ if base in TRAINERS), KeepPruned)
    # the same name: what Ultralytics and pickle look up is the decorated class
    names = {name: getattr(trainer, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(trainer.__name__, (ours, trainer), names)
