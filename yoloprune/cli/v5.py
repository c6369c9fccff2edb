"""`yoloprune v5`: a YOLOv5 detector in, a smaller one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_command import RECIPE, CommandSpec, of_family, run_command

__all__ = ["NAME", "command"]

NAME = "v5"

_HELP = """Prune a YOLOv5 detector, fine-tune it, and write weights, ONNX file and report.

Takes checkpoints of the YOLOv5 repository, with anchors, and of Ultralytics' package (yolov5nu.pt), and writes ones
that the same code opens.

[bold]Examples[/]

  yoloprune v5 yolov5n.pt --target-ratio 0.6 --data coco.yaml --device 0

  yoloprune v5 yolov5s.pt --target-ratio 0.5 --data my.yaml --epochs 20

  yoloprune v5 best.pt --target-ratio 0.7 --data my.yaml --epochs 0 --no-val --no-export

  yoloprune v5 --resume runs/prune/prune
"""


def _check(detector: Any, weights: Path) -> None:
    of_family(detector, weights, "v5", "YOLOv5")


command = run_command(CommandSpec(NAME, check=_check, shown=RECIPE), _HELP)
