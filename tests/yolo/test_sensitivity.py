"""Sensitivity of single layers, on the embedded digits detector."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import ultralytics
from small_yolo import write_data

from yoloprune import prune
from yoloprune.errors import UserError
from yoloprune.report.sensitivity import save_sensitivity
from yoloprune.yolo import checkpoints, digits
from yoloprune.yolo.divergence import prediction_divergence, relative_change
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.planning.prior import prior, read_measured
from yoloprune.yolo.probe import dense_predictions
from yoloprune.yolo.run.data import calibration_batches
from yoloprune.yolo.sensitivity import Sensitivity, sensitivity
from yoloprune.yolo.trace import trace_yolo

FEW = {"imgsz": 64, "images": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(digits.write(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="module")
def table(data) -> Sensitivity:
    return sensitivity(checkpoints.load(digits.WEIGHTS), data, ratios=(0.1, 0.75), **FEW)


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


def test_the_error_is_that_of_the_network_with_these_channels_zeroed(data) -> None:
    yolo = checkpoints.load(digits.WEIGHTS)
    before = {name: tensor.clone() for name, tensor in yolo.model.state_dict().items()}
    seen = []
    found = sensitivity(yolo, data, ratios=(0.5,), criterion="l2", progress=lambda x: seen.extend(x) or x[:], **FEW)
    assert len(seen) == len(found.rows)
    assert all(torch.equal(tensor, before[name]) for name, tensor in yolo.model.state_dict().items())
    graph = trace_yolo(yolo.model)
    (batch,) = calibration_batches(yolo, data, images=2, imgsz=64, batch=8, device=torch.device("cpu"))
    row = max(found.rows, key=lambda row: row.errors[0])
    removed = next(trial for trial in seen if set(trial) <= set(row.components))
    mask = np.zeros(graph.n_components, bool)
    mask[removed] = True
    plan = graph.plan(mask)
    masked = plan.mask_(copy.deepcopy(yolo.model))
    with torch.no_grad():
        got, want = (list(dense_predictions(network(batch["img"]))) for network in (masked, yolo.model))
    assert row.errors[0] == pytest.approx(float(prediction_divergence(got, want, 16)), rel=1e-2)
    assert row.saved[0] == pytest.approx(found.gflops * (1 - plan.macs() / graph.macs()))


def mean_scores(graph, scores, rows) -> np.ndarray:
    """Of each row's set, the mean over ratios of the mean score of the channels that were removed."""
    found = []
    for row in rows:
        parts = np.array_split(np.sort(row.components), len(row.components) // row.width)
        weakest = [np.sort(scores[part]) for part in parts]
        found.append(np.mean([np.mean([w[:n] for w in weakest]) for n in row.removed]))
    return np.array(found)


def test_the_prior_puts_the_measured_order_between_sets(table) -> None:
    graph = trace_yolo(checkpoints.load(digits.WEIGHTS).model)
    scores = np.random.default_rng(0).uniform(1, 2, graph.n_components)
    multipliers = prior(table.rows, graph, scores)
    assert multipliers.shape == (graph.n_components,)
    assert (multipliers > 0).all()
    factors = np.array([multipliers[row.components[0]] for row in table.rows])
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-9)
    seen = np.array([row.per_gflop for row in table.rows])
    ratio = seen / (mean_scores(graph, scores, table.rows) * factors)
    certain = seen > 1e-2 * np.median(seen)  # what is far below is rounding, and raised
    assert certain.sum() > 20
    np.testing.assert_allclose(ratio[certain], ratio[certain][0], rtol=1e-6)
    assert (ratio[~certain] <= ratio[certain][0] * (1 + 1e-6)).all()


def test_a_run_ranks_layers_by_a_table(table, data, tmp_path) -> None:
    file = tmp_path / "sensitivity.csv"
    save_sensitivity(table, file)
    rows = read_measured(file)
    assert {(r.layers, r.removed, r.per_gflop) for r in rows} == {
        (r.layers, r.removed, r.per_gflop) for r in table.rows
    }
    graph = trace_yolo(checkpoints.load(digits.WEIGHTS).model)
    scores = np.ones(graph.n_components)
    np.testing.assert_array_equal(prior(rows, graph, scores), prior(table.rows, graph, scores))

    def kept(**options) -> dict[str, float]:
        result = prune(digits.WEIGHTS, target_ratio=0.7, criterion="l2", recover=False, device="cpu", **options)
        return {name: after / before for name, (before, after) in result.report.widths.items()}

    by_table = kept(sensitivity=file)
    assert by_table != kept() != kept(isomorphic=True)
    assert by_table[table.ranked()[-1].layers[0]] < by_table[table.ranked()[0].layers[0]]


def test_a_table_of_one_head_is_not_used_for_the_other(table, data, tmp_path) -> None:
    file = tmp_path / "sensitivity.csv"
    save_sensitivity(table, file)
    few = {"imgsz": 64, "calibration_images": 8, "max_pruning_ratio": 1.0, "device": "cpu"}
    result = prune(digits.WEIGHTS, sensitivity=file, target_ratio=0.7, data=data, val=True, **few)
    assert not result.report.head
    assert "mAP50-95" in result.metrics["after"]


def test_a_table_of_another_head_or_file_is_refused(table, tmp_path) -> None:
    file = tmp_path / "sensitivity.csv"
    save_sensitivity(table, file)
    options = {"target_ratio": 0.7, "criterion": "l2", "recover": False, "device": "cpu"}
    with pytest.raises(UserError, match=r"no row for model\.22"):
        prune(digits.WEIGHTS, sensitivity=file, prune_head=True, project=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="give one of them"):
        prune(digits.WEIGHTS, sensitivity=file, isomorphic=True, **options)
    with pytest.raises(UserError, match="cannot be read"):
        prune(digits.WEIGHTS, sensitivity=tmp_path / "missing.csv", **options)
    for text in ("", "a,b\n1,2\n", "layers,removed,error_per_gflop\nx,one,1\n"):
        file.write_text(text)
        with pytest.raises(UserError, match="CSV file"):
            prune(digits.WEIGHTS, sensitivity=file, **options)


def test_the_head_is_measured_on_request(data) -> None:
    found = sensitivity(checkpoints.load(digits.WEIGHTS), data, ratios=(0.5,), criterion="l2", prune_head=True, **FEW)
    assert any(row.name.startswith("22.cv3") for row in found.rows)


def test_a_head_without_boxes_is_measured_by_its_outputs(tmp_path) -> None:
    yolo = YOLO(ultralytics.YOLO("yolov8n-cls.yaml"))
    folder = write_data(tmp_path / "cls", ["a", "b"], task="classify")
    found = sensitivity(yolo, str(folder), ratios=(0.5,), criterion="l2", **FEW)
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
        sensitivity(checkpoints.load(digits.WEIGHTS), data, **{**FEW, **wrong})
