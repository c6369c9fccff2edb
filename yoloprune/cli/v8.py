"""`yoloprune v8`: a YOLOv8 detector in, a smaller one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_command import RECIPE, CommandSpec, of_family, run_command

__all__ = ["NAME", "command"]

NAME = "v8"

_HELP = """Prune a YOLOv8 detector, fine-tune it, and write weights, ONNX file and report.

Without arguments: prunes the embedded digits detector to half its GFLOPs, in a few minutes on any machine.

[bold]Examples[/]

  yoloprune v8

  yoloprune v8 yolov8s.pt -g 14 --data coco.yaml --device 0

  yoloprune v8 yolov8s.pt -g 14 --data my.yaml --budget 30m --prune-head --choose-imgsz

  yoloprune v8 best.pt --target-ratio 0.5 --data my.yaml --epochs 20 optimizer=SGD

  yoloprune v8 best.pt -g 6.2 --data my.yaml --dry-run

  yoloprune v8 best.pt -g 6.2 --data my.yaml --epochs 0 --no-val --no-export

  yoloprune v8 --resume runs/prune/prune
"""


def _check(detector: Any, weights: Path) -> None:
    of_family(detector, weights, "v8", "YOLOv8")


command = run_command(
    CommandSpec(NAME, embedded=True, check=_check, shown={"weights": "the embedded digits detector", **RECIPE}), _HELP
)
