"""The mark on a pruned network's `model.yaml` that stops stock training.

Stock `train()` rebuilds the network from `model.yaml` and drops the weights that no longer fit, without an error. A
pruned network has no stock YAML, so its rows get one more in front, whose module name is a sentence. Ultralytics'
`parse_model` looks that name up among its modules, first thing, and raises `KeyError: '<sentence>'`. Nothing else
that Ultralytics does with a checkpoint (load, predict, val, export, info) builds from these rows.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from ultralytics.nn.modules.head import WorldDetect
from ultralytics.nn.tasks import parse_model

from yoloprune.yolo.guard import local_checkpoints, quiet

__all__ = ["SENTENCE", "is_marked", "is_pruned", "mark"]

SENTENCE = (
    "This network was pruned by yoloprune, and stock Ultralytics training would rebuild it at its full width. "
    "Train it with yoloprune instead: from yoloprune.yolo.model import YOLO; YOLO(weights).train(...)"
)
KEY = "pruned_by"  # key in model.yaml
WORLD_FILE = ", pruned, train it with yoloprune and not with stock Ultralytics.yaml"


def is_marked(model: nn.Module | dict | None) -> bool:
    """Whether a network, or a `model.yaml`, carries the mark."""
    description = model if isinstance(model, dict) else getattr(model, "yaml", None)
    return isinstance(description, dict) and KEY in description


def is_pruned(model: nn.Module) -> bool:
    """Whether stock training would not give `model`'s network back: it is marked, or its widths are not its YAML's.

    The class branches of a detection head are not compared: Ultralytics itself keeps their width when the number of
    classes changes. A network whose YAML no longer builds counts as not pruned; stock training fails on it loudly.
    """
    if is_marked(model):
        return True
    rows = getattr(model, "yaml", None)
    if not isinstance(rows, dict) or any(row[2] == "TorchVision" for row in rows.get("backbone", [])):
        return False  # building a TorchVision row downloads weights
    try:  # local_checkpoints: without it parse_model would eval the YAML's activation
        with quiet(), local_checkpoints(), torch.device("meta"):
            described, _ = parse_model(copy.deepcopy(rows), ch=rows.get("channels", 3), verbose=False)
    except Exception:
        return False
    last = len(described) - 1
    classes = (f"{last}.cv3.", f"{last}.one2one_cv3.")
    shapes = {name: tensor.shape for name, tensor in described.state_dict().items() if not name.startswith(classes)}
    return any(shapes.get(name, tensor.shape) != tensor.shape for name, tensor in model.model.state_dict().items())


def mark(model: nn.Module) -> None:
    """Mark `model.yaml` in place; the original rows stay, behind the row that stops `parse_model`."""
    if is_marked(model):
        return
    rows = dict(model.yaml)
    rows["backbone"] = [[-1, 1, SENTENCE, []], *rows["backbone"]]
    rows[KEY] = "yoloprune"
    if isinstance(model.model[-1], WorldDetect):  # stock World training builds from the file's name, not from the rows
        rows["yaml_file"] = str(rows.get("yaml_file", "world")).removesuffix(".yaml") + WORLD_FILE
    model.yaml = rows
