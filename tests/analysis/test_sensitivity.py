"""Sensitivity of single layers, on the embedded digits detector."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import ultralytics

from tests.small_yolo import write_data
from yoloprune import detectors
from yoloprune.analysis import sensitivity as module
from yoloprune.analysis.sensitivity import Sensitivity, sensitivity
from yoloprune.demo import digits
from yoloprune.detectors.base import relative_change
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.differences import prediction_divergence
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.probe import dense_predictions
from yoloprune.errors import UserError
from yoloprune.progress import Progress

FEW = {"imgsz": 64, "images": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def data(all_digits) -> str:
    return str(all_digits)


@pytest.fixture(scope="module")
def table(data) -> Sensitivity:
    return sensitivity(detectors.load(digits.WEIGHTS), data, ratios=(0.1, 0.75), **FEW)


def test_every_set_is_measured_in_the_order_of_the_network(table) -> None:
    names = [row.name for row in table.rows]
    assert names[:4] == ["0", "1", "2.cv1", "2.cv2"]
    assert len(names) == len(set(names)) > 30
    cut = next(row for row in table.rows if row.name == "2.cv1")  # whose output is cut into halves
    assert len(cut.components) == 2 * cut.width
    assert cut.removed == (round(0.1 * cut.width), round(0.75 * cut.width))


def test_more_is_worse_and_saves_more(table) -> None:
    beyond_rounding = [row for row in table.rows if max(row.errors) > 1e-3]
    assert len(beyond_rounding) > 20
    assert np.mean([row.errors[1] > row.errors[0] for row in beyond_rounding]) > 0.9
    assert all(0 < row.saved[0] < row.saved[1] < table.gflops for row in table.rows)
    sensitivities = [row.per_gflop for row in table.ranked()]
    assert sensitivities == sorted(sensitivities, reverse=True)


def test_the_error_is_that_of_the_network_with_these_channels_zeroed(data, monkeypatch) -> None:
    detector = detectors.load(digits.WEIGHTS)
    network = detector.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    told, seen, own = [], [], module._try
    monkeypatch.setattr(module, "_try", lambda *args: seen.append(args[-1]) or own(*args))
    progress = Progress()
    progress.part = lambda what, done, total, detail="": told.append((what, done, total))
    with progress.phase("Measure"):
        found = sensitivity(detector, data, ratios=(0.5,), criterion="l2", **FEW)
    assert told[-1] == ("trial", len(found.rows), len(found.rows))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    graph = detector.trace()
    (batch,) = detector.calibration_batches(data, images=2, imgsz=64, batch=8, device=torch.device("cpu"))
    row = max(found.rows, key=lambda row: row.errors[0])
    removed = next(trial for trial in seen if set(trial) <= set(row.components))
    mask = np.zeros(graph.n_components, bool)
    mask[removed] = True
    plan = graph.plan(mask)
    masked = plan.mask_(copy.deepcopy(network))
    with torch.no_grad():
        got, want = (list(dense_predictions(net(batch["img"]), net.model[-1])) for net in (masked, network))
    assert row.errors[0] == pytest.approx(float(prediction_divergence(got, want, 16)), rel=1e-2)
    assert row.saved[0] == pytest.approx(found.gflops * (1 - plan.macs() / graph.macs()))


def test_the_head_is_measured_on_request(data) -> None:
    found = sensitivity(detectors.load(digits.WEIGHTS), data, ratios=(0.5,), criterion="l2", prune_head=True, **FEW)
    assert any(row.name.startswith("22.cv3") for row in found.rows)


def test_a_head_without_boxes_is_measured_by_its_outputs(tmp_path) -> None:
    yolo = YOLO(ultralytics.YOLO("yolov8n-cls.yaml"))
    folder = write_data(tmp_path / "cls", ["a", "b"], task="classify")
    found = sensitivity(UltralyticsDetector(yolo), str(folder), ratios=(0.5,), criterion="l2", **FEW)
    assert found.measure == "relative squared change of the head's outputs"
    assert all(np.isfinite(row.errors[0]) and row.errors[0] >= 0 for row in found.rows)


def test_relative_change_of_nested_outputs() -> None:
    want = (torch.tensor([3.0, 4.0]), {"a": torch.ones(4)})
    got = (torch.tensor([3.0, 5.0]), {"a": torch.ones(4)})
    assert float(relative_change(got, want)) == pytest.approx((1 / 25 + 0) / 2)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ratios": (0.5, 1.0)}, "between 0 and 1"),
        ({"ratios": ()}, "between 0 and 1"),
        ({"images": 0}, "images=0"),
        ({"imgsz": 8}, "imgsz=8"),
        ({"criterion": "output_eror"}, "did you mean 'output_error'"),
    ],
)
def test_wrong_values(data, wrong, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        sensitivity(detectors.load(digits.WEIGHTS), data, **{**FEW, **wrong})
