"""Calibration of scores on every kind of head, and that a pruned detector still sees."""

from __future__ import annotations

import copy

import pytest
import torch
import ultralytics

import yoloprune
from tests.small_yolo import enliven
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.heads import class_layers
from yoloprune.detectors.ultralytics.model import YOLO, with_network
from yoloprune.pipeline.scores import calibrated


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("yolov8n-seg", 3),
        ("yolov10n", 6),  # both branches of an end-to-end head
        ("yolo26n", 6),
        ("yolov8n-cls", 1),
        ("yolov8s-worldv2", 3),
        pytest.param("rtdetr-l", 1, marks=pytest.mark.slow),
    ],
)
def test_shrunken_logits_are_found_again(name, layers) -> None:
    with quiet():
        stock = ultralytics.RTDETR if name.startswith("rtdetr") else ultralytics.YOLO
        yolo = YOLO(stock(f"{name}.yaml"))
    if not name.endswith("cls"):
        enliven(yolo.model)
    yolo.model.eval()
    shrunken = with_network(yolo, copy.deepcopy(yolo.model))
    for layer in map(shrunken.model.get_submodule, class_layers(yolo.model).names):
        with torch.no_grad():
            scale = layer.logit_scale.sub_(0.3) if hasattr(layer, "logit_scale") else layer.weight.mul_(0.7)
            layer.bias.mul_(0.7).sub_(1)
        assert scale is not None
    size = 160 if name.startswith("rtdetr") else 64
    fits = calibrated(
        UltralyticsDetector(shrunken), UltralyticsDetector(yolo), [torch.rand(2, 3, size, size) for _ in range(2)]
    )
    assert len(fits) == layers
    wanted = torch.tensor(0.3).exp() if "world" in name else torch.tensor(1 / 0.7)
    assert all(fit.scale == pytest.approx(float(wanted), rel=1e-3) for fit in fits)


@pytest.mark.slow
def test_a_pruned_detector_is_as_sure_as_before(all_digits) -> None:
    """At the confidence that users choose it finds what the unpruned network finds; without calibration .77 of it."""
    result = yoloprune.prune(
        digits.WEIGHTS,
        target_ratio=0.5,
        data=all_digits,
        prune_head=True,
        val=True,
        device="cpu",
        calibration_images=64,
    )
    before, after = result.metrics["before"], result.metrics["after"]
    assert after["recall (conf .25)"] > 0.95 * before["recall (conf .25)"]
    assert after["F1 (conf .25)"] > after["mAP50-95"] / before["mAP50-95"] * before["F1 (conf .25)"]
    assert 0.8 < after["detections per image"] / before["detections per image"] < 1.3
    smaller = result.report.smaller_images
    assert [image.imgsz for image in smaller][:1] == [96]  # 36 % of the cost of 160 px
    assert smaller[0].gflops == pytest.approx(0.36 * before["gflops"])
    assert 0 < smaller[0].metrics["mAP50-95"] < before["mAP50-95"]
    (note,) = (note for note in result.report.notes if "at 96 px (36% of the cost)" in note)
    assert note.endswith(("better choice.", "than either: yoloprune frontier."))
