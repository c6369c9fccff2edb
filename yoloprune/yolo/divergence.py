"""How far a network's predictions lie from those of another: the measure of distillation and of sensitivity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["prediction_divergence", "relative_change"]


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


def relative_change(output: Any, target: Any) -> Tensor:
    """Mean over the tensors of an output, nested as it may be, of ‖output − target‖² / ‖target‖²; a scalar."""
    changes = [
        (p.float() - q.float()).square().sum() / q.float().square().sum().clamp_min(1e-12)
        for p, q in zip(_tensors(output), _tensors(target), strict=True)
    ]
    return torch.stack(changes).mean()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (dict, list, tuple)):
        for value in output.values() if isinstance(output, dict) else output:
            yield from _tensors(value)
