"""Class scores and boxes of the anchor-based heads as logits, in which two networks compare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.detectors.ultralytics.differences import PredictionChange

__all__ = ["Change", "Dense", "dense"]


def dense(output: Any, scales: int) -> dict[str, Tensor]:
    """Scores and boxes of a head's raw outputs, in the form of `ultralytics.probe.dense_predictions`.

    Args:
        output: What the network returned, in training or evaluation.
        scales: Scales of the head; what follows them is of auxiliary heads.

    Returns:
        `scores`: (b, classes, n), logits of objectness times class probability; `boxes`: (b, 4, n), logits.
    """
    raw = output[1] if isinstance(output, tuple) else output
    flat = torch.cat([x.flatten(1, 3) for x in raw[:scales]], 1).transpose(1, 2)
    objectness, classes = flat[:, 4:5].float(), flat[:, 5:].float()
    if classes.shape[1] == 1:  # the official code takes objectness alone
        return {"scores": objectness, "boxes": flat[:, :4]}
    log = (F.logsigmoid(objectness) + F.logsigmoid(classes)).clamp(max=-1e-6)
    return {"scores": log - torch.log(-torch.expm1(log)), "boxes": flat[:, :4]}


class Dense:
    """A network whose call gives what `dense` does; `model` are its layers."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.model = network, network.model

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Images, (b, channels, h, w), as the network takes them."""
        return [dense(self.network(images), self.model[-1].nl)]


class Change(PredictionChange):
    """The divergence of class scores and boxes from the original's."""

    def __init__(self, network: nn.Module, images: list[Tensor]) -> None:
        self.dense, self.bins, self.text = True, 1, "divergence of class scores and boxes"
        self.images = images
        self.targets = [self._predict(network, x) for x in images]

    def _predict(self, network: nn.Module, x: Tensor) -> list[dict[str, Tensor]]:
        with torch.no_grad():
            return Dense(network)(x)
