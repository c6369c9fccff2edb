"""What a network puts out on real images, in a form in which two networks, or a network and its export, compare."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.nn.modules import Classify, Detect, RTDETRDecoder

from yoloprune.detectors.base import tensors

__all__ = ["deployed", "furthest", "photograph", "photographs", "run", "typical"]

_NO_DETECTION = 0.01  # outputs that are smaller throughout, such as an untrained network's scores, count as this large


def deployed(model: nn.Module) -> nn.Module:
    """A copy of the network as the exporter runs it: fused, its head in export mode with one-to-many outputs."""
    network = copy.deepcopy(model).cpu().float().eval()
    if hasattr(network, "end2end"):
        network.end2end = False
    network = network.fuse(verbose=False)
    for module in network.modules():
        if isinstance(module, (Classify, Detect, RTDETRDecoder)):
            module.export, module.format = True, "onnx"
            module.shape = None
    return network


def photograph(height: int, width: int, channels: int) -> Tensor:
    """Ultralytics' `bus.jpg` as (1, channels, height, width) in 0 … 1."""
    import cv2

    picture = cv2.imread(str(ultralytics.utils.ASSETS / "bus.jpg"))[..., ::-1]
    resized = np.ascontiguousarray(cv2.resize(picture, (width, height)).transpose(2, 0, 1))
    image = torch.from_numpy(resized)[None].float() / 255
    return image if channels == 3 else image.mean(1, keepdim=True).expand(-1, channels, -1, -1).contiguous()


def photographs(imgsz: int, channels: int) -> Tensor:
    """Ultralytics' two pictures, whole and three crops of each, and their mirror images: (16, channels, imgsz, imgsz).

    Proportions are kept; what is left over is grey, as in prediction.
    """
    import cv2
    from ultralytics.data.augment import LetterBox

    views = []
    for name in ("bus.jpg", "zidane.jpg"):
        whole = cv2.imread(str(ultralytics.utils.ASSETS / name))[..., ::-1]
        height, width = (2 * n // 3 for n in whole.shape[:2])
        crops = [whole[y : y + height, x : x + width] for y, x in ((0, 0), (height // 2, 0), (height // 4, width // 2))]
        views += [view for part in (whole, *crops) for view in (part, part[:, ::-1])]
    shaped = np.stack([LetterBox((imgsz, imgsz), auto=False)(image=np.ascontiguousarray(view)) for view in views])
    images = torch.from_numpy(shaped.transpose(0, 3, 1, 2).copy()).float() / 255
    return images if channels == 3 else images.mean(1, keepdim=True).expand(-1, channels, -1, -1).contiguous()


def run(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The output tensors of a network that `deployed` returned, in order.

    Args:
        network: The network.
        images: (images, channels, height, width), on the CPU.
    """
    with torch.inference_mode():
        return list(tensors(network(images)))


def furthest(network: nn.Module, ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of any output value, relative to the largest value of its kind.

    Box coordinates and the other output rows count apart, so that pixels do not hide scores. RT-DETR's detections are
    compared as a set, since equal scores come in any order.

    Args:
        network: The network that put out the first of them.
        ours: What `run` returned.
        theirs: Tensors of the same shapes.
    """
    if isinstance(network.model[-1], RTDETRDecoder):
        return _worst(_nearest(a, b).max() for a, b in zip(ours, theirs, strict=True))
    return _worst((a - b).abs().max() / a.abs().max().clamp(min=_NO_DETECTION) for a, b in _kinds(ours, theirs))


def typical(network: nn.Module, ours: list[Tensor], theirs: list[Tensor]) -> float:
    """As `furthest`, but the root of the mean square instead of the largest; for RT-DETR the mean over detections."""
    if isinstance(network.model[-1], RTDETRDecoder):
        return _worst(_nearest(a, b).mean() for a, b in zip(ours, theirs, strict=True))
    return _worst(_rms(a - b) / _rms(a).clamp(min=_NO_DETECTION) for a, b in _kinds(ours, theirs))


def _kinds(ours: list[Tensor], theirs: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of box rows and of other rows of (batch, rows, anchors) outputs; other shapes have no box rows."""
    for a, b in zip(ours, theirs, strict=True):
        boxes = 4 if a.ndim == 3 else 0
        for rows in (slice(0, boxes), slice(boxes, None)):
            if a[:, rows].numel():
                yield a[:, rows], b[:, rows]


def _worst(differences: Iterable[Tensor]) -> float:
    """The largest, or NaN where one is."""
    return float(torch.stack(list(differences)).max())


def _nearest(ours: Tensor, theirs: Tensor) -> Tensor:
    """Largest relative difference of each of (batch, queries, 6) detections from the one that is nearest to it."""
    scale = ours.abs().amax((0, 1)).clamp(min=_NO_DETECTION)
    return torch.cdist(ours / scale, theirs / scale, p=torch.inf).amin(2)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
