"""GFLOPs as Ultralytics prints them."""

from __future__ import annotations

import copy
import importlib.util

import torch
from torch import nn
from ultralytics.utils.torch_utils import get_flops

from yoloprune.errors import UserError
from yoloprune.exclusive import exclusive

__all__ = ["gflops"]


@exclusive  # Ultralytics counts by hooks in the model
def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """GFLOPs (2 x MACs) that `model.info()` prints for square images of `imgsz` pixels.

    Raises:
        UserError: They cannot be counted. Names the cause, of which Ultralytics makes a figure of 0.
    """
    found = float(get_flops(model, imgsz)) or _counted(model, imgsz)
    if not found > 0:
        raise UserError(f"The GFLOPs at {imgsz} px cannot be counted: {_cause(model, imgsz)}.")
    return found


def _counted(model: nn.Module, imgsz: int) -> float:
    """As `get_flops`, on an image of the model's own channels.

    Ultralytics takes the first weight's input for the image, which it is not behind a layer that moves pixels into
    channels (Focus, ReOrg).
    """
    weight = next(model.parameters(), None)
    channels = (getattr(model, "yaml", None) or {}).get("channels", 3)
    if weight is None or weight.ndim < 2 or weight.shape[1] == channels:
        return 0.0
    try:
        import thop

        image = torch.empty(1, channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
        stride = max(int(model.stride.max()), 32)
        return float(thop.profile(model, inputs=[image], stride=stride, verbose=False)[0]) / 1e9 * 2
    except Exception:  # the model's code can raise anything; `_cause` says what it is
        return 0.0


def _cause(model: nn.Module, imgsz: int) -> str:
    """Why Ultralytics counts nothing, found by doing what it does without its `except`."""
    if importlib.util.find_spec("thop") is None:
        return "Ultralytics counts with the package ultralytics-thop, which is not installed; pip install it"
    network = copy.deepcopy(model).eval()
    weight = next(network.parameters(), None)
    if weight is None:
        return "the model has no parameters; give a checkpoint that holds a network"
    channels = (getattr(model, "yaml", None) or {}).get("channels", 3)
    image = torch.zeros(1, channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            network(image)
    except Exception as error:  # the model's code can raise anything
        return (
            f"the model fails on an image of {channels} x {imgsz} x {imgsz} ({_first_line(error)}); give a checkpoint "
            "that predicts"
        )
    try:
        import thop

        thop.profile(network, inputs=[image], verbose=False)
    except Exception as error:
        return f"Ultralytics' profiler fails on the model, which runs ({_first_line(error)})"
    return "Ultralytics' profiler knows none of the model's layers, or takes it for one of other input channels"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
