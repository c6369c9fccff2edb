"""`YOLO`: Ultralytics' class, whose `train()` trains the network it holds, pruned or not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ultralytics
from torch import nn
from ultralytics.engine.model import Model
from ultralytics.models.yolo.model import YOLOWorld
from ultralytics.nn.modules.head import RTDETRDecoder, WorldDetect
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.checks import check_model_file_from_stem

from yoloprune.errors import UserError

from .guard import offline
from .internals import checkpoint_args, task_trainer
from .own_data import own_trainer, own_validator
from .quantised import quantise_again
from .reading import read_network
from .stock_training import block_stock_training, is_pruned, same_widths
from .trainers.pruned import TRAINERS

__all__ = ["YOLO", "with_network"]


class YOLO(ultralytics.YOLO):
    """Ultralytics' `YOLO` for every family, with trainers that keep a pruned network.

    RT-DETR and YOLO-World models stay this class too (stock `YOLO` turns into `RTDETR` or `YOLOWorld`) and use their
    own predictors, validators and trainers.

    Examples:
        >>> model = yoloprune.load("pruned.pt")  # doctest: +SKIP
        >>> model.train(data="coco.yaml", epochs=100)  # doctest: +SKIP
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `ultralytics.YOLO` takes: a path, a YAML, or another Ultralytics model to share the state of."""
        super().__init__(*args, **kwargs)
        if type(self) in (ultralytics.RTDETR, YOLOWorld):
            self.__class__ = YOLO

    @classmethod
    def holding(cls, network: BaseModel, checkpoint: dict[str, Any]) -> YOLO:
        """The YOLO of a network that `reading.read_network` has read, with its checkpoint."""
        yolo = cls.__new__(cls)
        vars(yolo)["_read"] = network, checkpoint
        yolo.__init__(network.pt_path)
        return yolo

    def _load(self, weights: str, task: str | None = None) -> None:
        """Take a checkpoint as Ultralytics does, but read it safely and from the given path only."""
        weights = check_model_file_from_stem(weights)  # adds .pt
        if not str(weights).lower().endswith(".pt"):
            super()._load(weights, task)  # an export, which Ultralytics opens when it is used
            return
        self.model, self.ckpt = vars(self).pop("_read", None) or read_network(weights)
        if self.ckpt.get("modelopt"):
            quantise_again(self.model, self.ckpt["modelopt"])
        self.task = self.model.task
        self.overrides = self.model.args = checkpoint_args(self, self.model.args)
        self.ckpt_path = self.model_name = self.model.pt_path
        self.overrides.update(model=self.ckpt_path, task=self.task)

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """Ultralytics' classes for each task of this model, with the trainers of `trainers.pruned`.

        Trainers and validators run nothing that data name or bring along; see `own_data`.
        """
        network = self._modules.get("model") if "_modules" in self.__dict__ else None
        head = network.model[-1] if isinstance(network, nn.Module) and hasattr(network, "model") else None
        stock = {RTDETRDecoder: ultralytics.RTDETR, WorldDetect: YOLOWorld}.get(type(head), ultralytics.YOLO)
        return {
            task: {
                **entry,
                "trainer": TRAINERS.get(entry["trainer"]) or own_trainer(entry["trainer"]),
                "validator": own_validator(entry["validator"]),
            }
            for task, entry in stock.task_map.fget(self).items()
        }

    def load(self, weights: str | Path | dict | nn.Module = "yolo26n.pt") -> YOLO:
        """Take over weights as `ultralytics.YOLO.load` does, where all of them fit or neither network is pruned.

        Args:
            weights: A checkpoint's path (it is read by `yoloprune.load`, and nothing is downloaded), its content, or a
                network.

        Returns:
            This model.

        Raises:
            UserError: A pruned network's widths are not the other's, so that Ultralytics would move the few tensors
                that fit and leave the rest as it was; or the file is no checkpoint.
        """
        self._check_is_pytorch_model()
        network, ckpt, path = weights, None, None
        if isinstance(weights, (str, Path)):
            from . import checkpoints  # here, since it imports this class

            source = checkpoints.load(weights)
            network, ckpt, path = source.model, source.ckpt, source.ckpt_path
        elif isinstance(weights, dict):
            network = weights.get("ema") or weights["model"]
        if (is_pruned(network) or is_pruned(self.model)) and not same_widths(network.model, self.model.model):
            raise UserError(
                f"{path or 'The given network'} does not fit this model, since one of the two was pruned and only some "
                "of the weights would be taken over; open a pruned checkpoint itself: YOLO(weights)."
            )
        super().load(network)
        if path:
            self.ckpt, self.ckpt_path = ckpt, path
        return self

    def train(self, trainer: type | None = None, **kwargs: Any) -> Any:
        """Train as `ultralytics.YOLO.train` does; a pruned network stays pruned, and no file that is read runs.

        Raises:
            UserError: `pretrained=` is given for a pruned network or names one, or the data do not fit it.
        """
        if is_pruned(self.model):
            block_stock_training(self.model)
            self.ckpt = self.ckpt or {"model": self.model}  # without it Ultralytics builds from the YAML's name
        # naming the trainer also keeps a training on several data sets in this process, and so with this trainer
        with offline():
            return super().train(trainer=trainer or task_trainer(self), **kwargs)


def with_network(yolo: Model, network: nn.Module) -> YOLO:
    """Return a `YOLO` like `yolo` that holds `network`; nothing that either of them changes later is shared.

    Args:
        yolo: Any Ultralytics model with a torch network (YOLO, RTDETR, YOLOWorld).
        network: The network to hold.
    """
    cls = type(yolo) if isinstance(yolo, YOLO) else YOLO
    new = cls.__new__(cls)
    new.__dict__ = dict(yolo.__dict__)
    new._modules = {**yolo._modules}
    new.model = network
    new.overrides = dict(yolo.overrides)
    new.callbacks = {event: list(functions) for event, functions in yolo.callbacks.items()}
    bulky = ("model", "ema", "optimizer", "scaler")
    new.ckpt = {**{k: v for k, v in (yolo.ckpt or {}).items() if k not in bulky}, "model": network}
    if isinstance(getattr(network, "args", None), dict):
        network.args = copy.copy(network.args)
    new.predictor = new.trainer = new.metrics = None
    return new
