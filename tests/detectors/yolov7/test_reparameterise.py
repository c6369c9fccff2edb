"""Deploy form: the published names and shapes, and the same outputs, before and after pruning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.detectors.yolov7.references import VARIANTS, assert_digest, reference, rule
from tests.detectors.yolov7.small import lively, small
from yoloprune.detectors.yolov7 import architecture, build
from yoloprune.detectors.yolov7.network import Network
from yoloprune.detectors.yolov7.reparameterise import deploy_form
from yoloprune.graph import trace


def evaluated(network: Network, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network.eval()(image)[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_those_of_the_published_deploy_form(name: str) -> None:
    expected = reference(name, "deploy")
    with torch.device("meta"):
        network = deploy_form(build(name, "training"))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected["keys"]
    assert sum(p.numel() for p in network.fuse(verbose=False).parameters()) == expected["fused_params"]
    published = architecture(name, "deploy")
    assert network.yaml["backbone"] == published["backbone"]
    assert network.yaml["head"] == published["head"]
    with torch.device("meta"):
        built = Network.from_yaml(network.yaml)
    assert network.save == built.save
    assert [(m.i, m.f, m.type) for m in network.model] == [(m.i, m.f, m.type) for m in built.model]


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7"])
def test_outputs_are_the_official_ones_of_the_training_form(name: str) -> None:
    expected, made = reference(name, "training"), rule()
    network = build(name, "training").double()
    network.load_state_dict(made.fill(network.state_dict()))
    network.head.official = True
    image = made.image(expected["size"])
    deployed = deploy_form(network)
    assert_digest(evaluated(deployed, image), expected["decoded"])
    assert_digest(evaluated(deployed.fuse(verbose=False), image), expected["decoded"])


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov7-e6e"])
def test_outputs_stay_after_pruning(name: str) -> None:
    network, image = lively(small(name))
    pruned = trace(network, image).random_plan(0.4, seed=3).apply(network)
    before = {key: value.clone() for key, value in pruned.state_dict().items()}
    expected = evaluated(pruned, image)
    deployed = deploy_form(pruned)
    scale = expected.abs().amax((0, 2), keepdim=True)
    assert ((evaluated(deployed, image) - expected) / scale).abs().max() < 1e-5
    assert ((evaluated(deployed.fuse(verbose=False), image) - expected) / scale).abs().max() < 1e-5
    assert not any("implicit" in key or "m2" in key or "bn" in key for key in deployed.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in pruned.state_dict().items())
    assert expected.std() > 0


def test_one_convolution_is_left_of_repconv() -> None:
    network, _ = lively(small("yolov7"))
    merged = deploy_form(network).fuse(verbose=False)
    assert [layer.rbr_reparam.kernel_size for layer in merged.model[-4:-1]] == [(3, 3)] * 3
    assert not any("rbr_dense" in key or "rbr_1x1" in key for key in merged.state_dict())


def test_a_network_in_deploy_form_stays_as_it_is() -> None:
    network = small("yolov7-tiny", "deploy")
    again = deploy_form(network)
    assert again is not network
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
