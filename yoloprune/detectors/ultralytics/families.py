"""Which family an Ultralytics network is of, told by its modules."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn
from ultralytics.nn import modules as m
from ultralytics.nn.modules import block, head

__all__ = ["network_family"]

# The first row with a module of the network decides; later families reuse the blocks of earlier ones.
BY_MODULE: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("rtdetr", (head.RTDETRDecoder,)),
    ("world", (head.WorldDetect,)),
    ("yoloe", (head.YOLOEDetect, head.YOLOESegment)),
    ("v10", (head.v10Detect,)),
    ("12", (block.A2C2f,)),
    ("26", (head.Segment26, head.Pose26, head.OBB26, head.SemanticSegment, head.Depth)),
    ("v9", (m.RepNCSPELAN4, block.ELAN1, block.CBLinear)),
)


def network_family(network: nn.Module) -> str:
    """The family of an Ultralytics network.

    Returns:
        "v3", "v5", "v6", "v8", "v9", "v10", "11", "12", "26", "rtdetr", "world" or "yoloe"; "unknown" where neither
        the modules nor the name of the YAML file in the checkpoint tell.
    """
    kinds = {type(module) for module in network.modules()}
    for name, types in BY_MODULE:
        if kinds & set(types):
            return name
    if block.C3k2 in kinds:  # shared; YOLO26's boxes have one bin, but its classifiers only their name
        return "26" if getattr(network.model[-1], "reg_max", 16) == 1 or _named(network) == "26" else "11"
    if block.C3Ghost in kinds or block.ResNetLayer in kinds:
        return _named(network) or "unknown"
    if block.C2f in kinds:
        return "v8"
    if block.C3 in kinds:
        return "v5"
    if nn.ConvTranspose2d in kinds:
        return "v6"
    if block.Bottleneck in kinds or nn.ZeroPad2d in kinds:
        return "v3"
    return _named(network) or "unknown"


def _named(network: nn.Module) -> str:
    """The family in the file name of the network's YAML, "" where there is none."""
    rows = getattr(network, "yaml", None) or {}
    found = re.match(r"yolo(v?\d+)", Path(str(rows.get("yaml_file", ""))).stem)
    return found.group(1) if found else ""
