"""A YOLO around another network: how a run hands a pruned network on without touching the model it came from."""

from __future__ import annotations

import copy

from torch import nn
from ultralytics.engine.model import Model

from yoloprune.yolo.model import YOLO

__all__ = ["with_network"]


def with_network(yolo: Model, network: nn.Module) -> YOLO:
    """Return a `YOLO` like `yolo` that holds `network`; nothing that either of them changes later is shared.

    Args:
        yolo: Any Ultralytics model with a torch network (YOLO, RTDETR, YOLOWorld).
        network: The network to hold.
    """
    new = YOLO.__new__(YOLO)
    new.__dict__ = dict(yolo.__dict__)
    new._modules = {**yolo._modules}
    new.model = network
    new.overrides = dict(yolo.overrides)
    new.callbacks = {event: list(functions) for event, functions in yolo.callbacks.items()}
    bulky = ("model", "ema", "optimizer", "scaler")
    new.ckpt = {**{k: v for k, v in (yolo.ckpt or {}).items() if k not in bulky}, "model": network}
    if isinstance(getattr(network, "args", None), dict):
        network.args = copy.copy(network.args)
    new.predictor = new.trainer = new.metrics = None
    return new
