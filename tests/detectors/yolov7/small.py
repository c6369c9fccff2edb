"""Networks of a quarter of the width, in which a wrong channel shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yoloprune.detectors.yolov7 import architecture
from yoloprune.detectors.yolov7.network import Network


def small(name: str, form: str = "training", nc: int = 3, width: float = 0.25) -> Network:
    """A variant with `width` of its channels, or of YOLOv5n's."""
    cfg = architecture(name, form, nc)
    return Network.from_yaml({**cfg, "width_multiple": width * cfg["width_multiple"]})


def lively(network: Network, size: int = 128) -> tuple[Network, Tensor]:
    """Random norms, calibrated, and random biases and implicit vectors, in double precision, and an image.

    Args:
        network: Changed in place, and in evaluation mode then.
        size: Of the image, in px.
    """
    network = network.double()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    image = torch.rand(2, 3, size, size, dtype=torch.float64)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.5)
        norm.momentum = 1.0
    for name, parameter in network.head.named_parameters():
        if name.endswith(("bias", "implicit")):
            nn.init.normal_(parameter, mean=float(".im." in f".{name}"), std=0.3)
    network.train()
    with torch.no_grad():
        network(image)
    return network.eval(), image[:1]


def training(network: Network) -> Network:
    """The network in training mode, but for its batch norms."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network
