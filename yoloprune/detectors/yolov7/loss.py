"""The training losses of YOLOv7 and of the original YOLOv5.

`detection_loss` is a function of what the head puts out; `Criterion` is what Ultralytics' trainer asks a network for.

The gains are the published ones of each family. Ultralytics' keywords `box` and `cls` are relative to their own
defaults, 7.5 and .5: at those the published gains apply, and `box=15` doubles that of boxes. `dfl` says nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.metrics import bbox_iou

from .assignment import Matches, candidates, decode, transport

__all__ = ["Criterion", "Gains", "detection_loss", "published_gains"]

_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)  # of the objectness of each scale
_BALANCE_OF_THREE = (4.0, 1.0, 0.4)
_AUXILIARY = 0.25  # gain of auxiliary heads
_USUAL = {name: DEFAULT_CFG_DICT[name] for name in ("box", "cls")}


class Gains(NamedTuple):
    """Gains of the terms."""

    box: float
    objectness: float
    classes: float


LARGE = Gains(box=0.05, objectness=0.7, classes=0.3)  # YOLOv7, x and P6; YOLOv5m, l, x
SMALL = Gains(box=0.05, objectness=1.0, classes=0.5)  # YOLOv7-tiny; YOLOv5n, s


def detection_loss(
    raw: Sequence[Tensor],
    targets: Tensor,
    *,
    anchors: Tensor,
    strides: Sequence[float],
    gains: Gains,
    transported: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The box, objectness and class terms of a batch, float32 (3,): means, each with its gain.

    Boxes: 1 - CIoU. Objectness: binary cross entropy of all predictions, with the matched ones' CIoU as what it shall
    be. Classes: binary cross entropy of the matched ones, if there is more than one class. Auxiliary heads count a
    quarter; with them, twenty IoUs and not ten decide how many predictions an object takes, and the auxiliary heads
    have candidates in all four neighbours, chosen by what the lead heads predict.

    Args:
        raw: (images, anchors, rows, columns, 5 + classes) before the sigmoid, for each scale; those of auxiliary heads
            behind them.
        targets: (objects, 6): image, class, and the box's centre and size as shares of the image.
        anchors: (scales, anchors, 2), in px.
        strides: Of each scale, in px.
        gains: Of the terms.
        transported: Whether candidates are chosen by optimal transport (YOLOv7) or all taken (YOLOv5).
        class_weights: (classes,) factors of the class term.
    """
    raw = [values.float() for values in raw]
    targets = targets.float()
    scales = len(strides)
    lead, auxiliary = raw[:scales], raw[scales:]
    grids = [tuple(values.shape[2:4]) for values in lead]
    cells = [sizes.float() / stride for sizes, stride in zip(anchors, strides, strict=True)]

    def matches(reach: float) -> Matches:
        found = candidates(targets, grids, cells, reach)
        if not transported:
            return found
        return transport(lead, targets, found, cells, strides, most=20 if auxiliary else 10)

    total = _terms(lead, targets, matches(0.5), cells, class_weights)
    if auxiliary:
        total = total + _AUXILIARY * _terms(auxiliary, targets, matches(1.0), cells, class_weights)
    return total * total.new_tensor(gains)


def _terms(
    raw: Sequence[Tensor], targets: Tensor, found: Matches, anchors: Sequence[Tensor], class_weights: Tensor | None
) -> Tensor:
    """The terms of one head without their gains."""
    box = objectness = classes = raw[0].new_zeros(())
    balances = _BALANCE_OF_THREE if len(raw) == 3 else _BALANCE
    for scale, (values, sizes, balance) in enumerate(zip(raw, anchors, balances, strict=False)):
        part = found.select(found.scale == scale)
        wanted = torch.zeros_like(values[..., 4])
        if len(part.target):
            predicted, true = values[part.place], targets[part.target]
            rows, columns = values.shape[2:4]
            extent = true.new_tensor([columns, rows, columns, rows])
            true_box = true[:, 2:6] * extent
            true_box[:, :2] -= torch.stack((part.column, part.row), 1)
            iou = bbox_iou(decode(predicted, sizes[part.anchor]), true_box, xywh=True, CIoU=True)[:, 0]
            box = box + (1 - iou).mean()
            wanted[part.place] = iou.detach().clamp_min(0)
            if values.shape[-1] > 6:  # with one class objectness alone is the score
                logits = predicted[:, 5:]
                kinds = F.one_hot(true[:, 1].long(), logits.shape[1]).to(logits.dtype)
                classes = classes + F.binary_cross_entropy_with_logits(logits, kinds, weight=class_weights)
        objectness = objectness + balance * F.binary_cross_entropy_with_logits(values[..., 4], wanted)
    return torch.stack((box, objectness, classes))


def published_gains(network: nn.Module) -> Gains:
    """The gains that a network of either family was published with, before they are scaled by `Criterion`."""
    tiny = any(type(module).__name__ == "SP" for module in network.model)  # in YOLOv7-tiny alone
    return SMALL if tiny or network.yaml.get("width_multiple", 1.0) <= 0.5 else LARGE


class Criterion:
    """The loss of a network for Ultralytics' trainer.

    Gains are scaled as in the official training: all by 3 / scales, that of classes by their number / 80, and that of
    objectness by the pixels of the image / 640².

    Args:
        network: Its head and, if it has one, its `args` with Ultralytics' keywords are looked at.
    """

    def __init__(self, network: nn.Module) -> None:
        head, given = network.model[-1], getattr(network, "args", None) or {}
        given = given if isinstance(given, dict) else vars(given)
        own = published_gains(network)
        box, classes = (given.get(name, usual) / usual for name, usual in _USUAL.items())
        self.strides = head.stride.tolist()
        layers = 3 / len(self.strides)
        self.gains = Gains(
            own.box * box * layers, own.objectness * layers, own.classes * classes * layers * head.nc / 80
        )
        self.anchors = head.anchors * head.stride.view(-1, 1, 1)
        self.transported = network.family == "v7"
        self.class_weights = getattr(network, "class_weights", None)

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The terms, times the batch size as Ultralytics has them, and the terms themselves.

        Args:
            preds: What the head returns, in training or in evaluation mode.
            batch: `batch_idx`, `cls` and `bboxes` of the objects.
        """
        raw = preds[1] if isinstance(preds, tuple) else preds
        device = raw[0].device
        targets = torch.cat((batch["batch_idx"].view(-1, 1), batch["cls"].view(-1, 1), batch["bboxes"]), 1).to(device)
        rows, columns = raw[0].shape[2:4]
        area = rows * columns * self.strides[0] ** 2 / 640**2
        terms = detection_loss(
            raw,
            targets,
            anchors=self.anchors.to(device),
            strides=self.strides,
            gains=self.gains._replace(objectness=self.gains.objectness * area),
            transported=self.transported,
            class_weights=self.class_weights,
        )
        items = dict(zip(("box_loss", "obj_loss", "cls_loss"), terms.detach(), strict=True))
        return terms * len(raw[0]), items
