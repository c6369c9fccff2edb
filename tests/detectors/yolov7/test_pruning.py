"""All variants, in both forms and modes, prune exactly: zeroing what goes and removing it give the same output."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.detectors.yolov7.small import lively, small, training
from tests.graph.exactness import prunable_share
from yoloprune.detectors.yolov7.layers import RepConv
from yoloprune.detectors.yolov7.network import Network
from yoloprune.graph import Graph, mask_error, trace

FORMS = [(name, form) for name in ("yolov7-tiny", "yolov7", "yolov7-w6") for form in ("training", "deploy")]
FORMS += [("yolov7-e6", "training"), ("yolov7-e6e", "training"), ("yolov5n", "deploy")]
MORE = [("yolov7x", "training"), ("yolov7-d6", "training"), ("yolov7-e6e", "deploy"), ("yolov7-tiny-silu", "deploy")]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_pruned_equals_masked(name: str, form: str) -> None:
    network, image = lively(small(name, form))
    for mode in (Network.eval, training):
        graph = trace(mode(network), image, freeze=[lambda _, module: module is network.head])
        assert not graph.unsupported
        assert not graph.uncalled
        assert prunable_share(graph) > 0.95
        plan = graph.random_plan(0.5, seed=1)
        assert plan.params() < 0.35 * graph.params()
        assert mask_error(network, plan, image) < 1e-9


@pytest.mark.parametrize(("name", "form"), MORE)
def test_the_other_variants_prune_exactly_too(name: str, form: str) -> None:
    network, image = lively(small(name, form))
    plan = trace(network, image).random_plan(0.5, seed=1)
    assert mask_error(network, plan, image) < 1e-9


@pytest.mark.parametrize("name", ["yolov7", "yolov7-e6e", "yolov5n"])
def test_a_wrong_channel_would_show(name: str) -> None:
    network, image = lively(small(name))
    plan = trace(network, image).random_plan(0.5, seed=1)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    dims = [(key, dim) for key, kept in plan.keep.items() for dim in kept if key.endswith("weight") and dim == 1]
    for key, dim in dims[:: len(dims) // 6]:
        wrong = copy.deepcopy(plan)
        kept = wrong.keep[key][dim]
        kept[0] = next(i for i in range(shapes[key][dim]) if i not in kept)
        kept.sort()
        assert mask_error(network, wrong, image) > 1e-6, key


def test_a_plan_made_in_evaluation_holds_in_training_with_its_auxiliary_heads() -> None:
    network, image = lively(small("yolov7-w6"))
    plan = trace(network, image).random_plan(0.5, seed=2)
    widths = [conv.in_channels for conv in network.head.m2]
    assert mask_error(network.train(), plan, torch.cat([image, image.flip(3)])) < 1e-6
    pruned = plan.apply(network)
    assert all(conv.in_channels < width for conv, width in zip(pruned.head.m2, widths, strict=True))
    assert len(pruned(image)) == 2 * pruned.head.nl


def groups_of(graph: Graph, parameter: str, dim: int) -> list:
    return [group for group in graph.groups if (parameter, dim) in group.members]


def test_implicit_vectors_and_repconv_follow_the_layers_in_front_of_the_head() -> None:
    network, image = lively(small("yolov7"))
    graph = trace(network, image, freeze=[lambda _, module: module is network.head])
    last = len(network.model) - 1
    (group,) = groups_of(graph, f"model.{last}.ia.0.implicit", 1)
    assert not group.frozen
    members = [(f"model.{last}.m.0.weight", 1)]
    members += [(f"model.102.{branch}.weight", 0) for branch in ("rbr_dense.0", "rbr_1x1.0", "rbr_dense.1")]
    assert all(member in group.members for member in members)
    assert all(group.frozen for group in groups_of(graph, f"model.{last}.im.0.implicit", 1))
    pruned = graph.random_plan(0.5).apply(network)
    for layer in pruned.model:
        if isinstance(layer, RepConv):
            assert (layer.out_channels, layer.in_channels) == tuple(layer.rbr_dense[0].weight.shape[:2])
    for implicit in (*pruned.head.ia, *pruned.head.im):
        assert implicit.channel == implicit.implicit.shape[1]
    assert [conv.out_channels for conv in pruned.head.m] == [24, 24, 24]


def test_pruning_the_head_or_not_is_the_same_where_it_has_no_hidden_layers() -> None:
    network, image = lively(small("yolov7-w6"))
    kept, free = (trace(network, image, freeze=f) for f in ([lambda _, module: module is network.head], ()))
    assert (kept.frozen == free.frozen).all()


def test_repconv_with_its_identity_prunes_and_merges_exactly() -> None:
    block = nn.Sequential(RepConv(8, 16), RepConv(16, 16), RepConv(16, 16, g=2), nn.Conv2d(16, 4, 1)).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                nn.init.normal_(value)
    image = torch.rand(1, 8, 12, 12, dtype=torch.float64)
    plan = trace(block, image).random_plan(0.5)
    assert mask_error(block, plan, image) < 1e-9
    for network in (block, plan.apply(block)):
        expected = network(image)
        for layer in network[:3]:
            layer.fuse()
            layer.fuse()
        torch.testing.assert_close(network(image), expected)
        assert not [name for name, _ in network.named_modules() if name.endswith(("rbr_dense", "rbr_identity"))]
