"""Image sizes that a network can take."""

from __future__ import annotations

from ultralytics.utils.checks import check_imgsz

from yoloprune.yolo.guard import quiet
from yoloprune.yolo.model import YOLO

__all__ = ["fitting_imgsz"]


def fitting_imgsz(yolo: YOLO, imgsz: int) -> tuple[int, str | None]:
    """Round an image size up to a multiple of the network's stride, as Ultralytics does.

    Args:
        yolo: The network.
        imgsz: Image size in px.

    Returns:
        The size in px and, if it is another one than was asked for, a sentence that says so.
    """
    with quiet():
        fitting = check_imgsz(imgsz, stride=yolo.model.stride)
    if fitting == imgsz:
        return imgsz, None
    stride = int(yolo.model.stride.max())
    return fitting, f"imgsz={imgsz} is no multiple of the network's stride, {stride}; {fitting} is used instead."
