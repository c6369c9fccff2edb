"""`YOLO`: Ultralytics' class, whose `train()` trains the network it holds, pruned or not."""

from __future__ import annotations

from typing import Any

import ultralytics
from torch import nn
from ultralytics.models.yolo.model import YOLOWorld
from ultralytics.nn.modules.head import RTDETRDecoder, WorldDetect

from yoloprune.yolo.mark import is_pruned, mark
from yoloprune.yolo.trainers.pruned import TRAINERS

__all__ = ["YOLO"]


class YOLO(ultralytics.YOLO):
    """Ultralytics' `YOLO` for every family, with trainers that keep a pruned network.

    RT-DETR and YOLO-World models stay this class too (stock `YOLO` turns into `RTDETR` or `YOLOWorld`) and use their
    own predictors, validators and trainers.

    Examples:
        >>> from yoloprune.yolo.model import YOLO
        >>> model = YOLO("pruned.pt")  # doctest: +SKIP
        >>> model.train(data="coco.yaml", epochs=100)  # doctest: +SKIP
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `ultralytics.YOLO` takes: a path, a YAML, or another Ultralytics model to share the state of."""
        super().__init__(*args, **kwargs)
        if type(self) in (ultralytics.RTDETR, YOLOWorld):
            self.__class__ = YOLO

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """Ultralytics' classes for each task of this model, with the trainers of `yoloprune.yolo.trainers.pruned`."""
        network = self._modules.get("model") if "_modules" in self.__dict__ else None
        head = network.model[-1] if isinstance(network, nn.Module) and hasattr(network, "model") else None
        stock = {RTDETRDecoder: ultralytics.RTDETR, WorldDetect: YOLOWorld}.get(type(head), ultralytics.YOLO)
        return {
            task: {**entry, "trainer": TRAINERS.get(entry["trainer"], entry["trainer"])}
            for task, entry in stock.task_map.fget(self).items()
        }

    def train(self, trainer: type | None = None, **kwargs: Any) -> Any:
        """Train as `ultralytics.YOLO.train` does; a pruned network stays pruned.

        Raises:
            UserError: `pretrained=` is given for a pruned network, or the data do not fit it.
        """
        if is_pruned(self.model):
            mark(self.model)
            self.ckpt = self.ckpt or {"model": self.model}  # without it Ultralytics builds from the YAML's name
        # naming the trainer also keeps a training on several data sets in this process, and so with this trainer
        return super().train(trainer=trainer or self._smart_load("trainer"), **kwargs)
