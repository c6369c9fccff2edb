"""The mark on a pruned network's `model.yaml` that blocks stock training.

Stock `train()` rebuilds the network from `model.yaml` and drops the weights that no longer fit, without an error. A
pruned network has no stock YAML, so its rows get one more in front, whose module name is a sentence. Ultralytics'
`parse_model` looks that name up among its modules, first thing, and raises `KeyError: '<sentence>'`. Nothing else
that Ultralytics does with a checkpoint (load, predict, val, export, info) builds from these rows.

A run marks what it prunes because it pruned it. Only networks of unknown origin are compared with their YAML.

What no mark can stop is moving weights into another network (`YOLO("yolov8n.yaml").load("pruned.pt")`,
`train(pretrained="pruned.pt")`): stock Ultralytics takes the tensors that fit and reads nothing of the source but its
`state_dict()` and class names, both of which exporting and predicting need as they are. `model.YOLO`
refuses it.
"""

from __future__ import annotations

import copy

from torch import nn
from ultralytics.nn.modules.head import WorldDetect

from .guard import offline, quiet
from .internals import described

__all__ = ["SENTENCE", "block_stock_training", "is_marked", "is_pruned", "same_widths"]

SENTENCE = (
    "This network was pruned by yoloprune, and stock training would rebuild it at its full width. "
    "Train it with yoloprune instead: import yoloprune; yoloprune.load(weights).train(...); or, with a trainer of your "
    "own, YOLO(weights).train(trainer=yoloprune.keep_pruned(Mine), ...)"
)
KEY = "pruned_by"  # key in model.yaml
WORLD_FILE = ", pruned, train it with yoloprune and not with stock Ultralytics.yaml"


def is_marked(model: nn.Module | dict | None) -> bool:
    """Whether a network, or a `model.yaml`, carries the mark."""
    description = model if isinstance(model, dict) else getattr(model, "yaml", None)
    return isinstance(description, dict) and KEY in description


def is_pruned(model: nn.Module) -> bool:
    """Whether stock training would not give `model`'s network back: it is marked, or its widths are not its YAML's.

    A network whose YAML does not build here counts as pruned, since its widths cannot be told, and so does one of a
    class that is not Ultralytics'. One without a YAML does not: there is nothing that stock training could build in its
    place.
    """
    if is_marked(model) or not _is_stock(model):
        return True
    rows = getattr(model, "yaml", None)
    if not isinstance(rows, dict):
        return False
    try:  # offline: without it parse_model would eval the YAML's activation
        with quiet(), offline():
            full = described(_without_downloads(rows))
    except Exception:  # rows of an older or newer Ultralytics, or of somebody's own, can raise anything
        return True
    return not same_widths(model.model, full)


def same_widths(a: nn.Module, b: nn.Module) -> bool:
    """Whether tensors of the same name have the same shape in two networks' layers, `.model` each.

    The class branches of a detection head are not compared: Ultralytics itself keeps their width when the number of
    classes changes.
    """
    last = len(a) - 1
    classes = (f"{last}.cv3.", f"{last}.one2one_cv3.")
    shapes = {name: tensor.shape for name, tensor in b.state_dict().items() if not name.startswith(classes)}
    return all(shapes.get(name, tensor.shape) == tensor.shape for name, tensor in a.state_dict().items())


def _without_downloads(rows: dict) -> dict:
    """A copy of a `model.yaml` whose TorchVision rows ask for no pretrained weights, which would be downloaded."""
    rows = copy.deepcopy(rows)
    for row in [*rows.get("backbone", []), *rows.get("head", [])]:
        if row[2] == "TorchVision":
            row[3][2:3] = [None]
    return rows


def _is_stock(model: nn.Module) -> bool:
    """Whether a network's class is one of Ultralytics'."""
    return type(model).__module__.partition(".")[0] == "ultralytics"


def block_stock_training(model: nn.Module) -> None:
    """Mark `model.yaml` in place; the original rows stay, behind the row that stops `parse_model`.

    Networks of other classes than Ultralytics' are left as they are: their files need yoloprune to be opened.
    """
    if is_marked(model) or not _is_stock(model):
        return
    rows = dict(model.yaml)
    rows["backbone"] = [[-1, 1, SENTENCE, []], *rows["backbone"]]
    rows[KEY] = "yoloprune"
    if isinstance(model.model[-1], WorldDetect):  # stock World training builds from the file's name, not from the rows
        rows["yaml_file"] = str(rows.get("yaml_file", "world")).removesuffix(".yaml") + WORLD_FILE
    model.yaml = rows
