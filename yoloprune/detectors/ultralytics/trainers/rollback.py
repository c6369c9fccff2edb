"""Rollback to the best network where an epoch has cost too much, in Ultralytics' own trainers.

The data decide how fast weights may learn: YOLOv8n at half its GFLOPs gains on blood cells at a rate that costs it a
third of its mAP on a few hundred COCO images.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.detectors.base import SETBACK
from yoloprune.detectors.ultralytics.reading import read_network
from yoloprune.detectors.ultralytics.unpickling import read

__all__ = ["START", "Rollback", "bind_rollback"]

START = "start.pt"  # beside Ultralytics' best.pt and last.pt

_NO_WEIGHTS = {"bn", "bias"}  # Ultralytics' names of these parameter groups
_SLOWER = 0.3  # times the rate, from then on


class Rollback:
    """A mixin before an Ultralytics trainer: a setback leads back to the best network, whose weights learn slower then.

    The network before training is one of them. With several processes the first one decides, since it alone knows the
    fitness, and the others follow before the next epoch. Without validation there is no way back.
    """

    _left: dict[str, Tensor] | None = None  # weights that the first process went back to and the others do not have yet

    def optimizer_step(self) -> None:
        """Ultralytics' own step, at the learning rates that setbacks have left."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        super().optimizer_step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def save_model(self) -> bool:
        """Ultralytics' checkpoints, of the network that training continues with, and its learning rates."""
        if self._goes_back and self.fitness < SETBACK * (known := max(self._start_fitness, self.best_fitness)):
            if self._start_fitness > self.best_fitness:
                self._left = read(self._start)["model"]
            else:
                self._left = read_network(self.best)[0].state_dict()
            self._return_to(self._left)
            LOGGER.info(
                f"Fitness fell from {known:.3f} to {self.fitness:.3f}: back to the network that had it, whose weights "
                f"learn at {_SLOWER} times the rate from here."
            )
        return super().save_model()

    def _setup_train(self) -> None:
        super()._setup_train()
        if not self._goes_back:
            return
        if not broadcast_from_rank0(self.resume and self._start.exists()):
            network = self.ema.ema
            validator = self.get_validator()
            validator.args.plots = validator.args.compile = False
            stats = validator(model=copy.deepcopy(network))  # a copy, since it is fused
            if RANK <= 0:
                fitness = round(float(stats["fitness"]), 5)
                torch.save({"fitness": fitness, "model": network.state_dict()}, self._start)
        if RANK <= 0:
            self._start_fitness = float(read(self._start)["fitness"])

    def _model_train(self) -> None:
        if RANK >= 0 and self._goes_back:
            left = broadcast_from_rank0(self._left)
            if left is not None and RANK > 0:
                self._return_to(left)
        self._left = None
        super()._model_train()

    def _return_to(self, state: dict[str, Tensor]) -> None:
        for network in (unwrap_model(self.model), self.ema.ema):
            network.load_state_dict(state)
        self.optimizer.state.clear()  # its momentum leads where the setback came from
        for group in self.optimizer.param_groups:
            if group["param_group"] not in _NO_WEIGHTS:
                group["lr_scale"] = group.get("lr_scale", 1.0) * _SLOWER

    @property
    def _goes_back(self) -> bool:
        return self.args.val and self.args.save

    @property
    def _start(self) -> Path:
        """The network before training and its fitness, for a resumed training too."""
        return self.wdir / START


def bind_rollback(trainer: type) -> type:
    """A trainer that goes back after setbacks, for `YOLO.train(trainer=...)`."""
    return type(f"Returning{trainer.__name__}", (Rollback, trainer), {})


def broadcast_from_rank0(value: Any) -> Any:
    """The value that the first of several processes has; a single one's own."""
    if RANK == -1:
        return value
    said = [value if RANK == 0 else None]
    distributed.broadcast_object_list(said, 0)
    return said[0]
