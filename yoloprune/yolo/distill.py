"""Fine-tuning under the eyes of the unpruned network, in Ultralytics' own trainers.

The unpruned network sees every training image too, augmented as it is, and the pruned one is drawn towards its
predictions and its features. So images without labels serve as well, and a small data set does not pull the network
away from what it has learnt on a large one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from ultralytics.nn.modules.head import Detect, WorldDetect, YOLOEDetect
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.graph import Plan
from yoloprune.yolo import checkpoints
from yoloprune.yolo.divergence import prediction_divergence
from yoloprune.yolo.probe import dense_predictions

__all__ = ["START", "Distillation", "Distilling", "bind_distillation", "can_distill"]

START = "start.pt"  # beside Ultralytics' best.pt and last.pt

_NO_WEIGHTS = {"bn", "bias"}  # Ultralytics' names of these parameter groups
_SETBACK, _SLOWER = 0.9, 0.3  # share of the best fitness below which weights have moved too fast; what then slows them


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a training draws a pruned network to.

    Attributes:
        teacher: Checkpoint of the unpruned network.
        plan: File of the plan that leads from it to the pruned network.
        output: Gain of the term on predictions.
        feature: Gain of the term on features.
        labels: Gain of Ultralytics' own loss; 0 for images without labels.
        way_back: Whether a setback leads back to the best network, the one before training included, whose weights
            learn slower from there.
    """

    teacher: str
    plan: str
    output: float = 1.0
    feature: float = 1.0
    labels: float = 1.0
    way_back: bool = False


