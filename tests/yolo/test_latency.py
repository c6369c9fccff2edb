"""Latency of networks, and ranking by measured time in a run, on the embedded digits detector."""

from __future__ import annotations

import time

import pytest
from torch import nn

from yoloprune import prune
from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints, digits
from yoloprune.yolo.latency import device_name, latencies

NAP = 0.01


class Sleeping(nn.SiLU):
    def forward(self, x):
        time.sleep(NAP)
        return super().forward(x)


def test_the_slower_network_takes_longer_and_both_are_left_alone() -> None:
    quick, slow = (checkpoints.load(digits.WEIGHTS).model for _ in range(2))
    slow.model[0].act = Sleeping()
    before = [name for name, _ in quick.named_modules()]
    first, second = latencies([quick, slow], imgsz=64, device="cpu", seconds=0.1)
    assert 0 < first < second
    assert second >= 1000 * NAP
    assert [name for name, _ in quick.named_modules()] == before  # not fused


def test_the_device_is_named() -> None:
    assert "thread" in device_name("cpu")


def test_a_run_that_validates_reports_latency(tmp_path) -> None:
    data = str(digits.write(tmp_path))
    result = prune(digits.WEIGHTS, target_ratio=0.5, criterion="l2", data=data, imgsz=64, val=True, device="cpu")
    before, after = result.report.before.latency_ms, result.report.after.latency_ms
    assert before > 0 and after > 0
    assert any(row[0] == "Latency (ms, 64 px)" for row in result.report.comparison())
    assert "thread" in result.report.latency_on


def test_per_time_and_per_macs_choose_other_channels() -> None:
    def widths(**options) -> dict[str, int]:
        result = prune(
            digits.WEIGHTS, target_ratio=0.6, criterion="l2", recover=False, imgsz=64, device="cpu", **options
        )
        assert 0.98 * 0.6 <= result.report.after.gflops / result.report.before.gflops <= 0.6
        return {name: after for name, (_, after) in result.report.widths.items()}

    plain, macs, seconds = widths(), widths(per="macs"), widths(per="time")
    assert plain != macs != seconds != plain


def test_what_scores_cannot_be_divided_by_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="per=watts is no cost"):
        prune(digits.WEIGHTS, target_ratio=0.5, per="watts")
    with pytest.raises(UserError, match="leave per=time out"):
        prune(digits.WEIGHTS, target_ratio=0.5, per="time", sensitivity=tmp_path / "any.csv")
