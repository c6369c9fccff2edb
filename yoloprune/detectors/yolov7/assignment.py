"""Which predictions of an anchor-based head are to find which objects.

YOLOv5 takes all candidates (Jocher, 2020). YOLOv7 chooses among them by simplified optimal transport (Ge et al., OTA,
CVPR 2021 and YOLOX, 2021), with the network's own predictions (Wang et al., YOLOv7, CVPR 2023, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

__all__ = ["Matches", "candidates", "decode", "transport"]

_LARGEST_RATIO = 4.0  # of an object's side to the anchor's, and the other way round
_IOU_WEIGHT = 3.0  # of -ln IoU beside the class term in the cost of a match
_EPS = 1e-8  # of an IoU, and of a box in cells


class Matches(NamedTuple):
    """Predictions and the objects that they are matched to, int64 (matches,) each.

    A prediction may occur more than once, for several objects; where only one of them can count, the last does.
    """

    scale: Tensor
    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target: Tensor

    def select(self, which: Tensor) -> Matches:
        """Those at some places, or where a mask holds."""
        return Matches(*(field[which] for field in self))

    @property
    def place(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The index of the predictions in the tensor of a scale."""
        return self.image, self.anchor, self.row, self.column


def candidates(
    targets: Tensor, grids: Sequence[tuple[int, int]], anchors: Sequence[Tensor], reach: float = 0.5
) -> Matches:
    """The predictions that may find each object: of anchors like it, in its cell and in neighbours.

    An anchor is like an object if neither side of the two is four times the other's. A neighbour counts if the object's
    centre is less than `reach` away from its edge and it is in the image; at .5 that are two cells, at 1 four.

    Args:
        targets: (objects, 6): image, class, and the box's centre and size as shares of the image.
        grids: Rows and columns of each scale.
        anchors: (anchors, 2) width and height, in cells, for each scale.
        reach: In cells.
    """
    parts = []
    directions = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], device=targets.device) * reach
    for scale, ((rows, columns), sizes) in enumerate(zip(grids, anchors, strict=True)):
        extent = targets.new_tensor([columns, rows])
        centre, size = targets[:, 2:4] * extent, targets[:, 4:6] * extent
        ratio = size / sizes[:, None]
        alike = torch.maximum(ratio, 1 / ratio).amax(2) < _LARGEST_RATIO  # (anchors, objects)
        rest = extent - centre
        before, behind = (
            (d % 1 < reach) & (d > 1) for d in (centre, rest)
        )  # (objects, 2) for left and up, right and down
        near = torch.cat((torch.ones_like(before[:, :1]), before, behind), 1).T  # (directions, objects)
        direction, anchor, target = (near[:, None] & alike).nonzero(as_tuple=True)
        column, row = (centre[target] - directions[direction]).long().T
        parts.append(
            Matches(
                torch.full_like(target, scale),
                targets[target, 0].long(),
                anchor,
                row.clamp(0, rows - 1),
                column.clamp(0, columns - 1),
                target,
            )
        )
    return Matches(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def decode(predicted: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (matches, 4), centre and size in cells, the centre from the cell's corner.

    Args:
        predicted: (matches, 4 or more), before the sigmoid.
        anchors: (matches, 2), in cells.
    """
    centre, size = predicted[:, :4].sigmoid().chunk(2, 1)
    size = ((size * 2) ** 2 * anchors).clamp_min(_EPS)  # a sigmoid can be 0, and a box without a height has no shape
    return torch.cat((centre * 2 - 0.5, size), 1)


@torch.no_grad()
def transport(
    raw: Sequence[Tensor],
    targets: Tensor,
    found: Matches,
    anchors: Sequence[Tensor],
    strides: Sequence[float],
    most: int = 10,
) -> Matches:
    """Choose among candidates by what they predict now: each object takes those that cost it least.

    An object takes as many as the sum of its `most` largest IoUs says, one at least. The cost of a match is the binary
    cross entropy of all classes' √(class · objectness), and 3 · (-ln IoU). A candidate that several objects have taken
    goes to the object that it costs least. A prediction that is a candidate for two objects is two candidates.

    Args:
        raw: The predictions of each scale before the sigmoid, float32 (images, anchors, rows, columns, 5 + classes).
        targets: As for `candidates`.
        found: What that has found.
        anchors: As for `candidates`.
        strides: Pixels of a cell, for each scale.
        most: Of the IoUs.
    """
    if not len(found.target):
        return found
    boxes, scores = [], []
    for scale, (values, sizes, stride) in enumerate(zip(raw, anchors, strides, strict=True)):
        part = found.select(found.scale == scale)
        predicted = values[part.place]
        box = decode(predicted, sizes[part.anchor])
        box[:, :2] += torch.stack((part.column, part.row), 1)
        boxes.append(box * stride)
        scores.append(
            (F.logsigmoid(predicted[:, 5:]) + F.logsigmoid(predicted[:, 4:5])) / 2
        )  # of √(class · objectness)
    rows, columns = raw[0].shape[2:4]
    extent = targets.new_tensor([columns, rows, columns, rows]) * strides[0]
    true = box_convert(targets[:, 2:6] * extent, "cxcywh", "xyxy")
    predicted, log_scores = box_convert(torch.cat(boxes), "cxcywh", "xyxy"), torch.cat(scores)
    log_others = (-torch.expm1(log_scores)).clamp_min(torch.finfo(log_scores.dtype).tiny).log()
    background, gain = -log_others.sum(1), log_others - log_scores  # the cross entropy without a class; with one, more

    chosen = []
    for image in found.image.unique():
        here = (found.image == image).nonzero()[:, 0]
        objects = (targets[:, 0] == image).nonzero()[:, 0]
        iou = box_iou(true[objects], predicted[here])  # (objects, candidates)
        classes = background[here] + gain[here][:, targets[objects, 1].long()].T
        cost = classes - _IOU_WEIGHT * (iou + _EPS).log()
        count = min(most, len(here))
        wanted = iou.topk(count).values.sum(1).int().clamp_min(1)
        order = cost.topk(count, largest=False).indices
        taken = torch.zeros_like(cost, dtype=torch.bool)
        taken.scatter_(1, order, torch.arange(count, device=cost.device) < wanted[:, None])
        owner = torch.where(taken.sum(0) > 1, cost.argmin(0), taken.int().argmax(0))
        kept = taken.any(0)
        chosen.append(found.select(here[kept])._replace(target=objects[owner[kept]]))
    return Matches(*(torch.cat(fields) for fields in zip(*chosen, strict=True)))
