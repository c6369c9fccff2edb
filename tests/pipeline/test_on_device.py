"""Targets in milliseconds and speed-ups."""

from __future__ import annotations

import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from yoloprune import detectors, execution, prune
from yoloprune.cli.app import app
from yoloprune.demo import digits
from yoloprune.deploy.cost_table import CostTable, Device
from yoloprune.errors import UserError
from yoloprune.pipeline import on_device
from yoloprune.pipeline.options import Options

QUICK = {"imgsz": 64, "device": "cpu", "criterion": "l2", "recover": False}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own, and measurements that are over at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(on_device, "_SECONDS", 0.2)
    return tmp_path / "cache"


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """A table by a formula: a microsecond for each channel in, and blocks of 16 out."""
    monkeypatch.setattr(
        "yoloprune.deploy.cost_table._milliseconds", lambda d, s, i, o, p: 0.001 * i * -(-o // 16) + 0.01
    )
    path = tmp_path / "table.json"
    given = ["profile", str(digits.WEIGHTS), "-o", str(path), "--imgsz", "64", "--threads", "1"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    monkeypatch.undo()
    return path


def test_a_run_here_is_measured_as_a_whole(cache, monkeypatch) -> None:
    monkeypatch.setattr("yoloprune.deploy.cost_table._milliseconds", lambda d, s, i, o, p: 1e-7 * i * o * s.height**2)
    monkeypatch.setattr(on_device, "_ROUNDS", 2)
    result = prune(digits.WEIGHTS, target_speedup=1.05, backend="onnxruntime", threads=1, **QUICK)
    (said,) = (note for note in result.report.notes if note.startswith("Measured "))
    ms, own, asked = (float(x) for x in re.findall(r"([\d.]+) ms", said))
    assert ms > 0 and asked == pytest.approx(own / 1.05, abs=0.02)
    assert "onnxruntime" in said and "1 thread" in said
    assert result.plan is not None and len(list(cache.rglob("onnxruntime-*.json"))) == 1


def test_a_time_that_seems_met_is_measured_again(monkeypatch) -> None:
    device = object.__new__(on_device.OnDevice)
    device.here, device.device, device.own_ms, device._original = True, "a device", 20.0, None
    found = {"lucky": iter([10.0, 10.9]), "good": iter([10.1, 10.0])}
    exported = []
    monkeypatch.setattr(device, "_run", exported.append)
    monkeypatch.setattr(device, "_call", lambda run, plan: plan)
    monkeypatch.setattr(device, "_timed", lambda calls, seconds: [[20.0], [next(found[calls[1]])]])
    plans, model = iter(found), SimpleNamespace(rest=0.0, of_plan=lambda plan: 10.0)
    plan, said = device.settle(model, lambda: next(plans), lambda plan: plan, 10.0)
    assert plan == "good" and exported == ["lucky", "good"]
    assert said.startswith("Measured 10.03 ms on a device")
    assert model.rest == pytest.approx(0.6)


def by_table(table: CostTable, detector) -> float:
    """The sum over a network's convolutions."""
    found = on_device._convolutions(detector, 64)
    return sum(table.ms(conv.shape, conv.inputs, conv.outputs) for conv in found)


def test_by_the_table_of_another_device(table) -> None:
    known = CostTable.load(table)
    own = by_table(known, detectors.load(digits.WEIGHTS))
    result = prune(digits.WEIGHTS, target_speedup=2, latency_table=table, **QUICK)
    whole = known.networks[-1][2]
    left = by_table(known, detectors.wrap(result.model))
    assert left < own
    if whole > 2 * own:  # the machine is slow enough for what is no convolution to rule
        return
    assert left + (whole - own) == pytest.approx(whole / 2, rel=0.1)
    assert any(note.startswith("By the table, ") and known.device.processor in note for note in result.report.notes)


def test_steps_share_the_time_saved(table) -> None:
    result = prune(digits.WEIGHTS, target_speedup=1.2, latency_table=table, steps=2, **QUICK)
    own = CostTable.load(table).networks[-1][2]
    assert result.plan.keep and own > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target_speedup": 0.5}, "target_speedup=0.5 is out of range; give a number above 1"),
        ({"target_ms": 1e6}, "The target of 1e+06 ms is not below the"),
        ({"target_ms": 1e-6}, "out of reach"),
        ({"target_speedup": 2, "backend": "onxruntime"}, "Unknown backend 'onxruntime'; did you mean 'onnxruntime'"),
        ({"target_ratio": 0.5, "backend": "ncnn"}, "--backend ncnn is for --target-ms and --target-speedup"),
        ({"target_ms": 3, "target_speedup": 2}, "Exactly one of"),
        ({"target_speedup": 2, "latency_table": "none.json"}, "There is no latency table 'none.json'"),
        ({"target_speedup": 2, "latency_table": "x.json", "threads": 2}, "says which backend and threads"),
    ],
)
def test_what_cannot_be_is_said(given, said, monkeypatch) -> None:
    monkeypatch.setattr("yoloprune.deploy.cost_table._milliseconds", lambda d, s, i, o, p: 0.001)
    with pytest.raises(UserError, match=re.escape(said)):
        prune(digits.WEIGHTS, **given, **QUICK)


def test_a_backend_that_is_not_installed_is_named(monkeypatch) -> None:
    monkeypatch.setattr("yoloprune.deploy.formats.find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape("run: pip install 'yoloprune[openvino]'")):
        Options(target_speedup=2, backend="openvino")


def test_a_table_that_was_cut_off_is_measured_anew(cache, monkeypatch) -> None:
    path = on_device.cached(Device.here("onnxruntime", 1))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    monkeypatch.setattr("yoloprune.deploy.cost_table._milliseconds", lambda d, s, i, o, p: 0.01 * o)
    monkeypatch.setattr(on_device, "_ROUNDS", 1)
    prune(digits.WEIGHTS, target_speedup=1.01, threads=1, **QUICK)
    assert CostTable.load(path).grids


def test_torch_is_timed_on_the_threads_that_were_asked_for_and_keeps_its_own(cache, monkeypatch) -> None:
    """What Ultralytics sets when it chooses a device does not reach what is measured, or the caller."""
    from ultralytics.utils import torch_utils

    monkeypatch.setattr(torch_utils, "NUM_THREADS", 3)
    seen: set[int] = set()
    real = on_device.interleaved
    monkeypatch.setattr(on_device, "interleaved", lambda *args, **more: (
        seen.add(torch.get_num_threads()), real(*args, **more))[1])  # fmt: skip
    monkeypatch.setattr("yoloprune.deploy.cost_table._milliseconds", lambda d, s, i, o, p: (
        seen.add(torch.get_num_threads()), 1e-7 * i * o * s.height**2)[1])  # fmt: skip
    monkeypatch.setattr(on_device, "_ROUNDS", 1)
    with execution.threads(2):
        state = random.getstate()
        prune(digits.WEIGHTS, target_speedup=1.05, backend="torch", threads=1, **{**QUICK, "device": "cpu"})
        assert seen == {1}
        assert torch.get_num_threads() == 2
        assert random.getstate() == state
