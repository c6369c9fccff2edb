"""Which modules are backbone, neck and head, what each costs, and why channels stay."""

from __future__ import annotations

import pytest
import ultralytics
from torch import nn
from ultralytics.nn import tasks

from yoloprune.analysis.inspection import inspect
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.parts import parts
from yoloprune.detectors.ultralytics.reasons import why_it_stays
from yoloprune.detectors.ultralytics.stock_training import block_stock_training
from yoloprune.detectors.ultralytics.trace import trace_yolo


@pytest.fixture
def detector() -> UltralyticsDetector:
    return UltralyticsDetector.load(digits.WEIGHTS)


@pytest.fixture
def model(detector) -> nn.Module:
    return detector.network


def bounds(model: nn.Module) -> list[tuple[str, str, str]]:
    return [(part.name, part.modules[0], part.modules[-1]) for part in parts(model)]


def test_boundaries_are_the_yaml_s_with_and_without_the_mark(model) -> None:
    expected = [("backbone", "model.0", "model.9"), ("neck", "model.10", "model.21"), ("head", "model.22", "model.22")]
    assert bounds(model) == expected
    block_stock_training(model)
    assert bounds(model) == expected
    del model.yaml
    assert bounds(model) == [("backbone and neck", "model.0", "model.21"), ("head", "model.22", "model.22")]


def test_a_classifier_has_no_neck() -> None:
    model = tasks.ClassificationModel("yolov8n-cls.yaml", verbose=False)
    assert bounds(model) == [("backbone", "model.0", "model.8"), ("head", "model.9", "model.9")]
    assert parts(model)[0].has("model.8.cv1") and not parts(model)[0].has("model.80")


def test_flops_are_those_that_the_graph_and_ultralytics_count(detector, model) -> None:
    flops = detector.layer_flops(64)
    graph = trace_yolo(model)
    assert sum(flops.values()) == 2 * graph.macs()
    own = {term.module: 0 for term in graph.cost.terms}
    for term in graph.cost.terms:
        own[term.module] += 2 * term.macs
    assert flops == own
    assert sum(detector.layer_flops().values()) / 1e9 == pytest.approx(
        detector.gflops(), rel=0.05
    )  # which has norms as well
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_head_s_share(detector) -> None:
    own = detector.layer_flops()
    head = sum(value for name, value in own.items() if name.startswith("model.22."))
    assert detector.head_share() == pytest.approx(head / sum(own.values()))
    assert 0.3 < detector.head_share() < 0.4
    assert sum(row.gflops for row in inspect(detector).parts) == pytest.approx(detector.gflops())


def test_a_decoder_of_queries_is_counted_at_the_real_size() -> None:
    """Its cost hardly depends on the image: at the small one on which models are traced it would be half of all."""
    model = ultralytics.RTDETR("rtdetr-l.yaml")
    detector = UltralyticsDetector(YOLO(model)).holding(model.model.to("meta"))
    assert 0.1 < detector.head_share() < 0.15


def _reasons(model: nn.Module, *, prune_head: bool, keep: tuple[str, ...] = ()) -> dict[str, str]:
    graph = trace_yolo(model, prune_head, keep)
    frozen = [group for group in graph.groups if group.frozen and group.reason != "is a kernel size"]
    return {group.name: why_it_stays(group, graph, model, prune_head=prune_head) for group in frozen}


def test_why_channels_of_the_digits_detector_stay(model) -> None:
    found = _reasons(model, prune_head=False, keep=("model.4.cv2",))
    assert found["model.22.cv2.1.0.conv.weight"] == "in the head, which is pruned with --prune-head only"
    assert found["model.22.cv3.0.2.weight"] == "the head's predictions: boxes, classes and the like"
    assert found["model.22.dfl.conv.weight"] == "not learned: turns the bins of a box side into a distance"
    assert found["model.0.conv.weight"] == "the channels of the image"
    assert found["model.4.cv2.conv.weight"] == "asked for by --keep"
    assert "model.22.cv2.1.0.conv.weight" not in _reasons(model, prune_head=True)


def test_why_channels_of_attention_stay() -> None:
    model = tasks.DetectionModel("yolo11n.yaml", verbose=False)
    found = _reasons(model, prune_head=True)
    assert found["model.10.m.0.attn.qkv.conv.weight"] == "attention divides them into heads of a fixed width"
    assert "asked for by --keep" not in found.values()
