"""Floors under what pruning keeps without training, so that a worse ranking, reconstruction or calibration fails here.

Figures when they were set are beside them; what is allowed below is about three times the noise of these images.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import yoloprune
from yoloprune.demo import digits

pytestmark = pytest.mark.slow


def kept(result: yoloprune.PruneResult, name: str) -> float:
    """Share of a figure that is left."""
    return result.metrics["after"][name] / result.metrics["before"][name]


def test_the_digits_at_half_their_gflops(all_digits: Path) -> None:
    result = yoloprune.prune(digits.WEIGHTS, recipe="digits", target_ratio=0.5, data=all_digits, val=True, device="cpu")
    assert kept(result, "mAP50-95") > 0.97  # .993
    assert kept(result, "F1 (conf .25)") > 0.95  # .984


def test_coco_images_at_seven_tenths_of_the_gflops(coco_weights: Path, coco_mini: Path) -> None:
    common = {"data": coco_mini, "imgsz": 320, "calibration_images": 64, "val": True, "device": "cpu"}
    result = yoloprune.prune(coco_weights, target_ratio=0.7, prune_head=True, **common)
    assert kept(result, "mAP50-95") > 0.77
    assert kept(result, "recall (conf .25)") > 0.75
