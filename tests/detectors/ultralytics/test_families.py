"""Every family that Ultralytics ships prunes exactly: zeroing what goes and removing it give the same output."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from yoloprune.detectors.ultralytics.trace import predictions, trace_yolo
from yoloprune.graph import mask_error

NAMES = {
    tasks.DetectionModel: [
        *("yolov3", "yolov3-tiny", "yolov3-spp", "yolov5n", "yolov5n-p6", "yolov6n", "yolov8n", "yolov8s"),
        *("yolov8n-p2", "yolov8n-p6", "yolov8n-ghost", "yolov9t", "yolov9s", "yolov9m", "yolov9c", "yolov9e"),
        *("yolov10n", "yolov10b", "yolo11n", "yolo11m", "yolo12n", "yolo26n"),
    ],
    tasks.SegmentationModel: ["yolov8n-seg", "yolo11n-seg", "yolo26n-seg"],
    tasks.PoseModel: ["yolov8n-pose", "yolo11n-pose", "yolo26n-pose"],
    tasks.OBBModel: ["yolov8n-obb", "yolo11n-obb", "yolo26n-obb"],
    tasks.ClassificationModel: ["yolov8n-cls", "yolo11n-cls", "yolo26n-cls"],
    tasks.WorldModel: ["yolov8n-world", "yolov8n-worldv2"],
    tasks.RTDETRDetectionModel: ["rtdetr-l"],
}
MODELS = [(cls, name) for cls, names in NAMES.items() for name in names]


def _build(cls: type, name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = cls(f"{name}.yaml", verbose=False).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.5)
        norm.momentum = 1.0
        norm.train()
    x = torch.rand(
        2, 3, 192 if cls is tasks.RTDETRDetectionModel else 128, 192 if cls is tasks.RTDETRDetectionModel else 128
    )
    with torch.no_grad():
        model(x)
    model.eval()
    return model, x[:1]


@pytest.mark.parametrize(("cls", "name"), MODELS, ids=[name for _, name in MODELS])
def test_pruned_equals_masked(cls, name) -> None:
    model, x = _build(cls, name)
    if cls is tasks.RTDETRDetectionModel:
        # its decoder sorts queries by score: near ties change places under float32 rounding, and outputs with them
        model, x = model.double(), x.double()
    for seed, (ratio, prune_head) in enumerate([(0.3, False), (0.6, True)]):
        graph = trace_yolo(model, prune_head=prune_head)
        assert not graph.unsupported
        plan = graph.random_plan(ratio, seed)
        assert plan.params() < graph.params()
        assert mask_error(model, plan, x, select=predictions) < 1e-4


def test_the_head_keeps_its_layers_unless_asked() -> None:
    model, _ = _build(tasks.DetectionModel, "yolov8n")
    head = f"model.{len(model.model) - 1}."

    def produced(graph) -> set[str]:
        return {g.name for g in graph.groups if not g.frozen and g.name.startswith(head)}

    assert not produced(trace_yolo(model))
    assert produced(trace_yolo(model, prune_head=True))


def test_tracing_leaves_cached_anchors_alone() -> None:
    model, x = _build(tasks.DetectionModel, "yolov8n")
    with torch.no_grad():
        before = model(x)[0]
        trace_yolo(model)
        assert torch.equal(model(x)[0], before)
