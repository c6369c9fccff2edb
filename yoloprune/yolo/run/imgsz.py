"""Image sizes that a network can take."""

from __future__ import annotations

from ultralytics.utils.checks import check_imgsz

from yoloprune.yolo.guard import quiet
from yoloprune.yolo.model import YOLO

__all__ = ["fitting_imgsz"]

_USUAL = 640  # px, Ultralytics' default


def fitting_imgsz(yolo: YOLO, imgsz: int | None) -> tuple[int, str | None]:
    """The size that was asked for, rounded up to a multiple of the network's stride, as Ultralytics does.

    Args:
        yolo: The network.
        imgsz: Image size in px; None: the one that the weights were trained at, as Ultralytics has it.

    Returns:
        The size in px and, if it is neither what was asked for nor the usual one, a sentence that says so.
    """
    own = yolo.overrides.get("imgsz") or _USUAL
    asked = imgsz or (max(own) if isinstance(own, list) else own)
    with quiet():
        fitting = check_imgsz(asked, stride=yolo.model.stride)
    if fitting != asked:
        stride = int(yolo.model.stride.max())
        return fitting, f"imgsz={asked} is no multiple of the network's stride, {stride}; {fitting} is used instead."
    if imgsz is None and fitting != _USUAL:
        return fitting, f"Images are {fitting} px, as in the training of the weights."
    return fitting, None
