"""What is saved opens in the official repositories, and beside it in plain torch."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.small_yolo import equal
from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.detectors.yolov7.network import Network
from yoloprune.detectors.yolov7.official import plain_path
from yoloprune.errors import UserError

from .official_files import fresh, opened, write

MODEL = "names save stride yaml nc hyp gr inplace traced training model"
LAYER = "i f type np"
ATTRIBUTES = {
    # attempt_load and model_info: stride, names, yaml; forward_once: save, traced; training: nc, hyp, gr
    "Model": MODEL,
    # forward: conv, bn, act; fuse folds bn into conv and deletes it
    "Conv": "conv bn act",
    "Concat": "d",
    "Shortcut": "d",
    "MP": "m",
    "SP": "m",
    "SPPF": "cv1 cv2 m",
    "Bottleneck": "cv1 cv2 add",
    "C3": "cv1 cv2 cv3 m",
    "SPPCSPC": "cv1 cv2 cv3 cv4 cv5 cv6 cv7 m",
    "ReOrg": "",
    "DownC": "cv1 cv2 cv3 mp",
    # fuse_repvgg_block reads each of them
    "RepConv": "deploy groups in_channels out_channels act rbr_dense rbr_1x1 rbr_identity",
    "ImplicitA": "channel mean std implicit",
    "ImplicitM": "channel mean std implicit",
}
HEAD = "nc no nl na m anchors anchor_grid grid stride export end2end concat include_nms dynamic onnx_dynamic inplace"
HEADS = {"Detect": HEAD, "IDetect": f"{HEAD} ia im", "IAuxDetect": f"{HEAD} ia im m2"}
"""What the code of WongKinYiu/yolov7 and of ultralytics/yolov5, releases 6 and 7, reads, by class."""


def pruned(name: str, form: str, tmp_path: Path, width: float = 0.25) -> Detector:
    """A detector of an official file with half of its GFLOPs left."""
    detector = detectors.load(write(fresh(name, form, nc=3, width=width), tmp_path / "old.pt"))
    plan = detector.trace().random_plan(ratio=0.3, seed=0)
    smaller = detector.holding(plan.apply(detector.network))
    smaller.block_foreign_training()
    return smaller


def _globals(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        operations = list(pickletools.genops(archive.read(name)))
    assert not any(operation.name == "STACK_GLOBAL" for operation, _, _ in operations)
    return {arg for operation, arg, _ in operations if operation.name == "GLOBAL"}


CASES = [
    ("yolov7-tiny", "deploy"), ("yolov7", "training"), ("yolov7", "deploy"), ("yolov7-e6", "training"),
    ("yolov5n", "deploy"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_pruned_network_is_saved_as_the_official_code_has_it(name: str, form: str, tmp_path: Path) -> None:
    smaller = pruned(name, form, tmp_path)
    assert smaller.save(tmp_path / "pruned.pt") is None
    named = _globals(tmp_path / "pruned.pt")
    own = {"collections OrderedDict", "__builtin__ set", "torch._utils _rebuild_tensor_v2"}
    own |= {"torch._utils _rebuild_parameter", "torch HalfStorage", "torch FloatStorage", "torch LongStorage"}
    for entry in named - own:
        assert entry.startswith(("models.common ", "models.yolo ", "torch.nn.modules.")), entry
    checkpoint = opened(tmp_path / "pruned.pt")
    assert checkpoint["epoch"] == -1 and checkpoint["optimizer"] is None and checkpoint["ema"] is None
    assert "training_results" in checkpoint
    model = checkpoint["model"]
    assert type(model).__name__ == "Model" and type(model).__module__ == "models.yolo"
    _assert_attributes(model, MODEL)
    for i, layer in enumerate(model.model):
        assert layer.i == i and layer.f == smaller.network.model[i].f
        assert layer.type == f"{type(layer).__module__}.{type(layer).__name__}"
        assert layer.np == sum(p.numel() for p in layer.parameters())
        _assert_attributes(layer, LAYER)
        for module in layer.modules():
            if type(module).__module__.startswith("models."):
                _assert_attributes(module, {**ATTRIBUTES, **HEADS}[type(module).__name__])
    assert isinstance(model.names, list), "over which the official test enumerates"
    assert all(tensor.dtype in (torch.float16, torch.int64) for tensor in model.state_dict().values())
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in smaller.network.state_dict().items()
    }


def _assert_attributes(module: nn.Module, names: str) -> None:
    missing = [name for name in names.split() if not hasattr(module, name)]
    assert not missing, f"{type(module).__name__} has no {missing}"


@pytest.mark.parametrize(("name", "form"), CASES[:2] + CASES[4:])
def test_both_files_hold_the_same_network(name: str, form: str, tmp_path: Path) -> None:
    smaller = pruned(name, form, tmp_path)
    smaller.save(tmp_path / "pruned.pt")
    content = torch.load(plain_path(tmp_path / "pruned.pt"), weights_only=True)
    assert content["tensors"]["model.0.conv.weight"].dtype == torch.float16
    both = [detectors.load(path) for path in (tmp_path / "pruned.pt", tmp_path / "pruned-plain.pt")]
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        one, two = (of.network(images) for of in both)
    assert torch.equal(one[0], two[0]) and all(map(torch.equal, one[1], two[1]))
    for of in both:
        assert of.family == smaller.family and of.names == smaller.names
        assert equal(of.network, smaller.network.half().float())
        again = of.trace().random_plan(ratio=0.2, seed=1)
        assert again.apply(of.network)(images)[0].shape == one[0].shape, "a pruned network is pruned again"


def test_weights_beyond_float16_are_kept_in_float32(tmp_path: Path) -> None:
    network = fresh("yolov7-tiny", nc=3, width=0.25)
    with torch.no_grad():
        network.model[0].bn.running_var[0] = 1e5
    detector = detectors.wrap(network)
    assert "model.0.bn.running_var" in detector.save(tmp_path / "wide.pt")
    assert equal(detectors.load(tmp_path / "wide.pt").network, network)
    assert equal(detectors.load(tmp_path / "wide-plain.pt").network, network)


def test_official_training_of_a_pruned_network_stops(tmp_path: Path) -> None:
    pruned("yolov7-tiny", "deploy", tmp_path).save(tmp_path / "pruned.pt")
    rows = opened(tmp_path / "pruned.pt")["model"].yaml
    first = rows["backbone"][0][2]
    assert "was pruned by yoloprune" in first
    with pytest.raises(SyntaxError):  # as the official parse_model takes a row's module
        eval(first)
    detectors.load(tmp_path / "pruned.pt").save(tmp_path / "again.pt")
    assert opened(tmp_path / "again.pt")["model"].yaml["backbone"][0][2] == first
    detectors.wrap(fresh("yolov7-tiny", nc=3)).save(tmp_path / "full.pt")
    assert opened(tmp_path / "full.pt")["model"].yaml["backbone"][0][2] == "Conv"


def _without_layers(content: dict[str, Any]) -> None:
    content["architecture"]["layers"] = []


def _foreign_kind(content: dict[str, Any]) -> None:
    content["architecture"]["layers"][0]["modules"][0][1] = "Linear"


def _more_settings(content: dict[str, Any]) -> None:
    content["architecture"]["layers"][0]["modules"][0][2]["forward"] = 1


def _large_setting(content: dict[str, Any]) -> None:
    for row in content["architecture"]["layers"][8]["modules"]:
        row[2].update({"kernel_size": 10**9} if row[1] == "MaxPool2d" else {})


def _lost_tensor(content: dict[str, Any]) -> None:
    del content["tensors"]["model.0.bn.weight"]


def _tensor_of_nothing(content: dict[str, Any]) -> None:
    content["tensors"]["model.0.x.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    "change", [_without_layers, _foreign_kind, _more_settings, _large_setting, _lost_tensor, _tensor_of_nothing]
)
def test_plain_files_that_describe_no_network(change: Any, tmp_path: Path) -> None:
    detectors.wrap(fresh("yolov7-tiny", nc=3, width=0.125)).save(tmp_path / "x.pt")
    content = torch.load(tmp_path / "x-plain.pt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.pt")
    with pytest.raises(UserError, match=r"changed\.pt' is truncated or damaged"):
        detectors.load(tmp_path / "changed.pt")


def test_a_network_in_memory_is_copied() -> None:
    network = fresh("yolov7-tiny", nc=3, width=0.125)
    detector = detectors.wrap(network)
    assert isinstance(detector.network, Network) and detector.network is not network
    assert detectors.wrap(detector.model).family == "v7"
