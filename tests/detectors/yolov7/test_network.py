"""Networks of YOLOv7 and YOLOv5 beside the official code's: names, shapes, counts, GFLOPs and outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.detectors.yolov7.references import NAMED, WITH_OUTPUTS, assert_digest, reference, rule
from yoloprune.detectors.ultralytics.cost import gflops
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
        with torch.device("meta"):
            network = build(name, "training", nc=3)
        assert network.names == {0: "0", 1: "1", 2: "2"}
        assert all(conv.out_channels == 24 for conv in network.head.m)


@pytest.mark.parametrize(("name", "form", "says"), [("yolov7-tinny", "deploy", "yolov7-tiny"), ("yolov7", "x", "form")])
def test_what_there_is_not_is_refused_by_name(name: str, form: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(name, form)


def test_an_unknown_layer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="layer 0 is a 'eval'"):
        Network.from_yaml({"nc": 1, "anchors": [], "backbone": [[-1, 1, "eval", []]], "head": []})


# Published figures are those of fused networks; d6's is that of its training form, as its parameters are.
PUBLISHED_GFLOPS = [
    ("yolov7", "deploy", 640, 104.7),
    ("yolov7x", "deploy", 640, 189.9),
    ("yolov7-w6", "deploy", 1280, 360.0),
    ("yolov7-e6", "deploy", 1280, 515.2),
    ("yolov7-d6", "training", 1280, 806.8),
    ("yolov7-e6e", "deploy", 1280, 843.2),
    ("yolov5s", "deploy", 640, 16.5),
    ("yolov5m", "deploy", 640, 49.0),
    ("yolov5l", "deploy", 640, 109.1),
    ("yolov5x", "deploy", 640, 205.7),
]


@pytest.mark.parametrize(("name", "form", "imgsz", "published"), PUBLISHED_GFLOPS)
def test_gflops_are_the_published_ones(name: str, form: str, imgsz: int, published: float) -> None:
    with torch.device("meta"):
        network = build(name, form).eval().fuse(verbose=False)
        assert gflops(network, imgsz) == pytest.approx(published, rel=0.005)


def test_gflops_of_tiny_are_the_published_ones_with_its_batch_norms() -> None:
    with torch.device("meta"):
        assert gflops(build("yolov7-tiny-silu", "deploy"), 640) == pytest.approx(13.8, rel=0.005)


def test_info_gives_the_gflops_of_a_network_that_begins_with_reorg() -> None:
    with torch.device("meta"):
        network = build("yolov7-w6", "deploy")
        assert network.info(imgsz=1280)[3] == gflops(network, 1280)
