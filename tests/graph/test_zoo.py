"""A part of benchmarks/zoo.py that is small enough for every run: architectures of other libraries are exact too."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_map_only

from benchmarks.zoo_models import build
from yoloprune.graph import mask_error, trace

NAMES = {
    "torchvision": [
        *("convnext_tiny", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf"),
        *("squeezenet1_1", "swin_t", "swin_v2_t", "vit_b_32", "lraspp_mobilenet_v3_large", "r3d_18"),
        *("fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn"),
    ],
    "timm": [
        *(
            "cait_xxs24_224",
            "convnextv2_atto",
            "cs3darknet_s",
            "edgenext_xx_small",
            "efficientformer_l1",
            "ghostnet_050",
        ),
        *("levit_128s", "mixer_s32_224", "mobileone_s0", "mobilevit_xxs", "pvt_v2_b0", "res2net50_14w_8s"),
        *("skresnet18", "xcit_nano_12_p16_224"),
    ],
    "transformers": ["BERT", "Llama"],
    "torch_geometric": ["GAT", "GraphSAGE"],
}


@pytest.mark.parametrize(("library", "name"), [(library, name) for library in NAMES for name in NAMES[library]])
def test_pruned_equals_masked(library, name) -> None:
    pytest.importorskip(library)
    model, inputs = build(f"{library} {name}")
    model = model.double()
    inputs = tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    graph = trace(model, inputs)
    plan = graph.random_plan(0.4, 0)
    assert plan.params() < 0.85 * graph.params()
    assert mask_error(model, plan, inputs) < 1e-9
