"""Latency of networks, on the embedded digits detector."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.small_yolo import shallow_weights
from yoloprune import detectors, prune
from yoloprune.demo import digits
from yoloprune.deploy.backends import compiled
from yoloprune.deploy.latency import latencies, module_latencies
from yoloprune.detectors.ultralytics.devices import device_name

NAP = 0.01


class Sleeping(nn.SiLU):
    def forward(self, x):
        time.sleep(NAP)
        return super().forward(x)


def test_the_slower_network_takes_longer_and_both_are_left_alone() -> None:
    quick, slow = (detectors.load(digits.WEIGHTS) for _ in range(2))
    slow.network.model[0].act = Sleeping()
    before = [name for name, _ in quick.network.named_modules()]
    first, second = latencies([quick, slow], imgsz=64, device="cpu", seconds=0.1)
    assert 0 < first < second
    assert second >= 1000 * NAP
    assert [name for name, _ in quick.network.named_modules()] == before  # not fused


def test_what_sleeps_is_found_among_the_modules_and_shared_activations_count_with_their_callers() -> None:
    quick, slow = (detectors.load(digits.WEIGHTS) for _ in range(2))
    slow.network.model[1].act = Sleeping()
    first, second = module_latencies([quick, slow], imgsz=64, device="cpu", seconds=0.1)
    assert max(second, key=second.get) == "model.1.act" and second["model.1.act"] > 1000 * NAP
    assert not [name for name in first if name.endswith(".act")]  # one activation stands for all
    assert {"model.0.conv", "model.2", "model.9.m"} <= {*first} and min(first.values()) >= 0
    assert not any(module._forward_hooks for module in slow.network.modules())


def test_the_device_is_named() -> None:
    assert "thread" in device_name("cpu")


def test_a_run_that_validates_reports_latency(few_digits) -> None:
    some = {"data": few_digits, "calibration_images": 8, "imgsz": 64, "device": "cpu"}
    result = prune(shallow_weights(), target_ratio=0.5, criterion="l2", recover=False, val=True, **some)
    before, after = result.report.before.latency_ms, result.report.after.latency_ms
    assert before > 0 and after > 0
    assert any(row[0] == "Latency (ms, 64 px)" for row in result.report.comparison())
    assert "thread" in result.report.latency_on


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_clock_waits_for_the_device(monkeypatch, kind) -> None:
    calls = []
    network = nn.Conv2d(3, 4, 1)
    network.register_forward_hook(lambda *_: calls.append(("run",)))
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *device: calls.append(("wait", *device)))
    monkeypatch.setattr(network, "to", lambda place: network)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
    compiled(network, device=kind)(np.zeros((1, 3, 8, 8), np.float32))
    of = () if kind == "mps" else (torch.device(kind),)
    assert calls == [("run",), ("wait", *of)]
