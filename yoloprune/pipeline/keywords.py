"""Checks of the keywords that are handed on to Ultralytics' `train()`, `val()` and `export()`.

Names and kinds of values are checked against Ultralytics' own table without importing it, so that a slip of the pen is
answered at once; ranges by Ultralytics itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from yoloprune.errors import UserError, did_you_mean

__all__ = ["COMMAND_DECIDES", "OPTIMIZERS", "OWN_OPTIONS", "check_keywords", "train_keywords"]

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "auto")
"""What Ultralytics' trainer can build, in any case; it finds out after the model and the data are loaded."""

OWN_OPTIONS = {
    "data": "data",
    "epochs": "epochs",
    "batch": "batch",
    "imgsz": "imgsz",
    "device": "device",
    "seed": "seed",
    "project": "project",
    "name": "name",
    "exist_ok": "exist-ok",
    "resume": "resume",
    "model": "weights",
    "format": "format",
}
"""Ultralytics keywords that the run itself decides, and the option of the command line that says the same."""

_RUN_DECIDES = {
    "task": "the checkpoint says which task it was trained for",
    "mode": "the run trains, validates and exports by itself",
    "save": "the run needs the checkpoints of the fine-tuning",
    "save_dir": "the output folder is set by --project and --name",
    "pretrained": "fine-tuning always starts from the pruned weights",
    "distill_model": "the unpruned network guides the fine-tuning already",
    "single_cls": "pruning keeps the classes of the weights; train them with single_cls=True first, and give a data "
    "YAML with that one class",
    "split": "a run is validated on the split val, so that its figures compare; afterwards: yoloprune val pruned.pt "
    "split=test",
    "iou": "a run is validated as Ultralytics does by default, so that its figures compare; afterwards: yoloprune val "
    "pruned.pt iou=0.6",
    "max_det": "a run is validated as Ultralytics does by default, so that its figures compare; afterwards: yoloprune "
    "val pruned.pt max_det=100",
    "cfg": "a run is configured by options and key=value pairs",
    "quantize": "training for INT8 comes after a run, since what it gives loads with NVIDIA's ModelOpt alone; in "
    "Python: yoloprune.load('pruned.pt').train(quantize=8); without training: yoloprune export pruned.pt quantize=8",
    "half": "export the finished model in float16 with yoloprune export pruned.pt quantize=16",
    "int8": "quantise the finished model with yoloprune export pruned.pt quantize=8 data=my.yaml",
}

COMMAND_DECIDES = {
    "model": "the weights are the first argument",
    "task": "the checkpoint says which task it was trained for",
    "mode": "the command says what is done",
    "verbose": "the command decides what is shown",
}
"""Ultralytics keywords that a command for one checkpoint decides, and how."""


def check_keywords(
    keywords: Mapping[str, Any],
    options: Mapping[str, str] = OWN_OPTIONS,
    decided: Mapping[str, str] = _RUN_DECIDES,
) -> None:
    """Check keywords by name and kind of value.

    Args:
        keywords: What is to be handed on.
        options: Keywords that are options of yoloprune, and how those are called; by default those of a run.
        decided: Keywords that cannot be given, and why; by default those of a run.

    Raises:
        UserError: An unknown keyword, one of `options` or `decided`, or text in the place of a number.
    """
    defaults = train_keywords()
    for name, value in keywords.items():
        if name in options:
            raise UserError(f"{name}=... is an option of its own; give it as --{options[name]}.")
        if name in decided:
            raise UserError(f"{name}=... cannot be given: {decided[name]}.")
        if name not in defaults:
            near = did_you_mean(str(name), [*defaults, *options])
            raise UserError(f"'{name}' is not an option of Ultralytics{near} (https://docs.ultralytics.com/usage/cfg).")
        default = defaults[name]
        if isinstance(value, str) and isinstance(default, (int, float)) and name not in _ALSO_TEXT:
            kind = "true or false" if isinstance(default, bool) else "a number"
            raise UserError(f"{name}={value} is not understood; give {kind}, such as {name}={default}.")
    optimizer = str(keywords.get("optimizer", "auto"))
    if optimizer.lower() not in map(str.lower, OPTIMIZERS):
        raise UserError(
            f"Unknown optimizer {optimizer!r}{did_you_mean(optimizer, OPTIMIZERS)} ({', '.join(OPTIMIZERS)})."
        )


_ALSO_TEXT = {"cache", "embed", "freeze", "pretrained", "compile"}  # whose defaults are numbers or switches


@cache
def train_keywords() -> dict[str, Any]:
    """Keywords of Ultralytics' `train()`, and their defaults: its own table."""
    package = Path(find_spec("ultralytics").origin).parent
    return yaml.safe_load((package / "cfg" / "default.yaml").read_text(encoding="utf-8"))
