"""How far a network's predictions lie from the original's over some images: what sensitivity and search go by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.yolo.divergence import prediction_divergence, relative_change
from yoloprune.yolo.probe import dense_predictions
from yoloprune.yolo.trace import predictions
from yoloprune.yolo.trainers.distill import can_distill

__all__ = ["PredictionChange"]


class PredictionChange:
    """The divergence of class scores and boxes from the original's that distillation minimises.

    Where the head has no such predictions, it is the relative squared change of its outputs.

    Args:
        network: The original, in evaluation mode.
        images: Batches of images, (images, channels, height, width) each.

    Attributes:
        text: What the figures are, for people.
    """

    def __init__(self, network: nn.Module, images: list[Tensor]) -> None:
        head = network.model[-1]
        self.dense, self.bins = can_distill(network), getattr(head, "reg_max", 1)
        self.text = (
            "divergence of class scores and boxes" if self.dense else "relative squared change of the head's outputs"
        )
        self.images = images
        self.targets = [self._predict(network, x) for x in self.images]

    def _predict(self, network: nn.Module, x: Tensor) -> Any:
        with torch.no_grad():
            output = network(x)
        return list(dense_predictions(output)) if self.dense else predictions(output)

    def __call__(self, network: nn.Module) -> float:
        """The mean change over the images, 0 for the original."""
        total = 0.0
        for x, target in zip(self.images, self.targets, strict=True):
            output = self._predict(network, x)
            error = prediction_divergence(output, target, self.bins) if self.dense else relative_change(output, target)
            total += max(float(error), 0.0) * len(x)  # rounding can make it negative
        return total / sum(map(len, self.images))
