"""Confidences of the pruned network that mean what those of the unpruned one mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from yoloprune.detectors.base import Detector
from yoloprune.recovery import ScoreFit, calibrate_scores

from .options import Options

__all__ = ["calibrated", "run_images"]


def run_images(detector: Detector, options: Options) -> list[dict[str, Any]]:
    """The run's calibration batches, on its device (on Macs the CPU), where the network is put too."""
    device = detector.place(options.device)
    if device.type == "mps":  # which has no float64, as sums over many images need it
        device = torch.device("cpu")
    detector.network.to(device)
    return detector.calibration_batches(
        options.data,
        images=options.calibration_images,
        imgsz=options.imgsz,
        batch=options.batch,
        device=device,
    )


def calibrated(detector: Detector, original: Detector, images: list[Tensor]) -> list[ScoreFit]:
    """Fit the scores of a network to the original's, in place; see `yoloprune.recovery.calibrate_scores`.

    Args:
        detector: The pruned one.
        original: The unpruned one, with the same classes; unchanged.
        images: Batches of images, on the device to work on.
    """
    layers = original.class_layers()
    networks = [of.network.to(images[0].device) for of in (detector, original)]
    try:
        return calibrate_scores(
            *networks,
            layers.names,
            images,
            softmax=layers.softmax,
            in_order=layers.in_order,
            rows=layers.rows,
        )
    finally:
        for network in networks:
            network.cpu()
