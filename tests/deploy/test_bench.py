"""Timing networks in their runtimes, on the embedded digits detector."""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from yoloprune import detectors
from yoloprune.demo.digits import WEIGHTS
from yoloprune.deploy import bench_worker
from yoloprune.deploy.backends import backend_of, check_backend, compiled
from yoloprune.deploy.bench import Bench, Row, Wanted, _worker, bench
from yoloprune.deploy.layers import onnx_layers, torch_layers
from yoloprune.errors import UserError
from yoloprune.progress import Progress
from yoloprune.report.bench import bench_table, draw_bench, save_bench


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory) -> Path:
    return detectors.load(WEIGHTS).export(tmp_path_factory.mktemp("export") / "digits.onnx", imgsz=64)


@pytest.mark.slow
def test_a_checkpoint_and_an_export_side_by_side(onnx_file, few_digits) -> None:
    wanted = Wanted(
        backends=("onnxruntime", "torch"), sizes=(64,), batches=(1, 2), threads=(1,), seconds=0.2, data=str(few_digits)
    )
    found = bench([WEIGHTS, onnx_file], wanted, Progress())
    cases = [(Path(row.network).name, row.backend, row.batch, row.precision) for row in found.rows]
    assert sorted(cases) == sorted(
        [
            *((WEIGHTS.name, backend, batch, "f32") for backend in ("onnxruntime", "torch") for batch in (1, 2)),
            ("digits.onnx", "onnxruntime", 1, "as exported"),
        ]
    )
    for row in found.rows:
        assert row.ms > 0 and row.cpu_ms > 0 and row.rounds >= 5
        assert row.ms_quartiles[0] <= row.ms <= row.ms_quartiles[1]
        assert row.images_per_second == pytest.approx(1000 * row.batch / row.ms)
        assert row.megabytes > 0.1
        assert 0.0 <= row.metrics["mAP50-95"] <= 1.0
    one, other = (next(r for r in found.rows if r.backend == name) for name in ("onnxruntime", "torch"))
    assert one.metrics == other.metrics  # the same network on the same images
    if sys.platform == "linux":
        assert one.peak_mb < other.peak_mb  # no torch is loaded beside ONNX Runtime


def test_a_slow_network_is_seen_to_be_slow(monkeypatch) -> None:
    naps = {"quick": 0.001, "slow": 0.02}
    monkeypatch.setattr(bench_worker, "_call", lambda case: lambda: time.sleep(naps[case["file"]]))
    timed = bench_worker.measured([{"file": "quick"}, {"file": "slow"}], seconds=0.1, least=3)
    (quick, idle), (slow, _) = timed
    assert len(quick) == len(slow) == len(idle) >= 3
    assert min(slow) >= 20 > np.median(quick)
    assert np.median(idle) < 5  # sleeping takes no processor time


def test_what_a_backend_cannot_do_is_said(onnx_file, tmp_path) -> None:
    found = bench([onnx_file], Wanted(sizes=(96,), seconds=0.05), Progress())
    assert found.notes == ["digits.onnx takes 64×64 px alone."]
    with pytest.raises(UserError, match=r"Nothing is left to measure: torch has no int8 here"):
        bench([WEIGHTS], Wanted(backends=("torch",), precisions=("int8",)), Progress())
    with pytest.raises(UserError, match="int8 needs images"):
        bench([WEIGHTS], Wanted(precisions=("int8",)), Progress())
    (tmp_path / "broken.onnx").write_text("hello")
    with pytest.raises(UserError, match="cannot be loaded"):
        bench([tmp_path / "broken.onnx"], Wanted(), Progress())


def test_a_process_that_dies_is_a_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="onnxruntime ended with code 1"):
        _worker("onnxruntime", [], 0.1, 1)


def test_backends_of_files() -> None:
    assert backend_of(Path("a.onnx")) == "onnxruntime"
    with pytest.raises(UserError, match="neither a checkpoint"):
        backend_of(Path("a.tflite"))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch) -> None:
    monkeypatch.setattr("yoloprune.deploy.formats.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"backend openvino needs .*'openvino'; run: pip install 'yoloprune\[openvino\]'"
    ):
        check_backend("openvino")
    with pytest.raises(UserError, match=r"backend tensorrt needs the Python package 'tensorrt'; install it first"):
        check_backend("trt")


def test_torch_runs_in_the_precision_of_the_network() -> None:
    seen = []
    network = torch.nn.Conv2d(3, 4, 1).to(torch.bfloat16)
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    compiled(network)(np.zeros((1, 3, 8, 8), np.float32))
    assert seen == [torch.bfloat16]


def test_layers_of_torch_and_of_onnx(onnx_file) -> None:
    detector = detectors.load(WEIGHTS)
    layers = torch_layers(detector, imgsz=64)
    kinds = {layer.name: layer.kind for layer in layers}
    assert kinds["model.0.conv"] == "Conv2d" and kinds["model.2"] == "C2f" and all(layer.ms >= 0 for layer in layers)
    nodes = onnx_layers(onnx_file, np.zeros((1, 3, 64, 64), np.float32), threads=1, rounds=3)
    assert sum(node.kind == "Conv" for node in nodes) > 20
    assert all(node.ms >= 0 for node in nodes)


def test_table_csv_and_picture(tmp_path) -> None:
    common = {"version": "1.0", "batch": 1, "threads": 1, "rounds": 9, "megabytes": 12.5, "peak_mb": 80.0}
    rows = [
        Row(
            network="a/yolov8n.pt",
            backend=backend,
            precision="f32",
            imgsz=(320, 320),
            ms=ms,
            ms_quartiles=(ms - 1, ms + 2),
            cpu_ms=ms,
            cpu_ms_quartiles=(ms, ms),
            images_per_second=1000 / ms,
            metrics={"mAP50-95": 0.37, "F1 (conf .25)": 0.5},
            **common,
        )
        for backend, ms in (("onnxruntime", 20.0), ("openvino", 8.0))
    ]
    found = Bench(rows, "a processor", [])
    table = bench_table(found)
    assert "precision f32, px 320, batch 1, threads 1" in table.caption
    assert [str(cell) for cell in table.columns[2].cells] == ["20.0", "8.00"]
    assert [row.style for row in table.rows] == [None, "bold"]
    save_bench(found, tmp_path / "b.csv")
    written = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [(row["backend"], float(row["ms"]), row["mAP50-95"]) for row in written] == [
        ("onnxruntime", 20.0, "0.37"),
        ("openvino", 8.0, "0.37"),
    ]
    draw_bench(found, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    other = bench_table(Bench([rows[0], replace(rows[1], network="b/yolov8n.pt")], "a processor", []))
    assert list(other.columns[0].cells) == ["a/yolov8n.pt", "b/yolov8n.pt"]
