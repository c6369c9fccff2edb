"""How far a network's predictions lie from another's: for distillation, sensitivity and the trial of limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.nn.modules.head import OBB
from ultralytics.utils.metrics import box_iou
from ultralytics.utils.nms import non_max_suppression

from yoloprune.detectors.base import relative_change

from .heads import can_distill
from .internals import average_precisions
from .probe import dense_predictions
from .trace import predictions

__all__ = ["PredictionChange", "PseudoLabelError", "lost_detections", "prediction_divergence"]


def prediction_divergence(preds: list[dict[str, Tensor]], target: list[dict[str, Tensor]], bins: int) -> Tensor:
    """Divergence of class scores and boxes from a teacher's, over anchors and per sum of the teacher's best scores.

    Class scores: the Kullback-Leibler divergence of Bernoulli distributions (Hinton et al., 2015). Boxes: that of
    their distributions (Zheng et al., LD, CVPR 2022), or a smooth L1 distance where the head has none, both weighted by
    the teacher's best class score.

    Args:
        preds: What `dense_predictions` found: `scores` (images, classes, anchors), `boxes` (images, 4 · bins, anchors).
        target: The same of the teacher. Scores for other classes are left out.
        bins: Bins of a box distribution; 1 if boxes are plain numbers.

    Returns:
        A scalar, 0 for equal predictions; the mean over the parts of an end-to-end head.
    """
    total = torch.zeros((), device=preds[0]["scores"].device)
    for student, teacher in zip(preds, target, strict=True):
        p, q = student["scores"].float(), teacher["scores"].float()
        t = q.sigmoid()
        weight = t.amax(1)  # (images, anchors)
        anchors = weight.sum().clamp_min(1.0)
        if p.shape == q.shape:  # a network that was refitted to other classes has its boxes and features to learn
            divergence = F.binary_cross_entropy_with_logits(p, t, reduction="sum")
            total = total + (divergence - F.binary_cross_entropy_with_logits(q, t, reduction="sum")) / anchors
        p, q = student["boxes"].float(), teacher["boxes"].float()
        if bins > 1:
            p, q = (b.unflatten(1, (4, bins)).log_softmax(2) for b in (p, q))
            difference = (q.exp() * (q - p)).sum(2).mean(1)
        else:
            difference = F.smooth_l1_loss(p, q, reduction="none").mean(1)
        total = total + (difference * weight).sum() / anchors
    return total / len(preds)


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
        return list(dense_predictions(output, network.model[-1])) if self.dense else predictions(output)

    def __call__(self, network: nn.Module) -> float:
        """The mean change over the images, 0 for the original."""
        total = 0.0
        for x, target in zip(self.images, self.targets, strict=True):
            output = self._predict(network, x)
            error = prediction_divergence(output, target, self.bins) if self.dense else relative_change(output, target)
            total += max(float(error), 0.0) * len(x)  # rounding can make it negative
        return total / sum(map(len, self.images))


_SURE = 0.25  # Ultralytics' threshold for what a detector shows; what the original shows is the truth here
_SEEN = 0.001  # Ultralytics' threshold in validation
_PATIENCE = 1e9  # seconds: a search must not choose by how busy the machine is, as images that are late find nothing
_IOU = 0.7  # of non-maximum suppression, as in validation


def lost_detections(network: nn.Module, images: list[Tensor]) -> PseudoLabelError | PredictionChange:
    """What a search lowers: 1 - mAP against the original's detections, or the change of outputs if boxes are not plain.

    Args:
        network: The original, in evaluation mode.
        images: Batches of images, (images, channels, height, width) each.
    """
    head = network.model[-1]
    if not can_distill(network) or isinstance(head, OBB):
        return PredictionChange(network, images)
    measure = PseudoLabelError(network, images)
    return measure if any(len(truth) for truth in measure.truth) else PredictionChange(network, images)


class PseudoLabelError:
    """1 - mAP50-95 of a network's detections against those of the original, over some images.

    The divergence of scores, which distillation lowers, is no measure to choose widths by: a network can lie nearer to
    the original's scores and rank its boxes worse. On COCO images at 70 % of the GFLOPs a search lowered it from 3.8 to
    1.7 while mAP50-95 fell from .288 to .233.

    Attributes:
        truth: The original's detections, a tensor (boxes, 6 or more: x1, y1, x2, y2, score, class) for each image.
    """

    def __init__(self, network: nn.Module, images: list[Tensor]) -> None:
        self.images = images
        self.truth = [found for batch in images for found in _detect(network, batch, _SURE)]

    def __call__(self, network: nn.Module) -> float:
        """Between 0 (the same detections) and 1."""
        found = [boxes for batch in self.images for boxes in _detect(network, batch, _SEEN)]
        hits = np.concatenate([_hits(boxes, truth) for boxes, truth in zip(found, self.truth, strict=True)])
        scores, classes = torch.cat(found)[:, 4].numpy(), torch.cat(found)[:, 5].numpy()
        if not len(hits):
            return 1.0
        return 1.0 - float(average_precisions(hits, scores, classes, torch.cat(self.truth)[:, 5].numpy()).mean())


@torch.no_grad()
def _detect(network: nn.Module, batch: Tensor, confidence: float) -> list[Tensor]:
    head, output = network.model[-1], network(batch)
    boxes = output[0] if isinstance(output, (tuple, list)) else output
    end2end = getattr(head, "end2end", False)
    return [
        b.cpu()
        for b in non_max_suppression(
            boxes, confidence, _IOU, nc=head.nc, multi_label=True, end2end=end2end, max_time_img=_PATIENCE
        )
    ]


def _hits(boxes: Tensor, truth: Tensor) -> np.ndarray:
    """Which boxes match a true one at each IoU from .5 to .95, each true box once, bool (boxes, 10)."""
    hits = np.zeros((len(boxes), 10), bool)
    if not len(boxes) or not len(truth):
        return hits
    iou = (box_iou(truth[:, :4], boxes[:, :4]) * (truth[:, 5:6] == boxes[:, 5])).numpy()
    for level, least in enumerate(np.linspace(0.5, 0.95, 10)):
        pairs = np.argwhere(iou >= least)
        pairs = pairs[np.argsort(-iou[tuple(pairs.T)])]
        for column in (1, 0):  # the best true box of each box, then the best box of each true one
            pairs = pairs[np.sort(np.unique(pairs[:, column], return_index=True)[1])]
        hits[pairs[:, 1], level] = True
    return hits
