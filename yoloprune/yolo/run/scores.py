"""Confidences of the pruned network that mean what those of the unpruned one mean."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from ultralytics.utils.torch_utils import select_device

from yoloprune.recovery import ScoreFit, calibrate_scores
from yoloprune.yolo.classes import score_layers
from yoloprune.yolo.model import YOLO

from .data import calibration_batches
from .options import Options

__all__ = ["calibrated", "run_images"]


def run_images(yolo: YOLO, options: Options) -> list[dict[str, Any]]:
    """The run's calibration batches, on its device, where the network is put too."""
    device = select_device(options.device, verbose=False)
    yolo.model.to(device)
    return calibration_batches(
        yolo,
        options.data,
        images=options.calibration_images,
        imgsz=options.imgsz,
        batch=options.batch,
        device=device,
    )


def calibrated(yolo: YOLO, original: YOLO, images: list[Tensor]) -> list[ScoreFit]:
    """Fit the scores of a network to the original's, in place; see `yoloprune.recovery.calibrate_scores`.

    Args:
        yolo: The pruned network.
        original: The unpruned one, with the same classes; unchanged.
        images: Batches of images, on the device to work on.
    """
    layers = score_layers(original.model)
    networks = [net.model.to(images[0].device) for net in (yolo, original)]
    try:
        return calibrate_scores(*networks, layers.names, images, softmax=layers.softmax, in_order=layers.in_order)
    finally:
        for network in networks:
            network.cpu()
