"""The probe reaches every prediction of every head, and asks for no labels."""

from __future__ import annotations

import pytest
import torch
import ultralytics

from yoloprune.detectors.ultralytics.probe import sampled_fisher_loss

MODELS = [
    "yolov8n.yaml", "yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-obb.yaml", "yolov8n-cls.yaml", "yolov10n.yaml",
    "yolo26n.yaml", "rtdetr-l.yaml",
]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_output_layer_gets_a_gradient(name):
    kind = ultralytics.RTDETR if name.startswith("rtdetr") else ultralytics.YOLO
    model = kind(name).model.eval()
    model.requires_grad_(True)
    value = sampled_fisher_loss()(model, {"img": torch.rand(1, 3, 160, 160)})
    assert value.dim() == 0
    assert torch.isfinite(value)
    value.backward()
    head = model.model[-1]
    missing = [
        n
        for n, p in head.named_parameters()
        if p.grad is None and "dfl" not in n and not n.startswith(("dec_score_head", "dec_bbox_head", "denoising"))
    ]
    assert not missing


def test_squared_gradients_are_the_fisher_information_of_the_scores():
    logits = torch.tensor([[[-2.0, 0.0, 1.0]]], requires_grad=True)  # one image, one class, three anchors

    class Model(torch.nn.Module):
        model = (None,)

        def forward(self, x):
            return {"scores": logits}

    probe, total, rounds = sampled_fisher_loss(0), torch.zeros(3), 4000
    for _ in range(rounds):
        (gradient,) = torch.autograd.grad(probe(Model(), {"img": None}), logits)
        total += gradient[0, 0].square() / rounds
    p = logits.detach().sigmoid()[0, 0]
    torch.testing.assert_close(total, p * (1 - p), rtol=0.1, atol=0)
