"""Ultralytics' `YOLO` around a network of YOLOv7 or YOLOv5."""

from __future__ import annotations

from ultralytics.utils import DEFAULT_CFG_DICT

from yoloprune.detectors.ultralytics import model

from .network import Network
from .pickles import read_network

__all__ = ["YOLO"]


class YOLO(model.YOLO):
    """Predicts, validates, tracks and exports as Ultralytics' `YOLO` does, with a network of these families."""

    @classmethod
    def around(cls, network: Network) -> YOLO:
        """The model of a network that comes from no file."""
        network.args = dict(DEFAULT_CFG_DICT)
        network.pt_path = network.pt_path or "yolo.pt"
        return cls.holding(network, {"model": network, "train_args": {}})

    def _load(self, weights: str, task: str | None = None) -> None:
        """Take an official checkpoint, or one of ours, without running anything that it names."""
        if "_read" not in vars(self) and str(weights).lower().endswith(".pt"):
            vars(self)["_read"] = read_network(weights)
        super()._load(weights, task)
