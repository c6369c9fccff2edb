"""Both layouts of outputs in ONNX Runtime, of pruned networks and images of other sizes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.detectors.yolov7.small import lively, small
from yoloprune.graph import trace


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("official", [False, True], ids=["v8", "official"])
@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov7-w6", "yolov5n"])
def test_onnx_runtime_gives_the_same(name: str, official: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network, image = lively(small(name))
    network = trace(network, image).random_plan(0.3).apply(network).float().eval().fuse(verbose=False)
    network.head.export, network.head.official = True, official
    path = tmp_path / "network.onnx"
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    with torch.no_grad():
        torch.onnx.export(network, (image.float(),), str(path), input_names=["images"], dynamic_axes=axes, dynamo=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for other in (image.float(), torch.rand(2, 3, 192, 256)):
        with torch.no_grad():
            ours = network(other)
        (theirs,) = session.run(None, {"images": other.numpy()})
        cells = sum(3 * (other.shape[2] // int(s)) * (other.shape[3] // int(s)) for s in network.stride)
        assert theirs.shape == ((len(other), cells, 8) if official else (len(other), 7, cells))
        rows = (0, 1) if official else (0, 2)
        scale = ours.abs().amax(rows, keepdim=True).numpy()
        assert np.abs((theirs - ours.numpy()) / scale).max() < 1e-4


def test_one_class_is_scored_by_objectness_alone() -> None:
    network, image = lively(small("yolov7-tiny", nc=1))
    with torch.no_grad():
        y, _ = network(image)
        network.head.official = True
        decoded, raw = network(image)
    assert torch.equal(y[:, 4], decoded[..., 4])
    assert torch.equal(y[:, :4], decoded[..., :4].mT)
    assert torch.equal(decoded[:, 0, 4], raw[0][:, 0, 0, 0, 4].sigmoid())


def test_scores_are_objectness_times_class() -> None:
    network, image = lively(small("yolov7-tiny", nc=3))
    with torch.no_grad():
        y, _ = network(image)
        network.head.official = True
        decoded, _ = network(image)
    torch.testing.assert_close(y[:, 4:].mT, decoded[..., 5:] * decoded[..., 4:5])
