"""Rollback to a better network where steps or an epoch have cost too much, in Ultralytics' own trainers.

The data decide how fast weights may learn: YOLOv8n at half its GFLOPs gains on blood cells at a rate that costs it a
third of its mAP on a few hundred COCO images.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.detectors.base import SETBACK
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches
from yoloprune.detectors.ultralytics.differences import PseudoLabelError, lost_detections
from yoloprune.detectors.ultralytics.reading import read_network
from yoloprune.detectors.ultralytics.unpickling import read
from yoloprune.files import atomic

__all__ = ["START", "Rollback", "bind_rollback"]

START = "start.pt"  # beside Ultralytics' best.pt and last.pt

_NO_WEIGHTS = {"bn", "bias"}  # Ultralytics' names of these parameter groups
_SLOWER = 0.3  # times the rate, from then on
_CHECKS = (8, 16, 32, 64, 128)  # steps since the start, or since the last rollback, at which the first ones are judged
_IMAGES = 32  # that they are judged on: a second of one core for the smallest networks
_WARM_UP = 0.2  # share of a single epoch, which Ultralytics starts at the full rate


class Rollback:
    """A mixin before an Ultralytics trainer: a setback leads back to the best network, whose weights learn slower then.

    The network before training is one of them. With several processes the first one decides, since it alone knows the
    fitness, and the others follow before the next epoch. Without validation there is no way back.

    Rates fall from step to step as Ultralytics' schedule has them fall from epoch to epoch, so that a short training
    too ends with small ones.

    Attributes:
        teacher: Checkpoint of the unpruned network, if there is one. What the first steps lose of its detections on a
            few training images is a setback too: an epoch at a rate that harms is then not spent.
    """

    teacher: ClassVar[str | None] = None
    _steps = 0  # of this epoch
    _watch: _FirstSteps | None = None
    _left: dict[str, Tensor] | None = None  # weights that the first process went back to and the others do not have yet

    def optimizer_step(self) -> None:
        """Ultralytics' own step, at the learning rates that the schedule and setbacks have left."""
        rates, factor = [group["lr"] for group in self.optimizer.param_groups], self._within_epoch()
        for group in self.optimizer.param_groups:
            group["lr"] *= factor * group.get("lr_scale", 1.0)
        super().optimizer_step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._steps += 1
        if self._watch and self._watch.harmed(self.ema.ema):
            LOGGER.info(
                f"The first steps lost {self._watch.lost:.3f} of the unpruned network's detections, where "
                f"{self._watch.before:.3f} were lost: back to the start, from where weights learn at {_SLOWER} times "
                "the rate."
            )
            self._return_to(self._watch.start)

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
                with atomic(self._start) as tmp:
                    torch.save({"fitness": fitness, "model": network.state_dict()}, tmp)
        if RANK <= 0:
            self._start_fitness = float(read(self._start)["fitness"])
        if self.teacher and (RANK == -1 or not self.resume):  # several processes resume as Ultralytics does
            self._watch = _FirstSteps.of(self.ema.ema, self.teacher, self.args, self.device)

    def watched(self) -> dict[str, Any] | None:
        """How far the watch on the first steps is, for a resumed training; None if nothing is watched."""
        return self._watch and self._watch.state()

    def watch_on(self, state: dict[str, Any] | None) -> None:
        """Go on with the watch of an interrupted training, from what `watched` said after its last whole epoch."""
        if self._watch:
            self._watch.restore(state, read(self._start)["model"])

    def _within_epoch(self) -> float:
        """What the schedule makes of an epoch's rate at this step; its value at the start of the epoch is 1."""
        share = min(self._steps * self.accumulate / len(self.train_loader), 1.0)
        warm = min(share / _WARM_UP, 1.0) if self.epochs == 1 else 1.0
        return warm * self.lf(self.epoch + share) / self.lf(self.epoch)

    def _model_train(self) -> None:
        self._steps = 0
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


class _FirstSteps:
    """Watches whether the first steps of a training cost more of a teacher's detections than a setback may.

    Attributes:
        start: The weights before the first step.
        before: Share of the detections that the network did not have before it; see `PseudoLabelError`.
        lost: The same when it was last looked.
    """

    def __init__(self, network: nn.Module, error: PseudoLabelError) -> None:
        self._error, self._next, self._steps = error, list(_CHECKS), 0
        self.start = {name: value.clone() for name, value in network.state_dict().items()}
        self.before = self.lost = error(network)

    @classmethod
    def of(cls, network: nn.Module, teacher: str, args: Any, device: torch.device) -> _FirstSteps | None:
        """What watches a network, or None where no plain boxes can be compared."""
        yolo = checkpoints.load(teacher)
        yolo.model.to(device)
        given = {"images": _IMAGES, "imgsz": args.imgsz, "batch": 16, "device": device}
        images = [batch["img"] for batch in calibration_batches(yolo, args.data, **given)]
        error = lost_detections(yolo.model, images)
        return cls(network, error) if isinstance(error, PseudoLabelError) else None

    def state(self) -> dict[str, Any]:
        """All of it but the networks."""
        return {"steps": self._steps, "next": list(self._next), "before": self.before, "lost": self.lost}

    def restore(self, state: dict[str, Any], start: dict[str, Tensor]) -> None:
        """Put back what `state` said; `start` are the weights before the first step."""
        self._steps, self._next = int(state["steps"]), [int(step) for step in state["next"]]
        self.before, self.lost = float(state["before"]), float(state["lost"])
        self.start = {name: value.to(self.start[name].device) for name, value in start.items()}

    def harmed(self, network: nn.Module) -> bool:
        """Whether one more step was one too many; asked after each, it looks only at a few of them."""
        self._steps += 1
        if not self._next or self._steps < self._next[0]:
            return False
        self._next.pop(0)
        self.lost = self._error(network)
        harmed = broadcast_from_rank0(1 - self.lost < SETBACK * (1 - self.before))
        if harmed:
            self._next, self._steps = list(_CHECKS), 0
        return harmed


def bind_rollback(trainer: type, teacher: str | None = None) -> type:
    """A trainer that goes back after setbacks, for `YOLO.train(trainer=...)`; for `teacher` see `Rollback`."""
    return type(f"Returning{trainer.__name__}", (Rollback, trainer), {"teacher": teacher})


def broadcast_from_rank0(value: Any) -> Any:
    """The value that the first of several processes has; a single one's own."""
    if RANK == -1:
        return value
    said = [value if RANK == 0 else None]
    distributed.broadcast_object_list(said, 0)
    return said[0]
