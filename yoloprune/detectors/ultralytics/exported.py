"""Exported files in their own runtimes, through Ultralytics: what they put out, what they detect, how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.modules import Classify, RTDETRDecoder
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy, xywhr2xyxyxyxy

from yoloprune.deploy.formats import format_of, remedy
from yoloprune.detectors.base import Metrics
from yoloprune.errors import UserError
from yoloprune.files import check_regular

from .guard import offline, plain, quiet
from .validation import validate

__all__ = ["Exported", "found_boxes"]

_IOU = 0.7  # of non-maximum suppression, as in Ultralytics' prediction
_MOST = 65_536  # px, images and channels that a file is believed to take
_PATIENCE = 1e9  # seconds: images must not find less on a busy machine


class Exported:
    """A file or folder that Ultralytics' exporter wrote, loaded into its runtime.

    Args:
        path: The file or folder.

    Attributes:
        task: Ultralytics' task.
        names: Class index -> name.
        imgsz: Height and width in px that it was exported for.
        batch: Images per batch that it was exported for.
        dynamic: Whether it takes other sizes too.

    Raises:
        UserError: The runtime cannot load it or is not installed, or the exporter's metadata are not in it.
    """

    def __init__(self, path: Path) -> None:
        self.path, format = path, format_of(path)
        if not path.exists():
            raise UserError(f"There is no file or folder '{path}'.")
        if not path.is_dir():
            check_regular(path)
        place = torch.device("cuda", 0) if format == "engine" and torch.cuda.is_available() else torch.device("cpu")
        try:
            with quiet(), offline():
                self._backend = AutoBackend(str(path), device=place)
            stated = self._backend.metadata
        except ImportError as e:
            package = e.name or plain(e)
            raise UserError(f"To run '{path}' takes the Python package '{package}'; {remedy(format)}.") from None
        except Exception as e:  # the runtimes' exceptions have no common base
            raise UserError(f"'{path}' cannot be loaded: {plain(e) or type(e).__name__}") from None
        try:
            self.task, self.names = str(stated["task"]), dict(stated["names"])
            self.imgsz, self.batch = tuple(map(int, stated["imgsz"])), int(stated["batch"])
            self.channels = int(stated.get("channels", 3))
            sizes = (*self.imgsz, self.batch, self.channels)
            if len(self.imgsz) != 2 or not all(0 < size <= _MOST for size in sizes):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"'{path}' does not say which size and classes it was exported for; export it with yoloprune export."
            ) from None
        self.dynamic = bool(stated.get("dynamic"))

    def outputs(self, images: Tensor) -> list[Tensor]:
        """What the file puts out, on the CPU and in float32.

        Args:
            images: (images, channels, height, width) in 0 … 1; they are scaled to the size that the file takes.

        Raises:
            UserError: The runtime fails.
        """
        if tuple(images.shape[-2:]) != self.imgsz:
            images = F.interpolate(images, self.imgsz, mode="bilinear")
        found = []
        try:
            with quiet(), offline(), torch.inference_mode():
                for batch in images.split(self.batch):
                    given = batch.to(self._backend.device)
                    output = self._backend(given.half() if self._backend.fp16 else given)
                    found.append([part.float().cpu() for part in (output if isinstance(output, list) else [output])])
        except Exception as e:  # the runtimes' exceptions have no common base
            raise UserError(f"'{self.path}' does not run: {plain(e) or type(e).__name__}") from None
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    @property
    def suppresses(self) -> bool:
        """Whether what it puts out are detections, after non-maximum suppression or without a need for it."""
        return bool(getattr(self._backend, "end2end", False))

    def validate(self, data: str, **options: Any) -> Metrics:
        """Measure it as `validation.validate` does a network; images are padded to squares.

        Raises:
            UserError: The data or an option cannot be used.
        """
        yolo = ultralytics.YOLO(str(self.path), task=self.task)
        given = {"imgsz": max(self.imgsz), "batch": self.batch, "rect": False, **options}
        return validate(yolo, data, classes=len(self.names), **given)


def found_boxes(head: nn.Module, task: str, output: Tensor, *, suppressed: bool = False) -> list[Tensor]:
    """The detections that an output stands for, whatever their scores.

    Args:
        head: The head of the network, deployed or not.
        task: Ultralytics' task.
        output: The first of the output tensors.
        suppressed: Whether they are detections already.

    Returns:
        For each image (boxes, 6): x1, y1, x2, y2, score, class; rotated boxes by what encloses them. Of classifiers the
        best class, with a box that says nothing.

    Raises:
        UserError: The task has no detections.
    """
    if isinstance(head, Classify):
        score, best = output.max(1)
        box = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(output), 4)
        return [row[None] for row in torch.cat((box, score[:, None], best[:, None].float()), 1)]
    if task not in ("detect", "segment", "pose", "obb"):
        raise UserError(f"Exports of the task {task} cannot be compared with torch yet.")
    if isinstance(head, RTDETRDecoder):
        return list(torch.cat((xywh2xyxy(output[..., :4]), output[..., 4:6]), -1))
    rotated = task == "obb"
    found = non_max_suppression(
        output, 0.0, _IOU, nc=head.nc, rotated=rotated, end2end=suppressed, max_time_img=_PATIENCE
    )
    return [_enclosing(boxes) if rotated else boxes[:, :6] for boxes in found]


def _enclosing(boxes: Tensor) -> Tensor:
    corners = xywhr2xyxyxyxy(torch.cat((boxes[:, :4], boxes[:, -1:]), 1))
    return torch.cat((corners.amin(1), corners.amax(1), boxes[:, 4:6]), 1)
