"""Networks of YOLOv7 and YOLOv5 beside the official code's: names, shapes, counts, GFLOPs and outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.detectors.yolov7.references import NAMED, WITH_OUTPUTS, assert_digest, reference, rule
from yoloprune.detectors.yolov7 import NAMES, build
from yoloprune.detectors.yolov7.network import Network
from yoloprune.errors import UserError


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "form"), NAMED)
def test_names_shapes_and_counts_are_the_official_ones(name: str, form: str) -> None:
    expected = reference(name, form)
    with torch.device("meta"):
        network = build(name, form)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == expected["keys"]
    assert list(found) == list(expected["keys"])
    assert parameters(network) == expected["yaml_params"]
    assert network.stride.tolist() == expected["stride"]
    assert parameters(network.fuse(verbose=False)) == expected["fused_params"]
    assert network.is_fused()


@pytest.mark.parametrize(("name", "form"), WITH_OUTPUTS)
def test_outputs_are_the_official_ones(name: str, form: str) -> None:
    expected, made = reference(name, form), rule()
    network = build(name, form).double().eval()
    network.load_state_dict(made.fill(network.state_dict()))
    network.head.official = True
    image = made.image(expected["size"])
    with torch.no_grad():
        decoded, raw = network(image)
        fused, _ = network.fuse(verbose=False)(image)
    assert_digest(decoded, expected["decoded"])
    assert_digest(fused, expected["decoded"])
    assert len(raw) == len(expected["raw"])
    for tensor, digest in zip(raw, expected["raw"], strict=True):
        assert_digest(tensor, digest)


@pytest.mark.parametrize(
    ("name", "published"),
    [("yolov5n", 1_872_157), ("yolov5s", 7_235_389), ("yolov5m", 21_190_557), ("yolov5l", 46_563_709)]
    + [("yolov5x", 86_749_405)],
)
def test_yolov5_has_the_published_parameters(name: str, published: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name)) == published


def test_yolov5n_has_the_names_and_shapes_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        found = {key: list(value.shape) for key, value in build("yolov5n").state_dict().items()}
    assert found == reference("yolov5n")["keys"]


def test_every_name_builds_for_any_number_of_classes() -> None:
    for name in NAMES:
        for form in ("training", "deploy"):
            with torch.device("meta"):
                network = build(name, form, nc=3)
            assert network.names == {0: "0", 1: "1", 2: "2"}
            assert all(conv.out_channels == 24 for conv in network.head.m)


@pytest.mark.parametrize(("name", "form", "says"), [("yolov7-tinny", "deploy", "yolov7-tiny"), ("yolov7", "x", "form")])
def test_what_there_is_not_is_refused_by_name(name: str, form: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(name, form)


def test_an_unknown_layer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="layer 0 is a 'eval'"):
        Network.from_yaml({"nc": 1, "anchors": [], "backbone": [[-1, 1, "eval", []]], "head": []})
