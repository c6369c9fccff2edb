"""Distillation from the unpruned network in Ultralytics' own trainers.

The unpruned network sees every training image too, augmented as it is, and the pruned one is drawn towards its
predictions and its features. So images without labels serve as well, and a small data set does not pull the network
away from what it has learnt on a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.detectors.base import Distillation
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.differences import prediction_divergence
from yoloprune.detectors.ultralytics.probe import dense_predictions
from yoloprune.graph import Plan
from yoloprune.graph.tracing.internals import BatchNorm

__all__ = ["Distilling", "bind_distillation"]


class Distilling:
    """A mixin before a trainer of `pruned`: adds the distillation's terms to the loss.

    Batch norms keep their running statistics: those of a reconstructed network fit, and batches of a small data set
    estimate worse ones.

    Attributes:
        distillation: The options; see `bind_distillation`.
    """

    distillation: ClassVar[Distillation]
    needs_labels: ClassVar[bool] = False  # the unpruned network says what to learn

    def _model_train(self) -> None:
        super()._model_train()
        network = unwrap_model(self.model)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.eval()
        if not isinstance(getattr(network, "criterion", None), _Criterion):
            # only now: the averaged copy, which is validated and saved, is made before and keeps the plain loss
            network.criterion = _Criterion(network, self.distillation)


def bind_distillation(trainer: type, distillation: Distillation) -> type:
    """A trainer that distils with these options, for `YOLO.train(trainer=...)`.

    Args:
        trainer: A trainer of `pruned` or `sparse`.
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
        self.head = network.model[-1]
        self.bins = getattr(self.head, "reg_max", 1)
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
            target = list(dense_predictions(self.teacher(batch["img"]), self.teacher.model[-1]))
        images = len(batch["img"])
        found = list(dense_predictions(preds, self.head))
        terms = {
            "out_loss": self.gains.output * prediction_divergence(found, target, self.bins),
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
