"""The official code's figures: names, shapes, counts and outputs with weights that a rule fills."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import SHARED

FOLDER = SHARED / "data" / "yolov7"
VARIANTS = ("yolov7-tiny", "yolov7", "yolov7x", "yolov7-w6", "yolov7-e6", "yolov7-d6", "yolov7-e6e")
NAMED = [(name, form) for name in VARIANTS for form in ("training", "deploy")] + [("yolov7-tiny-silu", "deploy")]
WITH_OUTPUTS = [entry for entry in NAMED if entry[0] in ("yolov7-tiny", "yolov7-tiny-silu", "yolov7")]


def reference(name: str, form: str = "") -> dict[str, Any]:
    """What is known of a network; skips the test where it is not at hand."""
    path = FOLDER / (f"{name}-{form}.json" if form else f"{name}.json")
    if not path.exists():
        pytest.skip(f"{path.name} not found in {path.parent}; set YOLOPRUNE_SHARED to the folder that has it")
    return json.loads(path.read_text())


def rule() -> ModuleType:
    """`fill.py`: `fill(state)`, `image(size)` and `digest(tensor)`."""
    path = FOLDER / "fill.py"
    if not path.exists():
        pytest.skip(f"fill.py not found in {FOLDER}; set YOLOPRUNE_SHARED to the folder that has it")
    spec = importlib.util.spec_from_file_location("yolov7_fill", Path(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_digest(tensor: Tensor, expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Check a tensor against the count, the means and the values at drawn places of the official one."""
    found = rule().digest(tensor)
    assert list(tensor.shape) == expected["shape"]
    assert found["at"] == expected["at"]
    for key in ("mean", "mean_abs", "values"):
        np.testing.assert_allclose(found[key], expected[key], rtol=tolerance, atol=tolerance, err_msg=key)
    assert torch.isfinite(tensor).all()
