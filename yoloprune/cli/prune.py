"""`yoloprune prune`: any supported family and task."""

from __future__ import annotations

from .run_command import RECIPE, CommandSpec, run_command

__all__ = ["NAME", "command"]

NAME = "prune"

_HELP = """Prune a model of any supported family and task.

Families: YOLOv3, v5, v6, v7, v8, v9, v10, 11, 12, 26, RT-DETR and YOLO-World; tasks: detect, segment, pose, obb,
classify.

[bold]Examples[/]

  yoloprune prune yolo11s-seg.pt --target-ratio 0.6 --data coco.yaml

  yoloprune prune yolov5su.pt --target-params 5M --data coco128.yaml --epochs 50

  yoloprune prune --resume runs/prune/prune-2
"""

command = run_command(CommandSpec(NAME, shown=RECIPE), _HELP)
