"""Figures as Ultralytics counts them, and what is said where it counts nothing."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
import thop
import torch
from torch import nn

from yoloprune import prune
from yoloprune.demo import digits
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.cost import gflops
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.errors import UserError
from yoloprune.pipeline.targets import reachable


@pytest.fixture
def yolo():
    return checkpoints.load(digits.WEIGHTS)


class Fails(nn.Module):
    def forward(self, x):
        if x.shape[-1] != 32:  # that of an image of 64 px, on which models are traced
            raise RuntimeError("none but 64 px, please\nand a second line")
        return x


def test_a_model_that_fails_is_named_and_not_counted_as_nothing(yolo) -> None:
    yolo.model.model[0].act = Fails()
    said = "at 640 px cannot be counted: the model fails on an image of 3 x 640 x 640 (RuntimeError: none but 64 px"
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        gflops(yolo.model)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=re.escape(said)):
        prune(yolo, target_ratio=0.5, criterion="l2", recover=False)


def test_a_missing_profiler_is_named(yolo, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "thop", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "thop" else find(name))
    with pytest.raises(UserError, match="the package ultralytics-thop, which is not installed"):
        gflops(yolo.model)


def test_a_profiler_that_fails_is_named(yolo, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(thop, "profile", fail)
    with pytest.raises(UserError, match=r"profiler fails on the model, which runs \(ZeroDivisionError: by zero\)"):
        gflops(yolo.model)


def test_a_pruned_network_that_fails_is_the_block_s_fault(yolo) -> None:
    class Fixed(nn.SiLU):
        """Works with 64 channels only, which one execution does not show."""

        def forward(self, x):
            return super().forward(x) + 0 * torch.rand(int("64")).sum() if x.shape[1] == int("64") else x.view(7)

    yolo.model.model[3].act = Fixed()
    detector = UltralyticsDetector(yolo)
    with pytest.raises(UserError, match=r"does not run .*keep these \(--keep model\.3\.conv\)"):
        reachable(detector, detector.trace())
