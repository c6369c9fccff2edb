"""`yoloprune v7`: a YOLOv7 detector in, a smaller one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_command import RECIPE, CommandSpec, of_family, run_command

__all__ = ["NAME", "command"]

NAME = "v7"

_HELP = """Prune a YOLOv7 detector, fine-tune it, and write weights, ONNX file and report.

Takes checkpoints of the YOLOv7 repository (deploy and training form, tiny to e6e) and writes ones that it opens.

[bold]Examples[/]

  yoloprune v7 yolov7.pt --target-gflops 52 --data coco.yaml --device 0

  yoloprune v7 yolov7-tiny.pt --target-ratio 0.5 --data my.yaml --epochs 20

  yoloprune v7 best.pt --target-ratio 0.7 --data my.yaml --epochs 0 --no-val --no-export

  yoloprune v7 --resume runs/prune/prune
"""


def _check(detector: Any, weights: Path) -> None:
    of_family(detector, weights, "v7", "YOLOv7")


command = run_command(CommandSpec(NAME, check=_check, shown=RECIPE), _HELP)
