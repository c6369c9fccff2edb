"""Which modules are backbone, neck and head, what each costs, and why channels stay."""

from __future__ import annotations

import pytest
from torch import nn
from ultralytics.nn import tasks

from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.parts import Part, head_share, layer_flops, part_shares, parts
from yoloprune.detectors.ultralytics.reasons import why_it_stays
from yoloprune.detectors.ultralytics.stock_training import mark
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.pipeline.targets import gflops


@pytest.fixture
def model() -> nn.Module:
    return checkpoints.load(digits.WEIGHTS).model


def test_boundaries_are_the_yaml_s_with_and_without_the_mark(model) -> None:
    expected = [Part("backbone", 0, 10), Part("neck", 10, 22), Part("head", 22, 23)]
    assert parts(model) == expected
    mark(model)
    assert parts(model) == expected
    del model.yaml
    assert parts(model) == [Part("backbone and neck", 0, 22), Part("head", 22, 23)]


def test_a_classifier_has_no_neck() -> None:
    model = tasks.ClassificationModel("yolov8n-cls.yaml", verbose=False)
    assert parts(model) == [Part("backbone", 0, 9), Part("head", 9, 10)]
    assert parts(model)[1].modules == "model.9"


def test_flops_are_those_that_the_graph_and_ultralytics_count(model) -> None:
    flops = layer_flops(model, 64)
    graph = trace_yolo(model)
    assert sum(flops.values()) == 2 * graph.macs()
    own = {term.module: 0 for term in graph.cost.terms}
    for term in graph.cost.terms:
        own[term.module] += 2 * term.macs
    assert flops == own
    assert sum(layer_flops(model).values()) / 1e9 == pytest.approx(gflops(model), rel=0.05)  # which has norms as well
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_head_s_share(model) -> None:
    own = layer_flops(model)
    head = sum(value for name, value in own.items() if name.startswith("model.22."))
    assert head_share(model) == pytest.approx(head / sum(own.values()))
    assert 0.3 < head_share(model) < 0.4
    assert sum(part_shares(parts(model), own).values()) == pytest.approx(1)


def test_a_decoder_of_queries_is_counted_at_the_real_size() -> None:
    """Its cost hardly depends on the image: at the small one on which models are traced it would be half of all."""
    model = tasks.RTDETRDetectionModel("rtdetr-l.yaml", verbose=False).to("meta")
    assert 0.1 < head_share(model) < 0.15


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