class Distilling:
    """A mixin before a trainer of `yoloprune.yolo.trainer`: adds the distillation's terms to the loss.

    Batch norms keep their running statistics: those of a reconstructed network fit, and batches of a small data set
    estimate worse ones.

    Attributes:
        distillation: The options; see `bind_distillation`.
    """

    distillation: ClassVar[Distillation]

    def optimizer_step(self) -> None:
        """Ultralytics' own step, at the pace that setbacks have left the weights."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] *= group.get("pace", 1.0)
        super().optimizer_step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def save_model(self) -> bool:
        """Ultralytics' checkpoints; after a setback the best network, whose weights learn slower from there.

        The data decide how fast weights may learn: YOLOv8n at half its GFLOPs gains on blood cells at a rate that costs
        it a third of its mAP on a few hundred COCO images. A resumed training finds network and pace in the checkpoint.
        With several GPUs there is no way back, as only one process saves.
        """
        if self._goes_back and self._set_back():
            if self._start_fitness > self.best_fitness:
                known, state = self._start_fitness, torch.load(self._start, weights_only=True)["model"]
            else:
                known, state = self.best_fitness, load_checkpoint(self.best)[0].float().state_dict()
            for network in (unwrap_model(self.model), self.ema.ema):
                network.load_state_dict(state)
            self.optimizer.state.clear()  # its momentum leads where the setback came from
            for group in self.optimizer.param_groups:
                if group["param_group"] not in _NO_WEIGHTS:
                    group["pace"] = group.get("pace", 1.0) * _SLOWER
            LOGGER.info(
                f"Fitness fell from {known:.3f} to {self.fitness:.3f}: back to the network that had it, whose weights "
                f"learn at {_SLOWER} times the rate from here."
            )
        return super().save_model()

    def _setup_train(self) -> None:
        super()._setup_train()
        if self.distillation.way_back and RANK == 0:
            LOGGER.warning("Epochs that harm do not lead back to the best network where several processes train.")
        if not self._goes_back:
            return
        if not (self.resume and self._start.exists()):  # several processes may have begun what one goes on with
            network = self.ema.ema
            validator = self.get_validator()
            validator.args.plots = validator.args.compile = False
            fitness = validator(model=copy.deepcopy(network))["fitness"]  # a copy, since it is fused
            torch.save({"fitness": round(float(fitness), 5), "model": network.state_dict()}, self._start)
        self._start_fitness = torch.load(self._start, weights_only=True, mmap=True)["fitness"]

    def _set_back(self) -> bool:
        return self.fitness < _SETBACK * max(self._start_fitness, self.best_fitness)

    @property
    def _goes_back(self) -> bool:
        return self.distillation.way_back and RANK == -1 and self.args.val and self.args.save

    @property
    def _start(self) -> Path:
        """The network before training and its fitness, for a resumed training too."""
        return self.wdir / START

    def _model_train(self) -> None:
        super()._model_train()
        network = unwrap_model(self.model)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        if not isinstance(getattr(network, "criterion", None), _Criterion):
            # only now: the averaged copy, which is validated and saved, is made before and keeps the plain loss
            network.criterion = _Criterion(network, self.distillation)


def can_distill(network: nn.Module) -> bool:
    """Whether the head makes class scores and boxes on a grid, which both networks have alike."""
    head = network.model[-1]
    return isinstance(head, Detect) and not isinstance(head, (WorldDetect, YOLOEDetect))


def bind_distillation(trainer: type, distillation: Distillation) -> type:
    """A trainer that distils with these options, for `YOLO.train(trainer=...)`.

    Args:
        trainer: A trainer of `yoloprune.yolo.trainer` or `yoloprune.yolo.sparse`.
        distillation: The options.
    """
    return type(f"Distilling{trainer.__name__}", (Distilling, trainer), {"distillation": distillation})


class _Criterion:
    """Ultralytics' criterion of a network with the terms of a distillation added to it.

    Predictions: `prediction_divergence`, which is of the order of Ultralytics' own terms. Features: the mean squared
    difference of the last batch norm of each block at the channels that are kept, relative to the teacher's variance.
    """

    def __init__(self, network: nn.Module, distillation: Distillation) -> None:
        self.own, self.gains = network.init_criterion(), distillation
        device = next(network.parameters()).device
        self.teacher = checkpoints.load(distillation.teacher).model.to(device).eval().requires_grad_(False)
        plan = Plan.load(distillation.plan)
        self.bins = getattr(network.model[-1], "reg_max", 1)
        self.pairs: list[tuple[str, Tensor]] = []
        self.seen: dict[str, Tensor] = {}
        self.wanted: dict[str, Tensor] = {}
        for name in _last_norms(network) if distillation.feature else ():
            module, kept = self.teacher.get_submodule(name), plan.keep.get(f"{name}.weight", {}).get(0)
            kept = range(module.num_features) if kept is None else kept
            self.pairs.append((name, torch.as_tensor(list(kept), device=device)))
            module.register_forward_hook(_keep(name, self.wanted))
            network.get_submodule(name).register_forward_hook(_keep(name, self.seen))

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, Any]:
        loss, items = self.own(preds, batch)
        if not torch.is_grad_enabled():
            return loss, items
        self.wanted.clear()
        with torch.no_grad():
            target = list(dense_predictions(self.teacher(batch["img"])))
        images = len(batch["img"])
        terms = {
            "out_loss": self.gains.output * prediction_divergence(list(dense_predictions(preds)), target, self.bins),
            "feat_loss": self.gains.feature * self._feature(),
        }
        self.seen.clear()
        added = torch.stack(list(terms.values())) * images  # Ultralytics' losses are multiplied by the batch size
        items = {**items, **{name: term.detach() for name, term in terms.items()}}
        return torch.cat([loss * self.gains.labels, added]), items

    def update(self, *args: Any) -> None:
        """What end-to-end criteria do after an epoch."""
        if hasattr(self.own, "update"):
            self.own.update(*args)

    def _feature(self) -> Tensor:
        if not self.pairs:
            return torch.zeros((), device=next(self.teacher.parameters()).device)
        total = 0.0
        for name, kept in self.pairs:
            wanted = self.wanted[name].index_select(1, kept).float()
            variance = wanted.var((0, 2, 3), keepdim=True).clamp_min(1e-6)
            total = total + ((self.seen[name].float() - wanted).square() / variance).mean()
        return total / len(self.pairs)


def _keep(name: str, into: dict[str, Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that keeps a copy of the output, since the activation behind works in place."""

    def keep(module: nn.Module, args: Any, out: Tensor) -> None:
        into[name] = out.clone()

    return keep


def _last_norms(network: nn.Module) -> Iterator[str]:
    """The last batch norm of each block before the head; its channels are the block's output."""
    for index, block in enumerate(network.model[:-1]):
        names = [name for name, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)]
        if hasattr(block, "cv2") and "cv2.bn" in names:
            yield f"model.{index}.cv2.bn"  # C2f, C3k2, SPPF list their inner blocks after it
        elif names:
            yield f"model.{index}.{names[-1]}"
